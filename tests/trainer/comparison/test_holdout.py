"""A part of the training records is held out, as they are written."""

import json
from pathlib import Path
from typing import Any

import pytest

from propulsion.errors import ConfigError
from trainer.comparison.holdout import hold_out
from trainer.config import JobConfig
from trainer.job_data import read_job

TSV = {"format": "tsv", "text": "s", "label": "y", "labels": {"0": "bad", "1": "good"}}


def job_on(path: Path, records: dict[str, Any], **data: Any) -> JobConfig:
    return JobConfig(
        name="a",
        data={"train": path, "test": path, "records": records, **data},
        training={"steps": 1},
    )


def write_tsv(path: Path, count: int) -> Path:
    path.write_text("s\ty\n" + "".join(f"text {i}\t{i % 2}\n" for i in range(count)))
    return path


def test_end_of_a_table_is_held_out_under_its_header(tmp_path: Path) -> None:
    job = job_on(write_tsv(tmp_path / "train.tsv", 20), TSV)
    holdout = hold_out(job, "classification", 0.25, tmp_path / "out")
    assert (holdout.num_train, holdout.num_records) == (15, 5)
    whole = read_job(job, "classification").train
    held = job.model_copy(update={"data": job.data.model_copy(update={"train": holdout.path})})
    assert list(read_job(held, "classification").train) == list(whole)[15:]


def test_only_records_that_the_run_uses_are_held_out(tmp_path: Path) -> None:
    job = job_on(write_tsv(tmp_path / "train.tsv", 20), TSV, train_limit=10)
    holdout = hold_out(job, "classification", 0.2, tmp_path / "out")
    assert (holdout.num_train, holdout.num_records) == (8, 2)
    assert holdout.path.read_text() == "s\ty\ntext 8\t0\ntext 9\t1\n"


def test_end_of_a_list_is_held_out(tmp_path: Path) -> None:
    records = [
        {"instruction": f"q{i}", "input": "", "output": f"é{i}", "answer": str(i)}
        for i in range(10)
    ]
    path = tmp_path / "train.json"
    path.write_text(json.dumps(records))
    holdout = hold_out(job_on(path, {"format": "instruction"}), "answer", 0.1, tmp_path / "out")
    assert json.loads(holdout.path.read_text()) == records[9:]


def test_lines_with_separators_inside_stay_whole(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    lines = [json.dumps({"p": f"a\u2028b{i}", "t": "x"}, ensure_ascii=False) for i in range(4)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    job = job_on(path, {"format": "jsonl", "prompt": "p", "target": "t"})
    holdout = hold_out(job, "answer", 0.5, tmp_path / "out")
    assert holdout.path.read_text(encoding="utf-8") == "\n".join(lines[2:]) + "\n"


def test_formats_that_cannot_be_cut_are_refused(tmp_path: Path) -> None:
    job = job_on(tmp_path / "train.txt", {"format": "conll"})
    with pytest.raises(ConfigError, match="no part of 'conll' data can be held out"):
        hold_out(job, "token_classification", 0.1, tmp_path / "out")


def test_too_few_records_are_refused(tmp_path: Path) -> None:
    job = job_on(write_tsv(tmp_path / "train.tsv", 3), TSV)
    with pytest.raises(ConfigError, match="3 records are too few"):
        hold_out(job, "classification", 0.1, tmp_path / "out")
