from pathlib import Path

import pytest

from propulsion.analysis.staging import staged
from propulsion.errors import ConfigError


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def write(folder: Path, *names: str) -> None:
    with staged(folder) as temporary:
        for name in names:
            (temporary / name).write_text("new")


def write_half(folder: Path) -> None:
    with staged(folder, outdated=("a", "b")) as temporary:
        (temporary / "a").write_text("half")
        raise ZeroDivisionError


def test_files_appear_only_at_the_end(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "out"
    with staged(folder) as temporary:
        (temporary / "a").write_text("1")
        assert not (folder / "a").exists()
    assert contents(folder) == {"a": "1"}


def test_files_replace_those_of_an_earlier_run(tmp_path: Path) -> None:
    for name in ("a", "b", "kept"):
        (tmp_path / name).write_text("old")
    with staged(tmp_path, outdated=("a", "b", "c")) as temporary:
        (temporary / "a").write_text("new")
    assert contents(tmp_path) == {"a": "new", "kept": "old"}


def test_an_error_leaves_everything_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    for folder in (tmp_path, tmp_path / "new" / "out"):
        with pytest.raises(ZeroDivisionError):
            write_half(folder)
    assert contents(tmp_path) == {"a": "old"}


def test_a_place_that_cannot_be_written_to_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for folder in (tmp_path / "file", tmp_path / "file" / "out"):
        with pytest.raises(ConfigError, match=r"file.*: cannot be written to"), staged(folder):
            pytest.fail("the block must not run")
    assert contents(tmp_path) == {"file": "x"}


def test_a_folder_in_the_place_of_a_file_is_refused_before_any_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    (tmp_path / "b").mkdir()
    with pytest.raises(ConfigError, match="b is a folder"):
        write(tmp_path, "a", "b")
    assert (tmp_path / "a").read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]
