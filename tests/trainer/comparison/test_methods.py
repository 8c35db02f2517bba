"""Every method trains through the loop, and trains what its paper says."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from propulsion.errors import ConfigError
from tests.trainer.comparison.bases import BASES, method_run, save_base
from tests.trainer.runs import losses
from trainer.comparison.methods import METHODS, chosen_methods, default_rate
from trainer.comparison.other_methods import adapt_as
from trainer.loading import load_base, load_tokenizer
from trainer.tasks.generation import generate

LAYERS, HIDDEN, INNER, KEY = 2, 32, 48, 16
RANK, VIRTUAL, ENCODER = 8, 20, 128
ENCODED = VIRTUAL * HIDDEN + HIDDEN * ENCODER + ENCODER * ENCODER + ENCODER * HIDDEN
ENCODED += 2 * ENCODER + HIDDEN
LLAMA_OUTPUTS = HIDDEN + 2 * KEY + HIDDEN + 2 * INNER + HIDDEN
BERT_OUTPUTS = 4 * HIDDEN + INNER + HIDDEN

COUNTS = {
    "llama": {
        "propulsion-all": LAYERS * LLAMA_OUTPUTS,
        "propulsion-attn": LAYERS * (HIDDEN + 2 * KEY),
        "propulsion-multi": 4 * LAYERS * LLAMA_OUTPUTS,
        "full": 16736,
        "prompt-tuning": VIRTUAL * HIDDEN,
        "prefix-tuning": VIRTUAL * LAYERS * 2 * KEY,
        "p-tuning": ENCODED,
        "ia3": LAYERS * (2 * KEY + INNER),
        "lora": LAYERS * RANK * (2 * HIDDEN + HIDDEN + KEY),
        # U, V and the singular values, at half the rank more.
        "adalora": LAYERS * 12 * (2 * HIDDEN + 1 + HIDDEN + KEY + 1),
        # 32 = 4 · 8 and 16 = 4 · 4: Kronecker products of (4, 4) with (8, 8) and with (4, 8).
        "lokr": LAYERS * (16 + 64 + 16 + 32),
        "loha": LAYERS * 2 * RANK * (2 * HIDDEN + HIDDEN + KEY),
    },
    # Without the head.
    "bert": {
        "propulsion-all": LAYERS * BERT_OUTPUTS,
        "propulsion-attn": LAYERS * 3 * HIDDEN,
        "propulsion-multi": 4 * LAYERS * BERT_OUTPUTS,
        # Of linear layers, of two norms a block, of the embeddings' norm and the pooler.
        "bitfit": LAYERS * (BERT_OUTPUTS + 2 * HIDDEN) + 2 * HIDDEN,
        "prompt-tuning": VIRTUAL * HIDDEN,
        "prefix-tuning": VIRTUAL * LAYERS * 2 * HIDDEN,
        "p-tuning": ENCODED,
        "lora": LAYERS * 2 * RANK * 2 * HIDDEN,
        "loha": LAYERS * 4 * RANK * 2 * HIDDEN,
    },
}
HEAD = 2 * HIDDEN + 2


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {kind: save_base(kind, tmp_path_factory.mktemp(kind)) for kind in BASES}


def adapted_by(method: str, kind: str, folder: Path, base: Path) -> Any:
    run = method_run(method, kind, folder, base)
    task, head = ("CausalLM", {}) if kind == "llama" else ("SequenceClassification", {})
    model = load_base(str(base), f"AutoModelFor{task}", run.deepspeed, head)
    return adapt_as(method)(model, run, "CAUSAL_LM" if kind == "llama" else "SEQ_CLS")


@pytest.mark.parametrize(
    ("kind", "method"), [(kind, method) for kind in BASES for method in COUNTS[kind]]
)
def test_method_trains_as_many_parameters_as_its_formula_says(
    kind: str, method: str, bases: dict[str, Path], tmp_path: Path
) -> None:
    adapted = adapted_by(method, kind, tmp_path, bases[kind])
    expected = COUNTS[kind][method] + (HEAD if kind == "bert" else 0)
    assert sum(p.numel() for p in adapted.all_parameters.values()) == expected


def test_count_does_not_depend_on_the_precision_of_the_base(
    bases: dict[str, Path], tmp_path: Path
) -> None:
    run = method_run("adalora", "llama", tmp_path, bases["llama"], deepspeed__dtype="bf16")
    model = load_base(str(bases["llama"]), "AutoModelForCausalLM", run.deepspeed)
    adapted = adapt_as("adalora")(model, run, "CAUSAL_LM")
    assert sum(p.numel() for p in adapted.all_parameters.values()) == COUNTS["llama"]["adalora"]
    assert {p.dtype for p in adapted.all_parameters.values()} == {torch.float32}


def test_bitfit_says_that_a_base_has_no_biases(bases: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="trains biases, and a llama model has none"):
        adapted_by("bitfit", "llama", tmp_path, bases["llama"])


@pytest.mark.parametrize("method", ["prompt-tuning", "prefix-tuning", "p-tuning", "lora"])
def test_text_does_not_depend_on_the_rest_of_its_batch(
    method: str, bases: dict[str, Path], tmp_path: Path
) -> None:
    adapted = adapted_by(method, "llama", tmp_path, bases["llama"])
    torch.manual_seed(0)
    for parameter in adapted.all_parameters.values():
        parameter.data += 0.3 * torch.randn_like(parameter)
    model, tokenizer = adapted.model.eval(), load_tokenizer(str(bases["llama"]))
    texts = ["the film is good", "the story was very bad and the film was dull", "the"]
    prompts = [tokenizer(text)["input_ids"] for text in texts]
    with torch.inference_mode():
        together = generate(model, tokenizer, prompts, max_new_tokens=5, batch_size=3)
        for prompt, text in zip(prompts, together, strict=True):
            ids = list(prompt)
            for _ in range(5):
                inputs = torch.tensor([ids])
                logits = model(input_ids=inputs, attention_mask=torch.ones_like(inputs)).logits
                ids.append(int(logits[0, -1].argmax()))
                if ids[-1] == tokenizer.eos_token_id:
                    break
            assert tokenizer.decode(ids[len(prompt) :], skip_special_tokens=True) == text


@pytest.mark.parametrize("method", ["prompt-tuning", "prefix-tuning", "lora", "propulsion-all"])
def test_bare_base_is_the_base(method: str, bases: dict[str, Path], tmp_path: Path) -> None:
    adapted = adapted_by(method, "llama", tmp_path, bases["llama"])
    for parameter in adapted.all_parameters.values():
        parameter.data += 0.5
    run = method_run(method, "llama", tmp_path, bases["llama"])
    plain = load_base(str(bases["llama"]), "AutoModelForCausalLM", run.deepspeed)
    tokenizer = load_tokenizer(str(bases["llama"]))
    prompts = [tokenizer("the film is")["input_ids"], tokenizer("a story")["input_ids"]]

    def texts(model: Any) -> list[str]:
        return generate(model.eval(), tokenizer, prompts, max_new_tokens=5, batch_size=2)

    with torch.inference_mode():
        expected = texts(plain)
        with adapted.only(None):
            assert texts(adapted.model) == expected
        with adapted.only(0):
            texts(adapted.model)


def test_several_adapters_are_refused(bases: dict[str, Path], tmp_path: Path) -> None:
    run = method_run("lora", "llama", tmp_path, bases["llama"])
    two = run.model_copy(update={"jobs": [*run.jobs, *run.jobs]})
    model = load_base(str(bases["llama"]), "AutoModelForCausalLM", run.deepspeed)
    with pytest.raises(ConfigError, match="LoRA trains one adapter in a run"):
        adapt_as("lora")(model, two, "CAUSAL_LM")


def test_adalora_refuses_runs_too_short_to_prune(bases: dict[str, Path], tmp_path: Path) -> None:
    run = method_run("adalora", "llama", tmp_path, bases["llama"], training__steps=2)
    model = load_base(str(bases["llama"]), "AutoModelForCausalLM", run.deepspeed)
    with pytest.raises(ConfigError, match=r"training\.steps is 2"):
        adapt_as("adalora")(model, run, "CAUSAL_LM")


def test_rate_of_propulsion_falls_with_its_degree(bases: dict[str, Path], tmp_path: Path) -> None:
    run = method_run("propulsion-all", "llama", tmp_path, bases["llama"], adapter__degree=15)
    assert default_rate(METHODS["propulsion-all"], run.job) == pytest.approx(2e-3)
    assert default_rate(METHODS["lora"], run.job) == METHODS["lora"].lr


def test_unknown_method_is_refused() -> None:
    with pytest.raises(ConfigError, match="no such method 'lorra'; there are propulsion-all"):
        chosen_methods(["lora", "lorra"])


@pytest.mark.slow
@pytest.mark.parametrize("kind", BASES)
def test_every_method_trains_or_says_why_not(kind: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.trainer.comparison.train_each", kind, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    told = json.loads((tmp_path / "told.json").read_text())
    if kind == "llama":
        assert "has none" in told.pop("bitfit")["failure"]
    for method, one in told.items():
        assert "failure" not in one, one
        assert [step for step, _ in one["curve"] if step > 0] == [1, 2, 3], method
        assert one["score"] == one["curve"][-1][1]
        assert one["base_parameters"] > 0
        assert one["step_seconds"] > 0
        assert (one["cpu_step_seconds"] is None) == torch.cuda.is_available()
        # Each step but the first, which may do nothing at a rate that warms up, changes the loss.
        assert len({*losses(tmp_path / method / "out")}) > 1, method
    pruned = load_file(tmp_path / "adalora" / "out" / "adapters" / "adalora" / _WEIGHTS)
    values = [tensor for path, tensor in pruned.items() if path.endswith("lora_E")]
    assert 0 < sum(int((value != 0).sum()) for value in values) <= RANK * len(values)


_WEIGHTS = "adapter_model.safetensors"
