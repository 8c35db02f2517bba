import json
from pathlib import Path
from typing import Any

import pytest
import typer
from transformers import T5Config
from typer.testing import CliRunner

from propulsion.errors import ConfigError
from tests.trainer.planning.examples import (
    EMBEDDINGS,
    PARAMETERS,
    base_folder,
    run_file,
)
from trainer.config import load_run
from trainer.job_data import read_job
from trainer.planning.cli import plan as plan_command
from trainer.planning.meta_model import build_on_meta, model_of_task
from trainer.planning.plan import Plan, make_plan

ALL = {
    "llama-7b": 32 * (5 * 4096 + 2 * 11008),
    "llama-13b": 40 * (5 * 5120 + 2 * 13824),
    "bloomz-7b1": 30 * 9 * 4096,
    "gptj-6b": 28 * 9 * 4096,
}
"""Outputs of all linear layers of all blocks, so parameters of an adapter with the preset `all`."""


def example(name: str, *overrides: str, **options: Any) -> Plan:
    run = load_run(run_file(name), list(overrides))
    return make_plan(run, base=base_folder(name), **options)


@pytest.mark.parametrize("name", PARAMETERS)
def test_examples_are_counted_as_published(name: str) -> None:
    plan = example(name)
    assert plan.counts.base == PARAMETERS[name]
    assert plan.counts.largest_layer == EMBEDDINGS[name]
    assert next(iter(plan.counts.trained.values())) == ALL[name]
    assert plan.checkpoint_bytes == 12 * plan.trained == 12 * sum(plan.counts.trained.values())


@pytest.mark.parametrize("name", PARAMETERS)
def test_the_data_of_an_example_is_there(name: str) -> None:
    run = load_run(run_file(name))
    for job in run.jobs:
        records = read_job(job, run.task.type)
        assert len(records.train) > len(records.test) > 0


def test_each_adapter_is_counted() -> None:
    assert example("bloomz-7b1").counts.trained == {
        "boolq": ALL["bloomz-7b1"],
        "boolq-attn": 30 * 3 * 4096,
        "sst2": ALL["bloomz-7b1"],
    }


@pytest.mark.parametrize("name", PARAMETERS)
def test_the_table_is_that_of_the_closed_form(name: str) -> None:
    plan = example(name, gpus_per_node=4, nodes=2)
    rows = {row.placement.name: row.states for row in plan.memory}
    base, trained = 2 * PARAMETERS[name], plan.trained
    largest = max(plan.counts.trained.values())
    assert (plan.world_size, len(rows)) == (8, 6)
    for stage in "012":
        assert rows[stage].weights == base + 4 * trained
    assert rows["3"].weights == (base + 4 * trained) / 8
    assert rows["0"].gradients == 4 * trained
    assert rows["3"].gradients == (4 * trained + 4 * largest) / 8
    assert rows["0"].optimizer == 8 * trained
    assert rows["1"].optimizer == rows["2"].optimizer == rows["3"].optimizer == 12 * trained / 8
    offloaded = rows["3, optimizer on cpu, param on cpu"]
    assert offloaded.device == offloaded.gathered == rows["3"].gathered
    assert offloaded.host == (base + 4 * trained + 20 * trained) / 8
    assert rows["3"].gathered > 2 * EMBEDDINGS[name]


@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("llama-7b", "3"),
        ("llama-13b", "3, optimizer on cpu, param on cpu"),
        ("bloomz-7b1", "3"),
        ("gptj-6b", "3"),
    ],
)
def test_the_runs_own_placement_is_marked(name: str, own: str) -> None:
    assert [row.placement.name for row in example(name).memory if row.is_own] == [own]


def test_a_placement_of_its_own_gets_a_row() -> None:
    plan = example("llama-7b", "deepspeed={stage: 2, dtype: bf16, offload_optimizer: cpu}")
    assert plan.memory[-1].is_own
    assert plan.memory[-1].placement.name == "2, optimizer on cpu"


def test_nothing_is_loaded() -> None:
    run = load_run(run_file("llama-13b"))
    adapted, _ = build_on_meta(run, base_folder("llama-13b"))
    assert all(tensor.is_meta for tensor in adapted.model.state_dict().values())


def test_a_quantized_base_is_smaller_and_not_partitioned() -> None:
    section = "deepspeed={stage: 2, dtype: bf16, quantization: %s}"
    plans = {q: example("llama-7b", section % q) for q in ("null", "int8", "nf4")}
    linear = 32 * (4 * 4096**2 + 3 * 4096 * 11008)
    rest = 2 * (PARAMETERS["llama-7b"] - linear)
    sizes = {q: plan.memory[0].states.weights - 4 * plan.trained for q, plan in plans.items()}
    assert sizes == {
        "null": rest + 2 * linear,
        "int8": rest + linear,
        "nf4": rest + 0.5625 * linear,
    }
    assert [row.placement.name for row in plans["nf4"].memory] == ["0", "1", "2"]


