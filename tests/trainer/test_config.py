from pathlib import Path

import pytest
import yaml

from propulsion.errors import ConfigError
from tests.trainer.runs import write_run
from trainer.config import load_run

EXAMPLES = Path(__file__).parents[2] / "examples"


def change(path: Path, section: str, key: str, value: object) -> Path:
    tree = yaml.safe_load(path.read_text())
    tree[section][key] = value
    path.write_text(yaml.safe_dump(tree))
    return path


def test_relative_paths_are_relative_to_the_run_file(tmp_path: Path) -> None:
    run = load_run(write_run(tmp_path / "a", tmp_path))
    assert run.job.data.train == tmp_path / "a" / "train.tsv"
    assert run.output_dir == tmp_path / "a" / "out"
    assert run.job.publish is not None
    assert run.job.publish.store == str(tmp_path / "a" / "store")


def test_a_store_may_be_a_url(tmp_path: Path) -> None:
    path = change(write_run(tmp_path, tmp_path), "publish", "store", "s3://bucket/adapters")
    publish = load_run(path).job.publish
    assert publish is not None
    assert publish.store == "s3://bucket/adapters"


def test_unknown_key_is_named_with_a_suggestion(tmp_path: Path) -> None:
    path = change(write_run(tmp_path, tmp_path), "training", "batchsize", 3)
    with pytest.raises(ConfigError, match=r"training\.batchsize: unknown key.*'batch_size'"):
        load_run(path)


@pytest.mark.parametrize(
    ("section", "key", "value", "message"),
    [
        ("training", "steps", 0, r"training\.steps"),
        ("training", "lr", "fast", r"training\.lr"),
        ("data", "prompt", "no placeholder", "text"),
        ("deepspeed", "stage", 4, r"deepspeed\.stage"),
        ("adapter", "preset", "everything", r"adapter\.preset"),
    ],
)
def test_wrong_value_names_its_key(
    tmp_path: Path, section: str, key: str, value: object, message: str
) -> None:
    path = change(write_run(tmp_path, tmp_path), section, key, value)
    with pytest.raises(ConfigError, match=message):
        load_run(path)


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    path = change(write_run(tmp_path, tmp_path), "training", "steps", 0)
    change(path, "data", "max_length", 1)
    with pytest.raises(ConfigError, match=r"(?s)2 problem.*max_length.*steps"):
        load_run(path)


def test_file_that_is_missing_or_no_yaml_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"missing\.yaml: no such run file"):
        load_run(tmp_path / "missing.yaml")
    bad = tmp_path / "bad.yaml"
    bad.write_text("name: [unclosed")
    with pytest.raises(ConfigError, match=r"bad\.yaml: not valid YAML"):
        load_run(bad)
    bad.write_text("- a list")
    with pytest.raises(ConfigError, match="must hold a mapping"):
        load_run(bad)


def test_overrides_replace_the_files_values(tmp_path: Path) -> None:
    path = write_run(tmp_path, tmp_path)
    run = load_run(path, ["training.steps=9", "seed=4", "adapter.target_modules=[q_proj]"])
    job = run.job
    assert (job.training.steps, run.seed, job.adapter.target_modules) == (9, 4, ["q_proj"])
    assert job.seed == 4
    with pytest.raises(ConfigError, match=r"--set takes section\.key=value"):
        load_run(path, ["training.steps"])
    with pytest.raises(ConfigError, match="'name' is not a section"):
        load_run(path, ["name.first=x"])


def test_tsv_without_header_needs_column_numbers(tmp_path: Path) -> None:
    path = write_run(tmp_path, tmp_path)
    with pytest.raises(ConfigError, match="column numbers"):
        load_run(path, ["data.records.header=false"])


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("demo/*.yaml")), ids=lambda p: p.name)
def test_every_demo_run_finds_its_files(path: Path) -> None:
    run = load_run(path)
    assert run.job.data.train.is_file()
    assert run.job.data.test.is_file()
    assert Path(run.base).is_dir()


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*/*.yaml")), ids=str)
def test_every_example_is_a_valid_run(path: Path) -> None:
    assert load_run(path).jobs


def test_adapters_take_what_they_do_not_set_from_the_file(tmp_path: Path) -> None:
    adapters = {
        "first": None,
        "second": {"adapter": {"degree": 7}, "training": {"lr": 0.5}, "seed": 9},
    }
    run = load_run(write_run(tmp_path, tmp_path, adapters=adapters, seed=2))
    first, second = run.jobs
    assert (first.name, first.seed, first.adapter.degree, first.training.lr) == (
        "first",
        2,
        3,
        0.02,
    )
    assert (second.name, second.seed, second.adapter.degree, second.training.lr) == (
        "second",
        9,
        7,
        0.5,
    )
    assert second.adapter.preset == first.adapter.preset == "all"
    assert second.training.steps == 6


def test_records_of_another_format_replace_the_files_whole(tmp_path: Path) -> None:
    adapters = {"gsm": {"data": {"records": {"format": "gsm8k"}}}}
    run = load_run(write_run(tmp_path, tmp_path, adapters=adapters))
    assert run.job.data.records.format == "gsm8k"


def test_sweep_makes_an_adapter_of_each_combination(tmp_path: Path) -> None:
    sweep = {"training.lr": [0.001, 0.01], "adapter.degree": [5, 15, 25]}
    run = load_run(write_run(tmp_path, tmp_path, sweep=sweep))
    found = {job.name: (job.training.lr, job.adapter.degree) for job in run.jobs}
    assert found == {
        f"tiny-lr-{lr}-degree-{degree}": (lr, degree)
        for lr in (0.001, 0.01)
        for degree in (5, 15, 25)
    }
    assert {job.adapter.preset for job in run.jobs} == {"all"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"adapters": {"a": {"task": {}}}}, "'task' cannot differ between the adapters"),
        ({"adapters": {"a": {"training": {"stepz": 1}}}}, r"adapters\.a\.training\.stepz"),
        ({"sweep": {"deepspeed.stage": [1, 2]}}, "'deepspeed' cannot differ"),
        ({"sweep": {"training.lr": []}}, r"sweep\.training\.lr"),
        ({"training": {"steps": 1, "early_stop": {}}}, "eval_every"),
        ({"deepspeed": {"stage": 2, "offload_param": "cpu"}}, "needs stage 3"),
        ({"deepspeed": {"stage": 3, "offload_param": "nvme"}}, "nvme_path"),
        ({"deepspeed": {"stage": 3, "quantization": "nf4"}}, "cannot be partitioned"),
        ({"data": {}}, r"data\.train: Field required"),
    ],
)
def test_what_does_not_go_together_is_told(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        load_run(write_run(tmp_path, tmp_path, **changes))


def test_listing_a_run_for_prometheus_needs_a_port(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="metrics_targets needs metrics_port"):
        load_run(write_run(tmp_path, tmp_path, metrics_targets="targets"))
    run = load_run(write_run(tmp_path, tmp_path, metrics_targets="targets", metrics_port=0))
    assert run.metrics_targets == tmp_path / "targets"
