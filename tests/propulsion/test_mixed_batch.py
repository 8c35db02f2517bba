import pytest
import torch
from peft import PeftModel, get_peft_model
from transformers import RobertaConfig, RobertaForSequenceClassification

from propulsion import PropulsionConfig
from propulsion.batch_context import mixed_forward
from propulsion.errors import ConfigError, PropulsionError
from propulsion.mixed_batch import BASE, MixedBatch
from tests.propulsion.adapters import randomize
from tests.propulsion.tiny_llama import tiny_llama, tokens
from tests.propulsion.tiny_models import TINY, Tiny

CONFIGS = {
    "attn": {"preset": "attn", "degree": 15},
    "all": {"preset": "all", "degree": 3},
    "other": {"preset": "all", "degree": 15},
    "pooled": {"preset": "mlp", "degree": 7, "num_vectors": 3, "pooling": "max"},
    "mean": {"preset": "all", "degree": 2, "num_vectors": 2},
    "input": {"target_modules": ["v_proj", "down_proj"], "feedforward_modules": ["down_proj"]},
}
"""Adapters that differ in everything that adapters of one base can differ in."""


def several() -> PeftModel:
    first, *others = CONFIGS.items()
    model = get_peft_model(
        tiny_llama(), PropulsionConfig(**first[1], task_type="CAUSAL_LM"), adapter_name=first[0]
    )
    for name, config in others:
        model.add_adapter(name, PropulsionConfig(**config, task_type="CAUSAL_LM"))
    randomize(model, size=0.05)
    return model.eval()


def alone(model: PeftModel, name: str, ids: torch.Tensor) -> torch.Tensor:
    if name == "__base__":
        with model.disable_adapter():
            return model(input_ids=ids).logits
    model.set_adapter(name)
    return model(input_ids=ids).logits


NAMES = ["pooled", "__base__", "all", "attn", "input", "mean", "all", "other"]


def ids(num_samples: int = len(NAMES)) -> torch.Tensor:
    return torch.cat([tokens(seed)[:1] for seed in range(num_samples)])


@torch.inference_mode()
def test_each_sample_gets_what_its_adapter_gives_alone() -> None:
    model = several()
    mixed = model(input_ids=ids(), adapter_names=NAMES).logits
    for row, name in enumerate(NAMES):
        wanted = alone(model, name, ids()[row : row + 1])
        torch.testing.assert_close(mixed[row : row + 1], wanted, rtol=1e-5, atol=1e-6)
    model.set_adapter("attn")
    assert torch.equal(model(input_ids=ids()).logits, alone(model, "attn", ids()))


def gradients(model: PeftModel) -> dict[str, torch.Tensor]:
    found = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return {name: grad.clone() for name, grad in found.items()}


@pytest.mark.parametrize("reentrant", [None, False, True])
def test_training_a_mixed_batch_gives_each_adapter_its_own_gradient(reentrant: bool | None) -> None:
    """Also with gradient checkpointing, whose second forward runs when the first is long over."""
    model = several()
    trained = ["all", "attn", "pooled", "all"]
    batch = ids(4)
    wanted: dict[str, torch.Tensor] = {}
    for name in set(trained):
        model.set_adapter(name)
        rows = [row for row, other in enumerate(trained) if other == name]
        model(input_ids=batch[rows]).logits.square().sum().backward()
        wanted.update(gradients(model))

    model.set_requires_grad(list(CONFIGS))
    if reentrant is not None:
        model.get_base_model().gradient_checkpointing_enable({"use_reentrant": reentrant})
        model.get_base_model().enable_input_require_grads()
    model.train()
    model(input_ids=batch, adapter_names=trained).logits.square().sum().backward()
    got = gradients(model)
    for name, grad in got.items():
        expected = wanted.get(name, torch.zeros_like(grad))
        torch.testing.assert_close(grad, expected, rtol=1e-4, atol=1e-3)
    assert wanted.keys() <= got.keys()


def test_checkpointing_is_as_before_after_a_mixed_batch() -> None:
    model = several().train()
    base = model.get_base_model()
    base.gradient_checkpointing_enable()
    before = [vars(m).get("_gradient_checkpointing_func") for m in base.modules()]
    model(input_ids=ids(), adapter_names=NAMES)
    assert [vars(m).get("_gradient_checkpointing_func") for m in base.modules()] == before


@torch.inference_mode()
@pytest.mark.parametrize(
    "options", [{}, {"num_beams": 3}, {"do_sample": True, "num_return_sequences": 2}]
)
def test_generation_takes_adapter_names(options: dict[str, object]) -> None:
    model = several()
    names = ["all", "__base__", "attn"]
    copies = options.get("num_return_sequences", 1)
    torch.manual_seed(0)
    mixed = model.generate(
        input_ids=ids(3), adapter_names=names, max_new_tokens=4, pad_token_id=0, **options
    )
    assert mixed.shape[0] == 3 * copies
    if "do_sample" in options:
        return
    for row, name in enumerate(names):
        if name == "__base__":
            with model.disable_adapter():
                wanted = model.generate(ids(3)[row : row + 1], max_new_tokens=4, **options)
        else:
            model.set_adapter(name)
            wanted = model.generate(ids(3)[row : row + 1], max_new_tokens=4, **options)
        assert torch.equal(mixed[row, : wanted.shape[1]], wanted[0])


