"""What the section `data` accepts."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import TypeAdapter, ValidationError

from tests.trainer.data.files import section
from trainer.config import DataSection
from trainer.config.formats import RecordFormat


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ({"format": "jsonl"}, "found none: text + label; prompt + target"),
        ({"format": "jsonl", "labels": {"a": "b", "c": "d"}}, "found none"),
        ({"format": "parquet", "text": "a"}, "`text` also needs `label`"),
        ({"format": "parquet", "question": "a"}, "`question` also needs `context`, `answers`"),
        ({"format": "jsonl", "text": "a", "label": "b", "prompt": "c"}, "found text, prompt"),
        ({"format": "jsonl", "messages": "a", "answer": "b"}, "does not go with 'answer'"),
        ({"format": "jsonl", "text": "a", "label": "b", "tags": "c"}, "does not go with 'tags'"),
        ({"format": "jsonl", "text": "a", "label": "b", "labels": {"0": "x"}}, "at least two"),
        (
            {"format": "tsv", "text": 0, "label": 1, "labels": {"0": "x", "1": "x"}},
            "two labels the same name",
        ),
        (
            {"format": "tsv", "text": 0, "text_pair": "b", "label": 1, "header": False},
            "without a header",
        ),
        ({"format": "published", "name": "imdb"}, "Input should be 'cola'"),
        ({"format": "xml"}, "does not match any of the expected tags"),
    ],
)
def test_settings_that_make_no_record_are_refused(records: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as error:
        TypeAdapter(RecordFormat).validate_python(records)
    assert message in str(error.value)


@pytest.mark.parametrize("prompt", ["", "text", "{text}{text}", "{text}{text_pair}{text_pair}"])
def test_a_prompt_must_hold_the_text_once(prompt: str) -> None:
    with pytest.raises(ValidationError, match=r"`prompt` (must|may) hold"):
        section(Path("data"), {"format": "instruction"}, prompt=prompt)


def test_paths_are_relative_to_a_folder_and_hub_names_are_not(tmp_path: Path) -> None:
    dataset = {"format": "dataset", "prompt": "a", "target": "b"}
    data = section(Path("nyu-mll/glue"), dataset)
    data.resolve_paths(tmp_path)
    assert data.train == Path("nyu-mll/glue")
    (tmp_path / "nyu-mll" / "glue").mkdir(parents=True)
    data.resolve_paths(tmp_path)
    assert data.train == tmp_path / "nyu-mll" / "glue"
    data = section(Path("../data/x"), {"format": "instruction"})
    data.resolve_paths(tmp_path)
    assert data.train == tmp_path / "../data/x"


def test_a_run_file_is_checked_without_torch_or_datasets() -> None:
    code = "import trainer.config, sys; print({'torch', 'datasets'} & {*sys.modules})"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "set()\n"


def test_every_example_of_the_documentation_is_accepted() -> None:
    page = (Path(__file__).parents[3] / "docs" / "data.md").read_text(encoding="utf-8")
    examples = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    assert len(examples) >= 6
    for example in examples:
        DataSection.model_validate(yaml.safe_load(example)["data"])
