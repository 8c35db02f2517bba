"""Puts other methods than Propulsion on a base, for the trainer's loop."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch

from propulsion.errors import ConfigError
from trainer.adapted import AdaptedModel
from trainer.comparison.methods import METHODS
from trainer.comparison.peft_configs import peft_config
from trainer.comparison.unpadded import generate_unpadded
from trainer.config import RunConfig
from trainer.session import Adapt

HEADS = ("classifier", "score", "qa_outputs")
"""Modules that transformers adds, untrained, for a task; PEFT trains the same ones."""


def adapt_as(method: str) -> Adapt:
    """What puts a method on a base, as `trainer.loop.train` takes it.

    Raises (when called):
        ConfigError: the run has several adapters, or the base cannot bear the method.
    """
    if METHODS[method].adapter is not None:
        return AdaptedModel
    kinds = {"full": FullyTuned, "bitfit": BitFit, "adalora": AdaLora}

    def adapt(base: Any, run: RunConfig, task_type: str) -> AdaptedModel:
        if len(run.jobs) != 1:
            raise ConfigError(
                f"{METHODS[method].title} trains one adapter in a run, but {run.name!r} has "
                f"{len(run.jobs)}: compare the methods on one of them"
            )
        if hasattr(base.config, "use_cache"):
            base.config.use_cache = False
        kind = kinds.get(method, PeftMethod)
        return kind(base, run, method, task_type)

    return adapt


class OneTrained(AdaptedModel):
    """A model of which one set of parameters is trained: those that require a gradient."""

    def __init__(self, model: Any) -> None:
        self.names = ["job0"]
        self.model = model

    @property
    def parameters(self) -> dict[str, dict[str, torch.nn.Parameter]]:
        named = self.model.named_parameters()
        return {"job0": {path: p for path, p in named if p.requires_grad}}

    def mixed(self, rows: Sequence[int], active: Sequence[int]) -> AbstractContextManager[None]:
        return nullcontext()


class PeftMethod(OneTrained):
    """A method of PEFT."""

    def __init__(self, base: Any, run: RunConfig, method: str, task_type: str) -> None:
        from peft import get_peft_model

        steps = run.jobs[0].training.steps
        config = peft_config(method, base.config.model_type, task_type, steps)
        try:
            model = get_peft_model(base, config)
        except ValueError as error:
            title = METHODS[method].title
            raise ConfigError(f"PEFT cannot put {title} on {run.base!r}: {error}") from error
        super().__init__(model)
        if config.is_prompt_learning and task_type == "CAUSAL_LM":
            model.generate = partial(generate_unpadded, model.generate)

    def only(self, job: int | None) -> AbstractContextManager[None]:
        return nullcontext() if job is not None else self._bare()

    @contextlib.contextmanager
    def _bare(self) -> Iterator[None]:
        before = vars(self.model).get("generate")
        with self.model.disable_adapter():
            if before is not None:
                # PEFT leaves the virtual tokens in it.
                self.model.generate = self.model.base_model.generate
            try:
                yield
            finally:
                if before is not None:
                    self.model.generate = before

    def save(self, job: int, weights: dict[str, torch.Tensor], folder: Path) -> None:
        with _appearing(folder) as temporary:
            self.model.save_pretrained(
                temporary, state_dict=dict(weights), save_embedding_layers=False
            )


class AdaLora(PeftMethod):
    """AdaLoRA, which moves its budget after each step by the gradients that led to it."""

    def __init__(self, base: Any, run: RunConfig, method: str, task_type: str) -> None:
        super().__init__(base, run, method, task_type)
        self._gradients: dict[torch.nn.Parameter, torch.Tensor] = {}
        for path, parameter in self.model.named_parameters():
            if "ranknum" in path:
                # A constant, which PEFT lets be trained on a base of 16 bits.
                parameter.requires_grad_(False)
            elif parameter.requires_grad and "lora_" in path:
                parameter.register_hook(lambda g, p=parameter: self._add(p, g))

    def _add(self, parameter: torch.nn.Parameter, gradient: torch.Tensor) -> None:
        before = self._gradients.get(parameter)
        added = gradient.detach()
        self._gradients[parameter] = added.clone() if before is None else before + added

    def after_step(self, step: int) -> None:
        # The engine has let go of them by now.
        for parameter, gradient in self._gradients.items():
            parameter.grad = gradient
        self.model.base_model.update_and_allocate(step)
        for parameter in self._gradients:
            parameter.grad = None
        self._gradients.clear()


class FullyTuned(OneTrained):
    """The base itself is trained, in fp32."""

    def __init__(self, base: Any, run: RunConfig, method: str, task_type: str) -> None:
        if run.deepspeed.quantization is not None:
            raise ConfigError(
                f"{METHODS[method].title} trains the base, which is quantised: leave out "
                "deepspeed.quantization, or the method"
            )
        # Steps of AdamW are too small for the 16-bit weights of a base.
        super().__init__(base.float())
        self._choose(base)

    def _choose(self, base: Any) -> None:
        base.requires_grad_(True)

    def only(self, job: int | None) -> AbstractContextManager[None]:
        # The loop asks for the bare base before the first step alone.
        return nullcontext()

    def save(self, job: int, weights: dict[str, torch.Tensor], folder: Path) -> None:
        from safetensors.torch import save_file

        with _appearing(folder) as temporary:
            save_file(weights, temporary / "trained.safetensors")


class BitFit(FullyTuned):
    """The biases of the base, and its head if it has one."""

    def _choose(self, base: Any) -> None:
        base.requires_grad_(False)
        biases = [p for path, p in base.named_parameters() if path.endswith("bias")]
        if not biases:
            raise ConfigError(
                f"BitFit trains biases, and a {base.config.model_type} model has none"
            )
        for parameter in biases:
            parameter.requires_grad_(True)
        for path, parameter in base.named_parameters():
            if any(part in HEADS for part in path.split(".")):
                parameter.requires_grad_(True)


@contextlib.contextmanager
def _appearing(folder: Path) -> Iterator[Path]:
    """A folder to write to that then takes the place of `folder`, whole."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".saving-") as temporary:
        yield Path(temporary)
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(temporary, folder)
