import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from transformers import BloomConfig, BloomForCausalLM

from propulsion.analysis import ntk
from propulsion.analysis.scalar_output import Probe, Task, scalar_output
from propulsion.errors import ConfigError, PropulsionError
from tests.propulsion.analysis.models import VOCAB_SIZE, llama

GIB = 2**30


def probes() -> list[Probe]:
    generator = torch.Generator().manual_seed(0)
    return [
        Probe(torch.randint(VOCAB_SIZE, (1, length), generator=generator), 17 * length)
        for length in (3, 8, 1, 5)
    ]


def parameters_of(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


def bloom() -> BloomForCausalLM:
    torch.manual_seed(0)
    config = BloomConfig(
        vocab_size=VOCAB_SIZE, hidden_size=16, n_layer=2, n_head=2, initializer_range=0.3
    )
    return BloomForCausalLM(config).eval()


def gradients_by_autograd(model: Any, probe: Probe) -> torch.Tensor:
    """Without torch.func: backward through the model itself."""
    model.zero_grad()
    probability = model(probe.token_ids).logits[0, -1].softmax(dim=0)[probe.target]
    (probability / (1 - probability)).log().backward()
    return torch.cat([parameter.grad.reshape(-1) for parameter in model.parameters()])


def quadratic(parameters: Mapping[str, torch.Tensor], sample: torch.Tensor) -> torch.Tensor:
    """a · x + |b|² sum(x) / 2, with the gradients x and b sum(x)."""
    a, b = parameters["a"], parameters["b"]
    return a @ sample + b.square().sum() * sample.sum() / 2


QUADRATIC_AT = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([[3.0], [-1.0]])}
QUADRATIC_SAMPLES = [torch.tensor([1.0, 0.0]), torch.tensor([2.0, -4.0])]
QUADRATIC_ROWS = torch.tensor([[1.0, 0.0, 3.0, -1.0], [2.0, -4.0, -6.0, 2.0]])


def test_jacobian_holds_outputs_and_gradients_in_the_order_of_the_parameters() -> None:
    found = ntk.jacobian(quadratic, QUADRATIC_AT, QUADRATIC_SAMPLES)
    assert torch.equal(found.rows, QUADRATIC_ROWS)
    assert torch.equal(found.outputs, torch.tensor([6.0, -16.0]))


@pytest.mark.parametrize("tied", [True, False])
def test_jacobian_of_a_language_model_is_that_of_plain_autograd(tied: bool) -> None:
    model = llama(tied=tied)
    found = ntk.jacobian(scalar_output(model, Task.CAUSAL_LM), parameters_of(model), probes())
    expected = torch.stack([gradients_by_autograd(model, probe) for probe in probes()])
    torch.testing.assert_close(found.rows, expected, rtol=1e-3, atol=1e-4)


def test_jacobian_of_a_model_that_torch_func_cannot_transform_is_taken_all_the_same() -> None:
    model = bloom()
    function, at = scalar_output(model, Task.CAUSAL_LM), parameters_of(model)
    with pytest.raises(RuntimeError, match="setup_context"):
        torch.func.grad(function)(at, probes()[0])
    # What f does not depend on has a gradient of zero.
    found = ntk.jacobian(function, at | {"unused": torch.ones(3)}, probes())
    expected = torch.stack([gradients_by_autograd(model, probe) for probe in probes()])
    torch.testing.assert_close(found.rows[:, :-3], expected, rtol=1e-3, atol=1e-4)
    assert not found.rows[:, -3:].any()
    assert not found.rows.requires_grad


def test_kernel_predicts_what_a_step_on_one_sample_changes_for_the_others() -> None:
    model = llama()
    function, at = scalar_output(model, Task.CAUSAL_LM), parameters_of(model)
    kernel = ntk.kernel(function, at, probes(), GIB)
    outputs = scalar_output(model.double(), Task.CAUSAL_LM)
    for trained, probe in enumerate(probes()):
        gradients = torch.func.grad(function)(at, probe)

        def moved(size: float, gradients: Any = gradients) -> torch.Tensor:
            stepped = {name: at[name].double() + size * gradients[name].double() for name in at}
            return torch.stack([outputs(stepped, probe) for probe in probes()]).detach()

        length = float(kernel[trained, trained]) ** 0.5
        step = 1e-3 / length
        changes = (moved(step) - moved(-step)) / (2 * step)
        torch.testing.assert_close(changes, kernel[trained], rtol=1e-3, atol=1e-3 * length**2)