@torch.inference_mode()
@pytest.mark.parametrize("name", ["gpt-2", "opt", "bloom", "t5", "roberta", "deberta-v2", "bart"])
def test_other_architectures_mix_adapters(name: str) -> None:
    tiny: Tiny = TINY[name]
    model = get_peft_model(tiny.build(), PropulsionConfig(preset="all", degree=3), "a")
    model.add_adapter("b", PropulsionConfig(preset="attn", degree=5))
    randomize(model, size=0.05)
    inputs = {key: value.repeat(2, 1) for key, value in tiny.inputs().items()}
    mixed = model(**inputs, adapter_names=["a", "b", "b", "a"]).logits
    for adapter, rows in (("a", [0, 3]), ("b", [1, 2])):
        model.set_adapter(adapter)
        wanted = model(**{key: value[rows] for key, value in inputs.items()}).logits
        torch.testing.assert_close(mixed[rows], wanted, rtol=1e-4, atol=1e-5)


@torch.inference_mode()
def test_what_samples_share_cannot_be_scaled_by_sample() -> None:
    """DeBERTa-v3 projects its position embeddings once for the whole batch."""
    tiny = TINY["deberta-v3"]
    model = get_peft_model(tiny.build(), PropulsionConfig(preset="all"), "a")
    model.add_adapter("b", PropulsionConfig(preset="all"))
    with pytest.raises(PropulsionError, match="share what the layer computes"):
        model(**tiny.inputs(), adapter_names=["a", "b"])
    mixed = model(**tiny.inputs(), adapter_names=["a", "a"]).logits
    assert torch.equal(mixed, model(**tiny.inputs()).logits)


@torch.inference_mode()
def test_whole_modules_are_chosen_by_sample_too() -> None:
    model = get_peft_model(
        tiny_llama(), PropulsionConfig(modules_to_save=["lm_head"], task_type="CAUSAL_LM"), "a"
    )
    model.add_adapter("b", PropulsionConfig(modules_to_save=["lm_head"], task_type="CAUSAL_LM"))
    randomize(model)
    heads = model.get_base_model().lm_head.modules_to_save
    heads["b"].weight.data.mul_(2.0)
    mixed = model(input_ids=ids(2), adapter_names=["b", "a"]).logits
    torch.testing.assert_close(mixed[:1], alone(model, "b", ids(2)[:1]))
    torch.testing.assert_close(mixed[1:], alone(model, "a", ids(2)[1:]))


def test_wrong_names_and_sizes_are_refused() -> None:
    model = several()
    with pytest.raises(ConfigError, match="no adapter 'unknown'; there are 'attn'"):
        model(input_ids=ids(2), adapter_names=["unknown", "attn"])
    with pytest.raises(PropulsionError, match="the batch has another size"):
        model(input_ids=ids(4), adapter_names=["all", "attn"])
    model.merge_adapter(["attn"])
    with pytest.raises(PropulsionError, match="unmerge_adapter"):
        model(input_ids=ids(2), adapter_names=["all", "attn"])


def test_the_number_of_operations_does_not_grow_with_the_adapters() -> None:
    def operations(num_adapters: int) -> int:
        names = [f"a{i}" for i in range(num_adapters)]
        model = get_peft_model(tiny_llama(), PropulsionConfig(task_type="CAUSAL_LM"), names[0])
        for name in names[1:]:
            model.add_adapter(name, PropulsionConfig(task_type="CAUSAL_LM"))
        batch = ids(8)
        with torch.inference_mode(), torch.profiler.profile() as profile:
            model(input_ids=batch, adapter_names=[names[i % num_adapters] for i in range(8)])
        return sum(event.count for event in profile.key_averages() if event.key == "aten::mul")

    assert operations(8) == operations(2)


def test_heads_of_any_kind_are_mixed_and_unused_ones_get_a_gradient_of_zero() -> None:
    config = RobertaConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=2,
        vocab_size=64,
        num_labels=3,
    )
    adapter = PropulsionConfig(preset="all", init="normal", task_type="SEQ_CLS")
    model = get_peft_model(RobertaForSequenceClassification(config), adapter, "a").eval()
    for name in ("b", "c"):
        model.add_adapter(name, adapter)
    tuner = model.base_model
    for name, parameter in tuner.named_parameters():
        if "modules_to_save" in name or "propulsion_delta" in name:
            parameter.requires_grad_(True)
    for name in ("a", "b", "c"):
        torch.nn.init.normal_(tuner.model.classifier.modules_to_save[name].out_proj.weight)
    ids = torch.randint(3, 64, (4, 6))
    names = ["b", "a", "b", BASE]
    batch = MixedBatch(names, ids.device, also=["c"])
    with mixed_forward(tuner.model, batch):
        mixed = model(input_ids=ids).logits
    mixed.square().sum().backward()
    for row, name in enumerate(names):
        with mixed_forward(tuner.model, MixedBatch([name], ids.device)):
            alone = model(input_ids=ids[row : row + 1]).logits
        torch.testing.assert_close(mixed[row : row + 1], alone)
    assert "forward" not in vars(tuner.model.classifier)
    for name, parameter in tuner.named_parameters():
        if ".c." in name or name.endswith(".c"):
            assert parameter.grad is not None
            assert not parameter.grad.any()
        elif ".b." in name or name.endswith(".b"):
            assert parameter.grad.any()
