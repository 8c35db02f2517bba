import json
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.observability.logs import JsonFormatter, TextFormatter
from serving.observability.record import RequestRecord, current_request
from serving.security.principal import Principal, current_principal

KEY = "pk-" + "A1b2_" * 8


def entry(message="hello", *args, exc_info=None, **extra) -> logging.LogRecord:
    record = logging.LogRecord("serving.x", logging.INFO, "x.py", 1, message, args, exc_info)
    record.__dict__.update(extra)
    return record


@pytest.fixture
def request_record():
    record = RequestRecord(request_id="req-1", label="sst2", reference="sst2@v3")
    token = current_request.set(record)
    principal = current_principal.set(Principal("k1", "acme", "inference"))
    yield record
    current_principal.reset(principal)
    current_request.reset(token)


def failure() -> tuple:
    try:
        raise ValueError("line one\nINFO forged")
    except ValueError:
        return sys.exc_info()


def test_a_json_line_has_time_level_logger_and_message_and_no_request_outside_one():
    line = json.loads(JsonFormatter().format(entry("hello %s", "you")))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("time"))
    assert line == {"level": "info", "logger": "serving.x", "message": "hello you"}


def test_a_json_line_of_a_request_names_it_its_tenant_and_adapter(request_record):
    line = json.loads(JsonFormatter().format(entry()))
    assert (line["request_id"], line["tenant"], line["adapter"]) == ("req-1", "acme", "sst2@v3")


@pytest.mark.parametrize("formatter", [JsonFormatter(), TextFormatter()])
def test_a_line_of_a_task_that_outlived_its_request_does_not_name_it(formatter, request_record):
    assert "req-1" in formatter.format(entry())
    request_record.ended = True
    assert "req-1" not in formatter.format(entry())


def test_an_exception_is_one_field_of_one_json_line():
    text = JsonFormatter().format(entry(exc_info=failure()))
    assert "\n" not in text
    assert json.loads(text)["exception"].endswith("ValueError: line one\nINFO forged")


def test_an_exception_cannot_forge_a_text_line():
    first, *others = TextFormatter().format(entry(exc_info=failure())).split("\n")
    assert first.startswith("INFO ")
    assert others
    assert all(line.startswith("  ") for line in others)


@given(st.text(), st.dictionaries(st.text(min_size=1), st.text()))
def test_any_message_is_one_line(message, fields):
    record = entry("%s", message, propulsion_fields=fields)
    json_line, text_line = JsonFormatter().format(record), TextFormatter().format(record)
    assert json_line.isascii()
    assert isinstance(json.loads(json_line), dict)
    assert len(json_line.splitlines()) == len(text_line.splitlines()) == 1


@pytest.mark.parametrize("formatter", [JsonFormatter(), TextFormatter()])
@pytest.mark.parametrize("text", [f"key {KEY} refused", "Authorization: Bearer abc.def-123"])
def test_what_looks_like_a_key_never_reaches_the_log(formatter, text):
    line = formatter.format(entry(text))
    assert "[key]" in line
    assert KEY not in line
    assert "abc.def-123" not in line


# In a process of its own, since logging belongs to the process; as the server does it.
SERVER = """
import logging, sys, warnings
from serving.observability.logs import configure_logging
configure_logging(sys.argv[1], "info")
from vllm.logger import configure_logging as vllm_configures, init_logger
from vllm.config.logging import LoggingConfig
vllm_configures(LoggingConfig())
import uvicorn
options = {"log_config": None} if sys.argv[1] == "json" else {}
uvicorn.Config(lambda: None, **options)
init_logger("vllm.engine").info("from vllm\\nsecond line")
logging.getLogger("uvicorn.error").info("from uvicorn")
logging.getLogger("serving.x").info("from us")
logging.getLogger("adapters.x").debug("too fine")
logging.getLogger("someone.else").info("not ours")
logging.getLogger("someone.else").warning("from elsewhere")
"""

WORKER = """
import logging
from vllm.logger import configure_logging, init_logger
from vllm.config.logging import LoggingConfig
configure_logging(LoggingConfig())
init_logger("vllm.worker").info("from the engine's process")
logging.getLogger("serving.worker").info("from our worker")
"""


def run_logging(script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("VLLM_LOGGING")}
    return subprocess.run(
        [sys.executable, "-c", script, *arguments],
        cwd=Path(__file__).parents[3],
        env={**inherited, **environment},
        capture_output=True,
        text=True,
        check=True,
    )


@pytest.mark.slow
def test_in_json_everything_this_process_logs_is_one_object_a_line():
    done = run_logging(SERVER, "json")
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    messages = {line["logger"]: line["message"] for line in lines}
    assert messages["vllm.engine"] == "from vllm\nsecond line"
    assert messages["uvicorn.error"] == "from uvicorn"
    assert messages["serving.x"] == "from us"
    assert messages["someone.else"] == "from elsewhere"
    assert "adapters.x" not in messages
    assert len([line for line in lines if line["message"] == "from us"]) == 1
    assert done.stdout == ""


@pytest.mark.slow
def test_in_text_uvicorn_and_vllm_keep_their_formats():
    done = run_logging(SERVER, "text")
    assert "INFO" in done.stderr
    assert re.search(r"INFO \S+ \S+ \[serving\.x\] from us", done.stderr)
    assert "from uvicorn" in done.stderr + done.stdout
    assert "from vllm" in done.stderr + done.stdout
    assert "not ours" not in done.stderr


@pytest.mark.slow
def test_the_engines_processes_log_json_too_while_the_server_runs():
    script = f"""
import os, subprocess, sys
from serving.observability.logs import configure_logging
configure_logging("json", "info")
path = os.environ["VLLM_LOGGING_CONFIG_PATH"]
assert os.stat(path).st_mode & 0o077 == 0
print(path)
sys.stdout.flush()
subprocess.run([sys.executable, "-c", {WORKER!r}], check=True)
"""
    done = run_logging(script)
    # What vLLM warns of while it is imported comes before it configures its logging.
    lines = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    messages = [line["message"] for line in lines]
    assert {"from the engine's process", "from our worker"} <= set(messages)
    assert not Path(done.stdout.strip()).exists()


@pytest.mark.slow
def test_an_operators_own_logging_file_for_vllm_is_left_alone(tmp_path):
    own = tmp_path / "logging.json"
    own.write_text(json.dumps({"version": 1}))
    script = """
import os
from serving.observability.logs import configure_logging
configure_logging("json", "info")
print(os.environ["VLLM_LOGGING_CONFIG_PATH"])
"""
    done = run_logging(script, VLLM_LOGGING_CONFIG_PATH=str(own))
    assert done.stdout.strip() == str(own)
    assert own.exists()