def test_a_head_is_trained_with_each_adapter() -> None:
    plan = example(
        "llama-7b",
        "task={type: classification}",
        "data.train=../data/sst2/train.tsv",
        "data.records={format: tsv, text: 0, label: 1, labels: {'0': a, '1': b, '2': c}}",
    )
    assert plan.trained == ALL["llama-7b"] + 3 * 4096
    assert plan.activations is not None


def test_checkpointing_saves_memory() -> None:
    plan = example("llama-7b")
    assert plan.activations is not None
    assert plan.activation_bytes == plan.activations.checkpointed
    assert plan.activations.checkpointed < plan.activations.kept / 5
    kept = example("llama-7b", "deepspeed.gradient_checkpointing=false").activation_bytes
    assert kept == plan.activations.kept


def test_without_a_micro_batch_a_rank_takes_its_part_of_the_step() -> None:
    assert example("bloomz-7b1", "batching={}", gpus_per_node=4).rows_per_pass == 3 * 32 // 4


def test_every_task_has_the_model_that_it_trains() -> None:
    from trainer.tasks.answer import Answering
    from trainer.tasks.causal_lm import LanguageModelling
    from trainer.tasks.classification import Classification
    from trainer.tasks.question_answering import QuestionAnswering
    from trainer.tasks.regression import Regression
    from trainer.tasks.summarization import CausalSummarization, Seq2SeqSummarization
    from trainer.tasks.token_classification import TokenClassification

    tasks = {
        "answer": Answering,
        "causal_lm": LanguageModelling,
        "classification": Classification,
        "question_answering": QuestionAnswering,
        "regression": Regression,
        "summarization": CausalSummarization,
        "summarization, model: seq2seq": Seq2SeqSummarization,
        "token_classification": TokenClassification,
    }
    for section, task in tasks.items():
        run = load_run(run_file("llama-7b"), [f"task={{type: {section}}}"])
        assert model_of_task(run) == (task.auto_model, task.peft_type)


def test_a_base_that_cannot_be_reached_asks_for_a_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    run = load_run(run_file("llama-7b"), ["base=nobody/no-such-model"])
    with pytest.raises(ConfigError, match=r"(?s)nobody/no-such-model.*give --base FOLDER"):
        make_plan(run)


def test_what_does_not_fit_is_said(tmp_path: Path) -> None:
    run = load_run(run_file("llama-7b"))
    with pytest.raises(ConfigError, match=r"configuration cannot be read.*--base FOLDER"):
        make_plan(run, base=tmp_path)
    T5Config(d_model=32).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="is a t5, which AutoModelForCausalLM cannot make"):
        make_plan(run, base=tmp_path)
    run = load_run(run_file("llama-7b"), ["adapter={target_modules: [no_such_layer]}"])
    with pytest.raises(ConfigError, match="cannot be put on"):
        make_plan(run, base=base_folder("llama-7b"))


def call(*arguments: str) -> Any:
    app = typer.Typer()
    app.command()(plan_command)
    return CliRunner().invoke(app, arguments, env={"COLUMNS": "140"})


def test_the_command_prints_counts_and_memory(tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    base = str(base_folder("gptj-6b"))
    result = call(str(run_file("gptj-6b")), "--base", base, "--json", str(file))
    assert result.exit_code == 0, result.output
    assert "6,050,882,784" in result.output
    assert "adapter boolq-55" in result.output
    (own,) = [line for line in result.output.splitlines() if "▶ 3" in line]
    assert "1.410" in own
    assert "4 rows of 256 tokens, with gradient checkpointing" in result.output
    told = json.loads(file.read_text())
    assert told["counts"]["trained"]["sst2"] == ALL["gptj-6b"]
    assert [row["name"] for row in told["memory"] if row["is_own"]] == ["3"]
    assert told["memory"][3]["states"]["weights"] / 2**30 == pytest.approx(1.41, abs=0.001)
    assert told["memory"][3]["device"] > told["activations"]["checkpointed"]


@pytest.mark.parametrize("option", ["--gpus-per-node", "--nodes"])
def test_no_gpus_are_a_usage_error(option: str) -> None:
    result = call(str(run_file("llama-7b")), option, "0")
    assert result.exit_code == 2
    assert option in result.output


def test_a_folder_for_the_json_that_is_not_there_is_told_first(tmp_path: Path) -> None:
    result = call(str(run_file("llama-7b")), "--json", str(tmp_path / "no" / "plan.json"))
    assert isinstance(result.exception, ConfigError)
    assert "folder does not exist" in str(result.exception)
