"""The section `task` of a run file."""

import subprocess
import sys

import pytest
from pydantic import TypeAdapter, ValidationError

from trainer.config.task import AnswerTask, ClassificationTask, TaskSection

SECTION = TypeAdapter(TaskSection)


def test_without_a_type_it_is_an_answer() -> None:
    assert SECTION.validate_python({}) == AnswerTask()
    assert SECTION.validate_python({"answer": "number"}) == AnswerTask(answer="number")


def test_the_type_chooses_the_keys() -> None:
    section = SECTION.validate_python({"type": "classification", "metric": "f1"})
    assert section == ClassificationTask(type="classification", metric="f1")
    with pytest.raises(ValidationError, match="Extra inputs"):
        SECTION.validate_python({"type": "classification", "max_new_tokens": 3})


def test_an_unknown_type_is_told_the_known_ones() -> None:
    with pytest.raises(ValidationError, match="expected tags: 'answer', 'causal_lm'"):
        SECTION.validate_python({"type": "chat"})


def test_reading_a_run_file_needs_no_torch() -> None:
    code = "import sys, trainer.config, trainer.tasks; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
