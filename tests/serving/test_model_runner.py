"""What holds on vLLM's V1 model runner, the default on CPU, holds on the V2 one, too."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ENVIRONMENT = {
    "VLLM_USE_V2_MODEL_RUNNER": "1",
    "TRITON_INTERPRET": "1",
    # All in the process that has the plug-in.
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
}
# LoRA adapters in the batch, and a model that vLLM knows no LoRA for, are in the second.
CASES = [Path(__file__).with_name(f"test_{n}.py") for n in ("engine", "architectures", "heads")]


def test_adapters_run_as_well_on_the_v2_model_runner():
    """In a process of its own: Triton decides on import whether it interprets."""
    options = ["-q", "-s", "-p", "no:cacheprovider", "-p", "tests.serving.triton_interpreter"]
    chosen = ["-k", "not qwen2 and not gptj", *map(str, CASES)]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *chosen],
        env={**os.environ, **ENVIRONMENT},
        capture_output=True,
        text=True,
    )
    output = run.stdout + run.stderr
    assert run.returncode == 0, output
    assert "Using V2 Model Runner" in output
