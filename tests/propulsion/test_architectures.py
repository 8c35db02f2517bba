from pathlib import Path

import pytest
import torch
from peft import PeftModel, get_peft_model
from transformers import PreTrainedModel

from propulsion import PropulsionConfig
from propulsion.architectures import ARCHITECTURES, QKV_PARTS
from propulsion.layer import PropulsionLayer
from tests.propulsion.adapters import randomize
from tests.propulsion.tiny_models import LAYERS, TINY, Tiny

every_architecture = pytest.mark.parametrize("tiny", TINY.values(), ids=TINY.keys())


@torch.inference_mode()
def logits(model: torch.nn.Module, tiny: Tiny) -> torch.Tensor:
    return model(**tiny.inputs()).logits


def adapted(tiny: Tiny, preset: str, **config: object) -> PeftModel:
    return get_peft_model(tiny.build(), PropulsionConfig(preset=preset, **config))


def test_every_preset_is_tested() -> None:
    assert {tiny.model_type for tiny in TINY.values()} == set(ARCHITECTURES)


@every_architecture
def test_fresh_adapter_trains_saves_loads_and_merges(tiny: Tiny, tmp_path: Path) -> None:
    wanted = logits(tiny.build(), tiny)
    model = adapted(tiny, "all", degree=15)
    assert torch.equal(logits(model, tiny), wanted)

    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    trainable = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=1e-3)
    model(**tiny.inputs()).loss.backward()
    with_gradient = {n for n, p in model.named_parameters() if p.grad is not None}
    assert with_gradient == {n for n in before if "propulsion_delta" in n}
    optimizer.step()
    changed = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert changed
    assert changed <= with_gradient
    trained = logits(model, tiny)
    assert not torch.equal(trained, wanted)

    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(tiny.build(), tmp_path)
    assert torch.equal(logits(loaded, tiny), trained)

    merged = loaded.merge_and_unload()
    assert isinstance(merged, PreTrainedModel)
    assert not any(isinstance(module, PropulsionLayer) for module in merged.modules())
    torch.testing.assert_close(logits(merged, tiny), trained, rtol=1e-4, atol=1e-5)


@every_architecture
@pytest.mark.parametrize("preset", ["attn", "mlp", "all", "embedding", "key"])
def test_parameter_count_is_the_closed_form(tiny: Tiny, preset: str) -> None:
    model = adapted(tiny, preset, num_vectors=3)
    assert model.get_nb_trainable_parameters()[0] == 3 * tiny.counts[preset]


@every_architecture
def test_one_block_has_its_share_of_the_parameters(tiny: Tiny) -> None:
    model = adapted(tiny, "all", layers_to_transform=[1])
    assert model.get_nb_trainable_parameters()[0] == tiny.counts["all"] // LAYERS


@every_architecture
def test_query_key_and_value_together_are_attn(tiny: Tiny, tmp_path: Path) -> None:
    """Whether the projection is fused or not, each part scales its own outputs, and no others."""
    model = adapted(tiny, "attn", degree=3)
    randomize(model)
    wanted = logits(model, tiny)
    model.save_pretrained(tmp_path / "attn")

    parts = tiny.build()
    for part in QKV_PARTS:
        one = adapted(tiny, part, degree=3)
        copy_part(model, one)
        one.save_pretrained(tmp_path / part)
        assert not torch.equal(logits(one, tiny), logits(tiny.build(), tiny))
    joined = PeftModel.from_pretrained(parts, tmp_path / "query", adapter_name="query")
    joined.load_adapter(tmp_path / "key", "key")
    joined.load_adapter(tmp_path / "value", "value")
    joined.base_model.set_adapter(list(QKV_PARTS))
    torch.testing.assert_close(logits(joined, tiny), wanted, rtol=1e-5, atol=1e-6)


def copy_part(source: PeftModel, destination: PeftModel) -> None:
    for name, layer in destination.base_model.scaled_layers().items():
        delta = source.base_model.scaled_layers()[name].propulsion_delta["default"].data
        columns = layer.columns("default")
        layer.propulsion_delta["default"].data = delta if columns is None else delta[:, columns]


@every_architecture
def test_embeddings_merge_and_leave_tied_weights_alone(tiny: Tiny) -> None:
    model = adapted(tiny, "embedding", degree=3)
    randomize(model)
    wanted = logits(model, tiny)
    assert not torch.equal(wanted, logits(tiny.build(), tiny))
    merged = model.merge_and_unload()
    torch.testing.assert_close(logits(merged, tiny), wanted, rtol=1e-4, atol=1e-5)


def norms(model: torch.nn.Module) -> list[str]:
    return [
        name
        for name, module in model.named_modules()
        if "norm" in type(module).__name__.lower() and not list(module.children())
    ]


@every_architecture
def test_normalisation_layers_scale_and_merge(tiny: Tiny) -> None:
    base = tiny.build()
    model = get_peft_model(base, PropulsionConfig(target_modules=norms(base), degree=3))
    assert torch.equal(logits(model, tiny), logits(tiny.build(), tiny))
    randomize(model)
    wanted = logits(model, tiny)
    assert not torch.equal(wanted, logits(tiny.build(), tiny))
    torch.testing.assert_close(logits(model.merge_and_unload(), tiny), wanted, rtol=1e-4, atol=1e-5)
