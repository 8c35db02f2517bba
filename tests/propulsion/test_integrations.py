"""The tuner inside what people train with: compiler, quantisation, Trainer, several ranks."""

import os
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from peft import PeftModel, get_peft_model
from torch import multiprocessing
from transformers import LlamaConfig, LlamaForCausalLM

from propulsion import PropulsionConfig
from propulsion.errors import PropulsionError
from tests.propulsion.adapters import randomize
from tests.propulsion.tiny_llama import VOCAB_SIZE, tiny_llama, tokens


def adapted(**config: object) -> PeftModel:
    settings = {"preset": "all", "degree": 15, "task_type": "CAUSAL_LM", **config}
    return get_peft_model(tiny_llama(), PropulsionConfig(**settings))


def gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    model(input_ids=tokens(), labels=tokens()).loss.backward()
    found = {
        name.replace("_orig_mod.", "").removeprefix("module."): p.grad
        for name, p in model.named_parameters()
        if p.grad is not None
    }
    model.zero_grad()
    return found


def assert_same(got: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    assert got.keys() == wanted.keys()
    for name, grad in wanted.items():
        torch.testing.assert_close(got[name], grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("pooling", ["mean", "max"])
def test_a_compiled_model_is_one_graph_with_the_same_gradients(pooling: str) -> None:
    model = adapted(num_vectors=2, pooling=pooling)
    randomize(model)
    wanted = gradients(model)
    compiled = torch.compile(model, backend="aot_eager")
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    assert_same(gradients(compiled), wanted)
    assert not torch._dynamo.utils.counters["graph_break"]


@pytest.mark.slow
def test_generated_code_gives_the_same_gradients() -> None:
    model = adapted()
    randomize(model)
    wanted = gradients(model)
    assert_same(gradients(torch.compile(model)), wanted)


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing_gives_the_same_gradients(reentrant: bool) -> None:
    model = adapted()
    randomize(model)
    wanted = gradients(model)
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    model.enable_input_require_grads()
    assert_same(gradients(model.train()), wanted)


@pytest.mark.parametrize("bits", [4, 8])
def test_quantised_layers_are_scaled_trained_and_merged(bits: int, tmp_path: Path) -> None:
    bnb = pytest.importorskip("bitsandbytes")

    def quantised() -> torch.nn.Module:
        torch.manual_seed(0)
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=VOCAB_SIZE,
                hidden_size=64,
                intermediate_size=96,
                num_hidden_layers=2,
                num_attention_heads=2,
            )
        )
        for name, linear in list(model.model.named_modules()):
            if not isinstance(linear, torch.nn.Linear):
                continue
            sizes, weight = (linear.in_features, linear.out_features, False), linear.weight.data
            if bits == 8:
                layer = bnb.nn.Linear8bitLt(*sizes, has_fp16_weights=False)
                layer.weight = bnb.nn.Int8Params(weight, requires_grad=False)
            else:
                layer = bnb.nn.Linear4bit(*sizes, quant_type="nf4")
                layer.weight = bnb.nn.Params4bit(weight, requires_grad=False, quant_type="nf4")
            model.model.set_submodule(name, layer.to("cpu"))
        return model

    def logits(model: torch.nn.Module) -> torch.Tensor:
        # In eval mode bitsandbytes repacks 4-bit weights for some CPUs, and fails at this size.
        return model.train()(input_ids=tokens()).logits.detach()

    # On a CPU bitsandbytes has other products with a gradient than without, and the int8 one is
    # not the same to the last bit every time.
    noise = {"rtol": 0.0, "atol": 0.01}
    model = get_peft_model(quantised(), PropulsionConfig(preset="all", task_type="CAUSAL_LM"))
    base = logits(quantised())
    torch.testing.assert_close(logits(model), base, **noise)
    found = gradients(model)
    assert len(found) == 14
    assert all("propulsion_delta" in name and grad.any() for name, grad in found.items())
    randomize(model)
    layer = model.base_model.scaled_layers()["model.layers.0.mlp.up_proj"]
    x = torch.randn(1, 3, 64)
    scaled = layer.base_layer(x) * layer.scale("default")
    torch.testing.assert_close(layer(x), scaled, **noise)
    wanted = logits(model)
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(quantised(), tmp_path)
    torch.testing.assert_close(logits(loaded), wanted, **noise)
    # Merged weights are quantised again, which costs some of their bits.
    merged = logits(loaded.merge_and_unload())
    assert 0 < (merged - wanted).norm() < 0.5 * (wanted - base).norm()


