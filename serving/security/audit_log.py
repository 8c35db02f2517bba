"""Where audit lines go: a file of JSON lines, or a logger."""

import errno
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from propulsion.errors import ConfigError

_log = logging.getLogger(__name__)
LOGGER = "propulsion.audit"


class AuditLog:
    """Appends JSON lines to a file, or hands them to the logger `propulsion.audit`.

    A file that was moved away by log rotation is made anew. A line that cannot be written (a full
    disk) is lost and counted; the server goes on.

    Attributes:
        failures: how many lines were lost.
    """

    def __init__(self, path: Path | None = None):
        """Open the log.

        Raises:
            ConfigError: the file cannot be opened for appending.
        """
        self.failures = 0
        self._path = path
        self._descriptor: int | None = None
        self._is_failing = self._line_is_torn = False
        if path is not None:
            try:
                self._descriptor = _open(path)
            except OSError as error:
                raise ConfigError(
                    f"--audit-log {path} cannot be written: {error.strerror}"
                ) from error

    def write(self, record: Mapping[str, Any]) -> None:
        """Append one line; never raises for what the disk does."""
        # ASCII alone, so that no character of a client can begin a line or steer a terminal.
        line = json.dumps(record, ensure_ascii=True, allow_nan=False)
        if self._path is None:
            logging.getLogger(LOGGER).info("%s", line)
            return
        try:
            self._append(line.encode() + b"\n")
        except OSError as error:
            self.failures += 1
            if not self._is_failing:
                _log.error(
                    "audit log %s cannot be written (%s): audit lines are lost until it can",
                    self._path,
                    error.strerror,
                )
            self._is_failing = True
        else:
            self._is_failing = False

    def close(self) -> None:
        """Close the file; a later `write` opens it again."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _append(self, line: bytes) -> None:
        self._follow_rotation()
        assert self._descriptor is not None
        data = b"\n" + line if self._line_is_torn else line
        written = os.write(self._descriptor, data)
        self._line_is_torn = written < len(data) and (self._line_is_torn or written > 0)
        if written < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _follow_rotation(self) -> None:
        assert self._path is not None
        if self._descriptor is not None:
            try:
                current = os.stat(self._path)
            except FileNotFoundError:
                current = None
            ours = os.fstat(self._descriptor)
            if current is not None and os.path.samestat(current, ours):
                return
            self.close()
        self._descriptor = _open(self._path)


def _open(path: Path) -> int:
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(path, flags, 0o600)
