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
    assert run.data.train == tmp_path / "a" / "train.tsv"
    assert run.output_dir == tmp_path / "a" / "out"
    assert run.publish is not None
    assert run.publish.store == tmp_path / "a" / "store"


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
    assert (run.training.steps, run.seed, run.adapter.target_modules) == (9, 4, ["q_proj"])
    with pytest.raises(ConfigError, match=r"--set takes section\.key=value"):
        load_run(path, ["training.steps"])
    with pytest.raises(ConfigError, match="'name' is not a section"):
        load_run(path, ["name.first=x"])


def test_tsv_without_header_needs_column_numbers(tmp_path: Path) -> None:
    path = write_run(tmp_path, tmp_path)
    with pytest.raises(ConfigError, match="column numbers"):
        load_run(path, ["data.records.header=false"])


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*/*.yaml")), ids=lambda p: p.name)
def test_every_example_is_a_valid_run(path: Path) -> None:
    run = load_run(path)
    assert run.data.train.is_file()
    assert run.data.test.is_file()
    assert Path(run.base).is_dir()