def test_the_trainer_of_transformers_trains_and_saves_the_adapter_alone(tmp_path: Path) -> None:
    from transformers import Trainer, TrainingArguments

    model = adapted()
    records = [{"input_ids": row, "labels": row} for seed in range(8) for row in tokens(seed)]
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=str(tmp_path),
            max_steps=4,
            per_device_train_batch_size=4,
            learning_rate=1e-3,
            gradient_checkpointing=True,
            report_to=[],
            use_cpu=True,
            disable_tqdm=True,
        ),
        train_dataset=records,
    )
    trainer.train()
    saved = tmp_path / "checkpoint-4"
    assert not (saved / "model.safetensors").exists()
    loaded = PeftModel.from_pretrained(tiny_llama(), saved)
    with torch.inference_mode():
        got, wanted = loaded(input_ids=tokens()).logits, model.eval()(input_ids=tokens()).logits
        base = tiny_llama()(input_ids=tokens()).logits
    torch.testing.assert_close(got, wanted)
    assert not torch.equal(wanted, base)


def on_two_ranks(function: object, tmp_path: Path) -> None:
    ranks = multiprocessing.spawn(_rank, args=(function, tmp_path), nprocs=2, join=False)
    deadline = time.monotonic() + 120
    while not ranks.join(timeout=1):
        assert time.monotonic() < deadline, "the ranks wait for each other"


def _rank(rank: int, function: object, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2")
    dist.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/rendezvous", rank=rank, world_size=2
    )
    function(rank, tmp_path)
    dist.destroy_process_group()


def _train_ddp(rank: int, tmp_path: Path) -> None:
    model = adapted()
    parallel = torch.nn.parallel.DistributedDataParallel(model)
    batch = tokens()[rank : rank + 1]
    parallel(input_ids=batch, labels=batch).loss.backward()
    if rank == 0:
        wanted = gradients(adapted())
        got = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
        assert_same(got, wanted)
        (tmp_path / "done").touch()


@pytest.mark.slow
def test_ddp_averages_the_gradients_of_its_ranks(tmp_path: Path) -> None:
    on_two_ranks(_train_ddp, tmp_path)
    assert (tmp_path / "done").exists()


def _train_zero3(rank: int, tmp_path: Path) -> None:
    os.environ["DS_ACCELERATOR"] = "cpu"
    import deepspeed

    config = {
        "train_micro_batch_size_per_gpu": 1,
        "zero_optimization": {"stage": 3, "stage3_param_persistence_threshold": 0},
        "optimizer": {"type": "AdamW", "params": {"lr": 1e-3, "torch_adam": True}},
    }
    deepspeed.init_distributed("gloo", auto_mpi_discovery=False)
    with deepspeed.zero.Init(config_dict_or_path=config):
        base = tiny_llama()
    assert base.model.norm.weight.numel() < 32
    model = get_peft_model(
        base,
        PropulsionConfig(
            target_modules=["q_proj", "down_proj", "embed_tokens", "norm"],
            num_vectors=2,
            task_type="CAUSAL_LM",
        ),
    )
    assert model.get_nb_trainable_parameters()[0] == 2 * (2 * 32 + 2 * 32 + 32 + 32)
    engine, *_ = deepspeed.initialize(
        model=model,
        model_parameters=[p for p in model.parameters() if p.requires_grad],
        config=config,
    )
    # Not through the engine, as generation does, and before any step has gathered anything.
    with torch.inference_mode():
        assert engine.module(input_ids=tokens()).logits.isfinite().all()
    losses = []
    for _ in range(3):
        loss = engine(input_ids=tokens(), labels=tokens()).loss
        engine.backward(loss)
        engine.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    with pytest.raises(PropulsionError, match="ZeRO-3"):
        model.merge_and_unload()
    (tmp_path / f"done-{rank}").touch()


@pytest.mark.slow
def test_weights_that_zero_3_partitions_are_scaled_and_not_merged(tmp_path: Path) -> None:
    on_two_ranks(_train_zero3, tmp_path)
    assert (tmp_path / "done-0").exists()
    assert (tmp_path / "done-1").exists()
