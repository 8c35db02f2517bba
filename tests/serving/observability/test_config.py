import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from serving.observability.config import ObservabilityConfig


def test_the_defaults_are_text_logs_and_no_traces():
    config = ObservabilityConfig()
    assert (config.log_format, config.log_level, config.otlp_endpoint) == ("text", "info", None)
    assert all(field.description for field in ObservabilityConfig.model_fields.values())


@pytest.mark.parametrize(
    "options",
    [
        {"log_format": "xml"},
        {"log_level": "chatty"},
        {"metrics_top_adapters": -1},
        {"otlp_endpoint": "collector:4318"},
        {"otlp_endpoint": "file:///etc/passwd"},
        {"unknown": 1},
    ],
)
def test_a_wrong_option_is_refused(options):
    with pytest.raises(ValidationError):
        ObservabilityConfig(**options)


def test_without_tracing_nothing_heavy_is_imported():
    script = """
import sys
import serving.observability.config, serving.observability.record
import serving.observability.tracking, serving.observability.logs
from serving.observability import tracing
with tracing.span("propulsion.resolve", adapter="a"):
    pass
heavy = {"torch", "vllm", "fastapi", "opentelemetry"} & set(sys.modules)
assert not heavy, heavy
"""
    root = Path(__file__).parents[3]
    subprocess.run([sys.executable, "-c", script], cwd=root, check=True)
