"""Log lines of our loggers, uvicorn's and vLLM's: as text, or as one JSON object each."""

import atexit
import json
import logging
import logging.config
import os
import re
import tempfile
import textwrap
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from serving.observability.config import LogFormat, LogLevel
from serving.observability.record import current_request
from serving.observability.tracing import current_trace_id
from serving.security.principal import LOCAL, current_principal

_CONFIG_VARIABLE = "VLLM_LOGGING_CONFIG_PATH"
_LEVEL_VARIABLE = "VLLM_LOGGING_LEVEL"
_OURS = ("serving", "adapters", "propulsion")
_THEIRS = ("vllm", "uvicorn", "uvicorn.error", "uvicorn.access")
# Nothing of ours logs a key; what a library puts into an error, nobody can know.
_KEY = re.compile(r"(?i)(\bbearer\s+)\S+|\bpk-[\w-]{20,}")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")


def configure_logging(log_format: LogFormat, level: LogLevel) -> None:
    """Set up the logging of this process, and of vLLM's, before vLLM is imported.

    Text: our loggers write to stderr; uvicorn and vLLM keep their own formats. JSON: everything
    goes to stderr as one object a line. vLLM configures its logging itself, in the engine's
    processes too, from the file that VLLM_LOGGING_CONFIG_PATH names; one is written for it, unless
    the operator has set that variable. uvicorn must be given `log_config=None` then.
    """
    os.environ.setdefault(_LEVEL_VARIABLE, level.upper())
    settings = logging_settings(log_format, level)
    logging.config.dictConfig(settings)
    if log_format == "json" and _CONFIG_VARIABLE not in os.environ:
        handle, path = tempfile.mkstemp(prefix="propulsion-logging-", suffix=".json")
        with os.fdopen(handle, "w") as file:
            json.dump(settings, file)
        os.environ[_CONFIG_VARIABLE] = path
        atexit.register(_forget, path, os.getpid())


def logging_settings(log_format: LogFormat, level: LogLevel) -> dict[str, Any]:
    """What `logging.config.dictConfig` takes; plain data, so that other processes can read it."""
    formatter = f"{__name__}.{'JsonFormatter' if log_format == 'json' else 'TextFormatter'}"
    loggers: dict[str, Any] = {name: {"level": level.upper()} for name in _OURS}
    if log_format == "json":
        for name in _THEIRS:
            loggers[name] = {"level": level.upper(), "handlers": [], "propagate": True}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"propulsion": {"()": formatter}},
        "handlers": {
            "propulsion": {
                "class": "logging.StreamHandler",
                "formatter": "propulsion",
                "stream": "ext://sys.stderr",
            }
        },
        "loggers": loggers,
        "root": {"level": "WARNING", "handlers": ["propulsion"]},
    }


class TextFormatter(logging.Formatter):
    """`LEVEL time [logger] message`, with the request's id; a message stays on its line."""

    def __init__(self) -> None:
        super().__init__("%(levelname)s %(asctime)s [%(name)s] %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The line, without a traceback."""
        line = _CONTROL.sub(lambda match: repr(match[0])[1:-1], super().formatMessage(record))
        request_id = _context().get("request_id")
        return f"{line} request={request_id}" if request_id else line

    def formatException(self, ei: Any) -> str:
        """A traceback, indented: nothing in it can pass for a line of the log."""
        return textwrap.indent(super().formatException(ei), "  ", lambda line: True)

    def format(self, record: logging.LogRecord) -> str:
        """The line and the traceback's lines."""
        return _redacted(super().format(record))


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (UTC), level, logger, message, and what is known of the request.

    Keys: `request_id`, `tenant`, `adapter` and `trace_id` where there is a request; `exception`,
    a traceback, where there is one; those of the access log in its lines.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The object, in ASCII and without a line break."""
        entry: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC)
            .isoformat(timespec="milliseconds")
            .replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_context(),
            **getattr(record, "propulsion_fields", {}),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return _redacted(json.dumps(entry, default=str))


def _context() -> dict[str, str]:
    """What the line's request is, if it belongs to one that still runs."""
    request = current_request.get()
    if request is None or request.ended:
        return {}
    principal = current_principal.get()
    known = {
        "request_id": request.request_id,
        "tenant": request.tenant or (principal.tenant if principal is not LOCAL else None),
        "adapter": request.reference or request.label,
        "trace_id": current_trace_id(),
    }
    return {name: value for name, value in known.items() if value}


def _redacted(line: str) -> str:
    return _KEY.sub(lambda match: f"{match[1] or ''}[key]", line)


def _forget(path: str, owner: int) -> None:
    # A forked worker ends before the server that others read the file of.
    if os.getpid() == owner:
        with suppress(OSError):
            Path(path).unlink()
