"""The options of the guards."""

import subprocess
import sys

import pytest
from pydantic import ValidationError

from serving.security.config import SecurityConfig


def test_the_options_and_the_command_line_need_no_server_to_be_read() -> None:
    code = (
        "import sys, serving.security.config, serving.security.cli, serving.security.keys; "
        "print({'torch', 'vllm', 'fastapi', 'starlette', 'uvicorn'} & sys.modules.keys())"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.strip() == "set()", result.stderr


@pytest.mark.parametrize(
    ("options", "asks", "metrics_are_open"),
    [
        ({}, False, True),
        ({"api_keys": ("x",)}, True, True),
        ({"keys_file": "keys"}, True, False),
        ({"keys_file": "keys", "open_metrics": True}, True, True),
        ({"api_keys": ("x",), "open_metrics": False}, True, False),
    ],
)
def test_keys_are_asked_for_and_metrics_closed_by_what_is_given(
    options: dict, asks: bool, metrics_are_open: bool
) -> None:
    config = SecurityConfig(**options)
    assert config.asks_for_keys == asks
    assert config.metrics_are_open == metrics_are_open


@pytest.mark.parametrize("options", [{"max_body_bytes": 0}, {"keyfile": "x"}])
def test_wrong_options_are_refused(options: dict) -> None:
    with pytest.raises(ValidationError):
        SecurityConfig(**options)
