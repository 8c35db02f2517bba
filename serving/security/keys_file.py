"""The keys file: YAML records of API keys, of which it holds only digests."""

import logging
import os
import stat
from pathlib import Path
from typing import Annotated, NamedTuple

import yaml
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from propulsion.errors import ConfigError
from serving.security.key_text import loggable
from serving.security.principal import Role

_log = logging.getLogger(__name__)

_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"
_PATTERN = r"^[A-Za-z0-9._*?!\[\]-]{1,256}$"
_REFUSED_MODE = stat.S_IRWXO | stat.S_IWGRP
_WARNED_MODE = stat.S_IRGRP | stat.S_IXGRP


class KeyRecord(BaseModel):
    """One API key: whose it is, what it may do, and the digest it is known by."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    id: str = Field(pattern=_NAME, description="Public name of the key, for logs and `revoke`.")
    sha256: str = Field(
        pattern=r"^[0-9a-f]{64}$", repr=False, description="sha256 of the key, in hex."
    )
    tenant: str = Field(pattern=_NAME, description="Whom the key belongs to.")
    role: Role = Field(description="inference: the OpenAI routes; admin: the admin API as well.")
    adapters: tuple[Annotated[str, Field(pattern=_PATTERN)], ...] = Field(
        description="Shell patterns of the adapter names the key may use, list and learn of."
    )
    base: bool = Field(True, description="Whether the key may use the base model itself.")
    requests_per_minute: int | None = Field(
        None, ge=1, description="Most requests in a minute, in each server process."
    )
    tokens_per_minute: int | None = Field(
        None, ge=1, description="Most prompt and generated tokens in a minute, per process."
    )
    tokens_per_day: int | None = Field(
        None, ge=1, description="Most prompt and generated tokens in a UTC day, per process."
    )
    expires: AwareDatetime | None = Field(
        None, description="When the key ends, with a time zone; never by default."
    )


_RECORDS = TypeAdapter(tuple[KeyRecord, ...])


class FileState(NamedTuple):
    """What tells one content of a file from the next; a change of mode moves `changed_ns`."""

    inode: int
    size: int
    modified_ns: int
    changed_ns: int


def file_state(status: os.stat_result) -> FileState:
    """The state of a file from what `stat` says of it."""
    return FileState(status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def read_keys_file(path: Path) -> tuple[tuple[KeyRecord, ...], FileState]:
    """The records of a keys file, and the state of the file that they were read from.

    Raises:
        ConfigError: it cannot be read, users beyond its owner and group may read it, its group may
            write it, or a record is malformed or given twice. The message never holds a key.
    """
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            _require_privacy(path, status.st_mode)
            data = file.read()
    except OSError as error:
        raise ConfigError(f"keys file {path} cannot be read: {error.strerror}") from error
    records = _parse(path, data)
    if status.st_mode & _WARNED_MODE:
        _log.warning("keys file %s may be read by its group; mode 0600 is safer", path)
    return records, file_state(status)


def _require_privacy(path: Path, mode: int) -> None:
    if mode & _REFUSED_MODE:
        raise ConfigError(
            f"keys file {path} has mode {stat.S_IMODE(mode):04o}: others could read it or its "
            f"group change it; chmod 600 {path}"
        )


def _parse(path: Path, data: bytes) -> tuple[KeyRecord, ...]:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        # The loader is a safe one: it makes plain values only.
        content = yaml.load(data, loader)
    # A ValueError: a time that no calendar has.
    except (yaml.YAMLError, ValueError) as error:
        # The library's whole message quotes the file, and a key may stand there by mistake.
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise ConfigError(f"keys file {path}{where}: this is not valid YAML") from None
    try:
        records = _RECORDS.validate_python(content or ())
    except ValidationError as error:
        raise ConfigError(f"keys file {path}: {_problem(error, content)}") from None
    for field in ("id", "sha256"):
        seen = set()
        for number, record in enumerate(records, 1):
            value = getattr(record, field)
            if value in seen:
                raise ConfigError(
                    f"keys file {path}, record {number} ({record.id}): its {field} stands in an "
                    "earlier record too; give each key a record of its own"
                )
            seen.add(value)
    return records


def _problem(error: ValidationError, content: object) -> str:
    problem = error.errors(include_input=False, include_url=False)[0]
    where = list(problem["loc"])
    if not where or not isinstance(where[0], int):
        return "it must be a list of records, each beginning with `- id: …`"
    number = where.pop(0)
    record = content[number] if isinstance(content, list) else None
    name = record.get("id") if isinstance(record, dict) else None
    called = f" ({name})" if isinstance(name, str) else ""
    field = ".".join(str(part) for part in where)
    return loggable(f"record {number + 1}{called}, {field}: {problem['msg']}")
