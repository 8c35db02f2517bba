from pathlib import Path

import pytest
import torch
from peft import PeftModel

from propulsion.analysis.comparison import Comparison, compare, num_gradients
from propulsion.analysis.loading import with_fresh_adapter, with_trained_adapter
from propulsion.analysis.samples import Sample
from propulsion.analysis.scalar_output import Probe, Task, causal_lm_probes
from propulsion.errors import ConfigError, PropulsionError
from tests.propulsion.analysis.models import adapted, llama, save_adapter

GIB = 2**30
PROBES = causal_lm_probes(
    [Sample(1, (5, 9, 300, 17)), Sample(2, (7, 8)), Sample(3, (4, 40, 400, 4000, 40, 4, 1))]
)


def rows_by_autograd(model: PeftModel, probes: list[Probe]) -> torch.Tensor:
    """Gradients of the log-odds for the offsets, through PEFT's own model, in fp64."""
    offsets = [p for name, p in model.named_parameters() if "propulsion_delta" in name]
    rows = []
    for probe in probes:
        chances = model(probe.token_ids).logits[0, -1].softmax(dim=0)
        odds = (chances[probe.target] / (1 - chances[probe.target])).log()
        gradients = torch.autograd.grad(odds, offsets)
        rows.append(torch.cat([gradient.flatten() for gradient in gradients]))
    return torch.stack(rows).double()


def fresh(degree: int) -> Comparison:
    adapted_model = with_fresh_adapter(llama(), "all", degree)
    return compare(adapted_model, Task.CAUSAL_LM, PROBES, GIB)


def test_propulsions_kernel_and_drift_are_those_of_plain_autograd(adapter: Path) -> None:
    found = compare(with_trained_adapter(llama(), adapter), Task.CAUSAL_LM, PROBES, GIB)
    after = rows_by_autograd(PeftModel.from_pretrained(llama(), adapter, is_trainable=True), PROBES)
    start = adapted(llama(), spread=0.0, degree_pattern={"mlp.down_proj": 3})
    before = rows_by_autograd(start, PROBES)
    torch.testing.assert_close(found.propulsion, before @ before.T, rtol=1e-3, atol=1e-2)
    assert found.drift is not None
    torch.testing.assert_close(found.drift.kernel_after, after @ after.T, rtol=1e-3, atol=1e-2)
    jacobian_drift = float((after - before).norm() / before.norm())
    assert found.drift.jacobian == pytest.approx(jacobian_drift, rel=1e-3)
    difference = after @ after.T - before @ before.T
    kernel_drift = float(difference.norm() / (before @ before.T).norm())
    assert found.drift.kernel == pytest.approx(kernel_drift, rel=1e-3)
    assert jacobian_drift > 0.01
    squares = found.drift.norms_of_difference.double().square().sum()
    assert float(squares) == pytest.approx(float((after - before).square().sum()), rel=1e-3)


def test_full_kernel_is_that_of_the_base_without_an_adapter(adapter: Path) -> None:
    found = compare(with_trained_adapter(llama(), adapter), Task.CAUSAL_LM, PROBES, GIB)
    base = llama()
    rows = []
    for probe in PROBES:
        base.zero_grad()
        chances = base(probe.token_ids).logits[0, -1].softmax(dim=0)
        (chances[probe.target] / (1 - chances[probe.target])).log().backward()
        rows.append(torch.cat([parameter.grad.flatten() for parameter in base.parameters()]))
    jacobian = torch.stack(rows).double()
    torch.testing.assert_close(found.full, jacobian @ jacobian.T, rtol=1e-3, atol=1e-2)


def test_full_kernel_does_not_depend_on_where_several_vectors_start(tmp_path: Path) -> None:
    folder = save_adapter(tmp_path, llama(), num_vectors=2, pooling="mean")
    several = compare(with_trained_adapter(llama(), folder), Task.CAUSAL_LM, PROBES, GIB)
    torch.testing.assert_close(several.full, fresh(15).full, rtol=1e-6, atol=1e-6)


def test_at_the_start_the_degree_is_a_factor_of_the_jacobian() -> None:
    first, second = fresh(1), fresh(20)
    torch.testing.assert_close(second.propulsion, 400 * first.propulsion, rtol=1e-4, atol=1e-3)
    assert second.distances.alignment == pytest.approx(first.distances.alignment, rel=1e-5)
    torch.testing.assert_close(second.norms, 20 * first.norms, rtol=1e-4, atol=1e-4)
    assert first.drift is None


def test_norms_are_split_by_module() -> None:
    found = fresh(15)
    assert found.norms.shape == (len(PROBES), len(found.modules))
    squares = found.norms.double().square().sum(dim=1)
    torch.testing.assert_close(squares, found.propulsion.diag(), rtol=1e-5, atol=1e-5)
    # The keys of the first token never change what one token attends to.
    alone = found.norms[1]
    silent = [name for name, norm in zip(found.modules, alone, strict=True) if norm == 0]
    assert silent == [
        f"model.layers.{block}.self_attn.{name}_proj" for block in (0, 1) for name in "qk"
    ]


def test_an_adapter_that_was_not_moved_has_no_drift(tmp_path: Path) -> None:
    folder = save_adapter(tmp_path, llama(), spread=0.0)
    found = compare(with_trained_adapter(llama(), folder), Task.CAUSAL_LM, PROBES, GIB)
    assert found.drift is not None
    assert (found.drift.jacobian, found.drift.kernel) == (0.0, 0.0)


@pytest.mark.parametrize("trained", [False, True])
def test_gradients_are_counted_before_they_are_taken(adapter: Path, trained: bool) -> None:
    model = (
        with_trained_adapter(llama(), adapter)
        if trained
        else with_fresh_adapter(llama(), "all", 15)
    )
    max_bytes = 4 * len(PROBES) * 16 * 4096
    taken: list[int] = []
    compare(model, Task.CAUSAL_LM, PROBES, max_bytes, lambda: taken.append(1))
    assert len(taken) == num_gradients(model, len(PROBES), max_bytes)
    assert len(taken) == len(PROBES) * (4 if trained else 3)


def test_offsets_that_exceed_the_memory_are_refused(adapter: Path) -> None:
    model = with_fresh_adapter(llama(), "all", 15)
    num_offsets = sum(delta.numel() for delta in model.start.values())
    with pytest.raises(ConfigError, match=r"Propulsion's offsets .* at most 2 samples"):
        compare(model, Task.CAUSAL_LM, PROBES, 4 * num_offsets * 3 - 1)
    with pytest.raises(ConfigError, match="at most 1 samples"):
        # Before, after and their difference.
        num_gradients(with_trained_adapter(llama(), adapter), 3, 4 * num_offsets * 3)


def test_an_adapter_that_starts_where_gradients_vanish_is_refused(tmp_path: Path) -> None:
    folder = save_adapter(tmp_path, llama(), init="zeros")
    with pytest.raises(PropulsionError, match="all gradients are zero before training"):
        compare(with_trained_adapter(llama(), folder), Task.CAUSAL_LM, PROBES, GIB)
