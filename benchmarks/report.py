"""What a benchmark's JSON says beside its numbers, and the writing of it."""

import json
import os
import platform
from pathlib import Path
from typing import Any


def torch_machine(device: str) -> dict[str, Any]:
    """What a benchmark in torch ran on; `device` is "cpu" or "cuda"."""
    import torch

    return {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "processor": platform.processor() or platform.machine(),
        "gpu": torch.cuda.get_device_name() if device == "cuda" else None,
    }


def engine_machine() -> dict[str, Any]:
    """What a benchmark of vLLM ran on, as the fields `machine` and `versions`."""
    import torch
    import vllm

    return {
        "machine": {"cpus": os.cpu_count(), "processor": platform.machine()},
        "versions": {"vllm": vllm.__version__, "torch": torch.__version__},
    }


def write_json(path: Path, result: dict[str, Any]) -> None:
    """Write a result where `--json` says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")