def test_kernel_is_the_gram_matrix_of_the_gradients() -> None:
    model = llama()
    found = ntk.kernel(scalar_output(model, Task.CAUSAL_LM), parameters_of(model), probes(), GIB)
    gradients = [gradients_by_autograd(model, probe).double() for probe in probes()]
    expected = torch.tensor([[float(a @ b) for b in gradients] for a in gradients])
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, expected.double(), rtol=1e-4, atol=1e-3)


def test_kernel_of_tied_weights_counts_them_once() -> None:
    model = llama(tied=True)
    names = parameters_of(model)
    assert "lm_head.weight" not in names
    assert model.lm_head.weight is model.model.embed_tokens.weight
    tied = {"model.embed_tokens.weight": names["model.embed_tokens.weight"]}
    found = ntk.kernel(scalar_output(model, Task.CAUSAL_LM), tied, probes(), GIB)
    untied = llama(tied=False)
    untied.load_state_dict(model.state_dict())
    both = ntk.jacobian(
        scalar_output(untied, Task.CAUSAL_LM),
        {
            name: parameter
            for name, parameter in parameters_of(untied).items()
            if name in ("model.embed_tokens.weight", "lm_head.weight")
        },
        probes(),
    ).rows
    # The gradient of a shared weight is the sum of those of its two uses.
    as_input, as_output = both.double().chunk(2, dim=1)
    rows = as_input + as_output
    torch.testing.assert_close(found, rows @ rows.T, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(("width", "num_blocks"), [(16, 3), (20, 2)])
def test_kernel_does_not_depend_on_the_memory_it_may_use(width: int, num_blocks: int) -> None:
    model = llama(tied=False)
    max_bytes = 4 * len(probes()) * width * VOCAB_SIZE
    function, at = scalar_output(model, Task.CAUSAL_LM), parameters_of(model)
    passes: list[int] = []
    found = ntk.kernel(function, at, probes(), max_bytes, lambda: passes.append(1))
    torch.testing.assert_close(found, ntk.kernel(function, at, probes(), GIB), rtol=1e-6, atol=1e-6)
    blocks = list(ntk.parameter_blocks(at, len(probes()), max_bytes))
    assert len(blocks) == num_blocks
    assert len(passes) == len(probes()) * num_blocks
    assert [name for block in blocks for name in block] == list(at)


def test_blocks_fill_the_memory_but_never_exceed_it() -> None:
    sizes = {"a": 3, "b": 4, "c": 2, "d": 2, "e": 1}
    parameters = {name: torch.zeros(size) for name, size in sizes.items()}
    blocks = ntk.parameter_blocks(parameters, num_samples=2, max_bytes=2 * 4 * 5)
    assert [list(block) for block in blocks] == [["a"], ["b"], ["c", "d", "e"]]


def test_a_parameter_too_large_for_the_memory_is_refused_with_what_fits() -> None:
    parameters = {"small": torch.zeros(2), "head": torch.zeros(1000, 10)}
    with pytest.raises(ConfigError, match=r"head \(10,000 values\) on 8 samples .* most 3 samples"):
        list(ntk.parameter_blocks(parameters, num_samples=8, max_bytes=4 * 35_000))


def test_gram_of_many_columns_is_exact() -> None:
    # More than are multiplied at a time; in fp32 the sum of ones would stop at 2**24.
    rows = torch.ones(2, 2**24 + 10)
    assert ntk.gram(rows).tolist() == [[2**24 + 10] * 2] * 2


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_gradients_that_are_not_finite_are_refused(broken: float) -> None:
    at = {**QUADRATIC_AT, "b": torch.tensor([[broken], [1.0]])}
    with pytest.raises(PropulsionError, match=r"sample 1 of 2 .* not finite"):
        ntk.jacobian(quadratic, at, QUADRATIC_SAMPLES)
