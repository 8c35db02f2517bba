"""`propulsion doctor`: which kernels run on this machine, and why those."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from propulsion.kernels.registry import Backend, Kernel

NATIVE_NAMES = {"cpu": "C++", "cuda": "CUDA C++"}


@dataclass(frozen=True)
class Choice:
    """What runs one kernel on one kind of device."""

    kernel: str
    device: str
    backend: str
    reason: str


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say which kernels run on this machine, and why; compiles those that would be on first use."""
    from propulsion.kernels.catalogue import KERNELS

    devices = ("cuda", "cpu")
    choices = [
        _choice(kernel, device, kernel.backend(device)) for device in devices for kernel in KERNELS
    ]
    machine, advice = _machine(), _advice(choices)
    if as_json:
        report = {
            "machine": machine,
            "kernels": [asdict(choice) for choice in choices],
            "advice": advice,
        }
        typer.echo(json.dumps(report, indent=1, ensure_ascii=False))
        return
    _print(machine, choices, advice)


def _choice(kernel: Kernel, device: str, backend: Backend) -> Choice:
    from torch.cuda import is_available

    name = {"triton": "Triton", "torch": "torch"}.get(backend.name) or NATIVE_NAMES[device]
    if device == "cuda" and not is_available():
        name = "nothing"
    return Choice(kernel.name, device, name, backend.reason)


def _machine() -> dict[str, str]:
    """Versions and tools that decide what can run."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    import torch

    from propulsion.kernels import compiler
    from propulsion.version import __version__

    try:
        triton = version("triton")
    except PackageNotFoundError:
        triton = "not installed"
    gpus = "none that torch sees"
    if torch.cuda.is_available():
        gpus = ", ".join(
            f"{torch.cuda.get_device_name(index)} (sm_{10 * major + minor})"
            for index in range(torch.cuda.device_count())
            for major, minor in [torch.cuda.get_device_capability(index)]
        )
    return {
        "propulsion": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torch's CUDA": torch.version.cuda or "none: a build for CPUs",
        "triton": triton,
        "GPU": gpus,
        "processor": f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}",
        "C++ compiler": compiler.cxx() or "none",
        "CUDA compiler": compiler.nvcc() or "none",
        "compiled kernels": str(compiler.cache_folder()),
    }


def _advice(choices: list[Choice]) -> list[str]:
    """What would make slow choices faster; nothing where there is nothing to gain."""
    import torch

    from propulsion.kernels import compiler, registry

    advice = []
    slow = {choice.device for choice in choices if choice.backend in ("torch", "Triton")}
    reasons = " ".join(choice.reason for choice in choices)
    for name in (compiler.DISABLE, registry.CHOICE):
        if name in reasons:
            advice.append(f"unset {name} to use the compiled kernels")
    if "cpu" in slow and compiler.cxx() is None:
        advice.append("install g++, or set CXX: kernels of the CPU are compiled on first use")
    if "cuda" in slow and torch.cuda.is_available() and compiler.nvcc() is None:
        advice.append(
            "install the CUDA toolkit of torch's version (or set CUDA_HOME), or a wheel with "
            "kernels built ahead of time (python -m propulsion.kernels.build)"
        )
    return advice


def _print(machine: dict[str, str], choices: list[Choice], advice: list[str]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    about = Table(show_header=False, box=None)
    for name, value in machine.items():
        about.add_row(name, value)
    console.print(about)
    table = Table(title="Kernels", title_justify="left")
    for column in ("device", "kernel", "runs on", "because"):
        table.add_column(column, overflow="fold")
    for choice in choices:
        table.add_row(*_cells(choice))
    console.print(table)
    for line in advice:
        console.print(f"→ {line}")


def _cells(choice: Choice) -> tuple[Any, ...]:
    return choice.device, choice.kernel, choice.backend, choice.reason
