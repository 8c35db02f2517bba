import gc
import pickle
import tracemalloc
from pathlib import Path

import pyarrow
import pytest

from tests.trainer.data.files import lazily, read, write_lines

RECORDS = {"format": "jsonl", "prompt": "a", "target": "b"}


def test_a_large_file_stays_on_disk(tmp_path: Path) -> None:
    path = write_lines(tmp_path, [{"a": "x" * 10_000, "b": f"{i}"} for i in range(3_000)])
    lazily(path, RECORDS)
    gc.collect()
    arrow = pyarrow.total_allocated_bytes()
    tracemalloc.start()
    records = lazily(path, RECORDS)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert path.stat().st_size > 30e6
    assert held < 1e6
    assert pyarrow.total_allocated_bytes() - arrow < 5e6
    assert records[2_999].answer == "2999"


def test_nothing_is_written_beside_the_data_and_nothing_is_shown(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = write_lines(tmp_path, [{"a": "x", "b": "y"}])
    read(path, RECORDS)
    assert list(tmp_path.iterdir()) == [path]
    assert capfd.readouterr() == ("", "")


def test_a_file_that_changed_is_read_anew(tmp_path: Path) -> None:
    path = write_lines(tmp_path, [{"a": "x", "b": "old"}])
    assert [record.answer for record in read(path, RECORDS)] == ["old"]
    write_lines(tmp_path, [{"a": "x", "b": "new"}, {"a": "x", "b": "newer"}])
    assert [record.answer for record in read(path, RECORDS)] == ["new", "newer"]


def test_a_path_is_no_pattern(tmp_path: Path) -> None:
    folder = tmp_path / "run[1] *"
    folder.mkdir()
    assert len(read(write_lines(folder, [{"a": "x", "b": "y"}]), RECORDS)) == 1


def test_only_line_feeds_end_a_record(tmp_path: Path) -> None:
    path = write_lines(tmp_path, [{"a": "x\u2028y\x85z", "b": "y"}])
    assert read(path, RECORDS)[0].prompt == "<x\u2028y\x85z>"


def test_records_travel_to_other_processes(tmp_path: Path) -> None:
    path = write_lines(tmp_path, [{"a": "x", "b": f"{i}"} for i in range(3)])
    records = lazily(path, RECORDS)
    assert list(pickle.loads(pickle.dumps(records))) == list(records)
