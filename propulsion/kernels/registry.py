"""The operators of `torch.ops.propulsion`, and which implementation of each runs on a device.

Schemas, fakes and torch references are registered on import. The first call on a device loads the
best implementation there is, which registers itself under that device's dispatch key; from then on
calls go to it straight, compiled and captured ones too.
"""

from __future__ import annotations

import importlib
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch

from propulsion.errors import ConfigError
from propulsion.kernels import compiler
from propulsion.kernels.compiler import BuildError

_LIBRARY: Any = torch.library.Library("propulsion", "FRAGMENT")  # type: ignore[no-untyped-call]

CHOICE = "PROPULSION_KERNELS"
"""Environment variable: `auto` (default), `triton` (no C++) or `torch` (the references alone)."""

CHOICES = ("auto", "triton", "torch")

DISPATCH_KEYS = {"cpu": "CPU", "cuda": "CUDA"}


@dataclass(frozen=True)
class Backend:
    """What runs a kernel on a kind of device, and why that."""

    name: Literal["native", "triton", "torch"]
    reason: str


@dataclass(frozen=True)
class Operator:
    """A schema (without the namespace), its torch reference, and its fake for tracing."""

    schema: str
    reference: Callable[..., Any]
    fake: Callable[..., Any]

    @cached_property
    def name(self) -> str:
        return self.schema.partition("(")[0]


class Kernel:
    """One folder: the operators it registers and the sources beside its reference.

    The folder may hold `cuda.cu`, `cpu.cpp` and `triton_kernels.py`, which has a function for each
    operator.

    Attributes:
        name: of the folder.
        operators: in the order of definition.
    """

    def __init__(self, folder: Path, *operators: Operator):
        self.name = folder.name
        self.operators = operators
        self._folder = folder
        self._backends: dict[str, Backend] = {}
        self._loading = threading.Lock()
        for operator in operators:
            _LIBRARY.define(operator.schema)
            _LIBRARY.impl(operator.name, self._first_call(operator), "CompositeExplicitAutograd")
            torch.library.register_fake(f"propulsion::{operator.name}", operator.fake, lib=_LIBRARY)

    def backend(self, device_type: str) -> Backend:
        """What runs on "cpu" or "cuda"; the first call loads it, and may compile it first.

        Raises:
            ConfigError: the environment asks for what there is not.
        """
        with self._loading:
            if device_type not in self._backends:
                self._backends[device_type] = self._load(device_type)
            return self._backends[device_type]

    def use_triton(self, dispatch_key: str) -> None:
        """Register the Triton kernels under a dispatch key."""
        package = f"{__package__}.{self.name}.triton_kernels"
        module = importlib.import_module(package)
        for operator in self.operators:
            _LIBRARY.impl(operator.name, getattr(module, operator.name), dispatch_key)

    def _load(self, device_type: str) -> Backend:
        if device_type not in DISPATCH_KEYS:
            return Backend("torch", f"there are no kernels for {device_type}")
        if device_type == "cuda" and not torch.cuda.is_available():
            return Backend("torch", "torch sees no NVIDIA GPU")
        choice = os.environ.get(CHOICE, "auto")
        if choice not in CHOICES:
            raise ConfigError(f"{CHOICE}={choice!r}: it must be one of {', '.join(CHOICES)}")
        reasons = []
        if choice == "auto":
            try:
                return Backend("native", self._load_native(device_type))
            except BuildError as error:
                reasons.append(str(error))
        if device_type == "cuda" and choice in ("auto", "triton"):
            try:
                self.use_triton(DISPATCH_KEYS[device_type])
                return Backend("triton", "; ".join(reasons) or f"{CHOICE}={choice}")
            except ImportError as error:
                reasons.append(f"Triton cannot be imported ({error}): pip install triton")
        return Backend("torch", "; ".join(reasons) or f"{CHOICE}={choice}")

    def _load_native(self, device_type: str) -> str:
        source = self._folder / ("cuda.cu" if device_type == "cuda" else "cpu.cpp")
        library = compiler.find(source) or compiler.compile_here(source)
        try:
            torch.ops.load_library(library)  # type: ignore[no-untyped-call]
        except (OSError, RuntimeError) as error:
            raise BuildError(f"{library} cannot be loaded: {error.__cause__ or error}") from error
        return compiler.describe(library)

    def _first_call(self, operator: Operator) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            # An implementation that has just registered itself takes the call from here.
            if self.backend(args[0].device.type).name == "torch":
                return operator.reference(*args)
            return getattr(torch.ops.propulsion, operator.name)(*args)

        return call
