"""Copies of a run's checkpoints at a URL, for a run that goes on where its folder is gone."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from adapters.backends.filesystem import open_filesystem, reaching
from adapters.backends.location import without_credentials
from propulsion.errors import PropulsionError
from trainer.checkpoint import STATE_FILE, latest_checkpoint
from trainer.config import RunConfig

_BESIDE = ("adapters", "best")
"""Folders of a run that its checkpoint counts on: finished adapters, and best weights so far."""

_WHAT = "The checkpoints' copies at"


class CheckpointCopies:
    """The copies of one run. Only rank 0 uses them.

    A copy is a folder `URL/RUN/step-N`, which is whole once it has the checkpoint's `state.json`.

    Args:
        url: s3://bucket/prefix, a path, or another URL that fsspec reads.
        run: name of the run.
        keep: newest copies that stay.

    Raises:
        ConfigError: the URL is malformed, or its driver is not installed.
    """

    def __init__(self, url: str, run: str, keep: int) -> None:
        self._filesystem, root = open_filesystem(url)
        self._root = f"{root}/{run}"
        self._keep = keep
        self.location = f"{without_credentials(url).rstrip('/')}/{run}"

    def push(self, checkpoint: Path) -> None:
        """Copy a checkpoint of `output_dir/checkpoints`, then remove older copies beyond `keep`.

        Raises:
            StoreUnavailableError: the URL cannot be reached, or refuses; older copies are whole.
        """
        output_dir = checkpoint.parents[1]
        target = f"{self._root}/{checkpoint.name}"
        with self._reaching():
            self._remove(target)
            for folder in _BESIDE:
                for path in _files(output_dir / folder):
                    self._put(path, f"{target}/{path.relative_to(output_dir)}")
            # Last what makes it a whole one.
            for path in sorted(_files(checkpoint), key=lambda path: path.name == STATE_FILE):
                self._put(path, f"{target}/{path.relative_to(checkpoint)}")
            for _, old in sorted(self._steps().items())[: -self._keep]:
                self._remove(old)

    def fetch(self, output_dir: Path) -> Path | None:
        """Bring the newest whole copy to a run's folder, unless that has a checkpoint itself.

        Returns:
            The checkpoint that was brought; None if there was no need or no copy.

        Raises:
            StoreUnavailableError: the URL cannot be reached: the run must not start anew.
            PropulsionError: the folder cannot be written.
        """
        if latest_checkpoint(output_dir) is not None:
            return None
        with self._reaching():
            steps = sorted(self._steps().items(), reverse=True)
            whole = (path for _, path in steps if self._filesystem.exists(f"{path}/{STATE_FILE}"))
            newest = next(whole, None)
            if newest is None:
                return None
            name = newest.rpartition("/")[2]
            target = output_dir / "checkpoints" / name
            temporary = target.with_name(f".{name}.fetched")
            shutil.rmtree(temporary, ignore_errors=True)
            for path in self._filesystem.find(newest):
                relative = Path(path[path.index(newest) + len(newest) + 1 :])
                is_beside = relative.parts[0] in _BESIDE
                local = (output_dir if is_beside else temporary) / relative
                local.parent.mkdir(parents=True, exist_ok=True)
                self._filesystem.get_file(path, str(local))
            temporary.rename(target)
            return target

    def clear(self) -> None:
        """Remove all copies of the run.

        Raises:
            StoreUnavailableError: the URL cannot be reached, or refuses.
        """
        with self._reaching():
            self._remove(self._root)

    def _steps(self) -> dict[int, str]:
        try:
            # A bucket that is not there is no place without copies.
            with reaching(self.location, _WHAT):
                paths = self._filesystem.ls(self._root, detail=False)
        except FileNotFoundError:
            return {}
        names = [str(path).rstrip("/") for path in paths]
        matches = ((re.search(r"/step-(\d+)$", name), name) for name in names)
        return {int(match[1]): name for match, name in matches if match}

    def _put(self, path: Path, target: str) -> None:
        if self._is_local:
            Path(target).parent.mkdir(parents=True, exist_ok=True)
        self._filesystem.put_file(str(path), target)

    def _remove(self, path: str) -> None:
        if self._filesystem.exists(path):
            self._filesystem.rm(path, recursive=True)

    @property
    def _is_local(self) -> bool:
        return "file" in self._filesystem.protocol

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        try:
            with reaching(self.location, _WHAT):
                yield
        except (FileNotFoundError, FileExistsError) as error:
            raise PropulsionError(f"{self.location}: {error}") from error


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def copies_of(run: RunConfig) -> CheckpointCopies | None:
    """A run's copies, if it wants any.

    Args:
        run: the run.

    Raises:
        ConfigError: as CheckpointCopies.
    """
    settings = run.checkpoints
    if settings.copy_to is None:
        return None
    return CheckpointCopies(settings.copy_to, run.name, settings.keep)
