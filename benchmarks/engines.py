"""vLLM engines in processes of their own, so that several can take turns."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

STOP_SECONDS = 10.0


@dataclass(frozen=True)
class EngineSpec:
    """One engine.

    Attributes:
        method: without adapters, with our plug-in, or with vLLM's LoRA.
        base: folder of the model.
        prompt: tokens of each prompt.
        options: of `serving.engine.engine_options` for our plug-in, else of vLLM.
    """

    method: Literal["base", "propulsion", "lora"]
    base: Path
    prompt: int
    options: dict[str, Any] = field(default_factory=dict)


class Engine:
    """An engine that starts, and then runs; a context that stops it.

    Args:
        spec: what it is.
    """

    def __init__(self, spec: EngineSpec):
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, spec), daemon=True)
        self._process.start()
        # Else the pipe would not end with the process.
        theirs.close()
        self._is_ready = False

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, error: object, *_: object) -> None:
        if error is None and self._is_ready and self._process.is_alive():
            self._pipe.send(None)
            self._process.join(STOP_SECONDS)
        self._process.kill()
        self._process.join()
        self._pipe.close()

    def wait_until_ready(self, timeout_seconds: float | None = None) -> None:
        """Return at once where it already is; without a timeout wait for ever.

        Raises:
            RuntimeError: it did not start.
            TimeoutError: it did not start in time.
        """
        if not self._is_ready:
            self._answer(timeout_seconds)
            self._is_ready = True

    def rate(
        self,
        folders: Sequence[Path | None],
        num_tokens: int,
        timeout_seconds: float | None = None,
    ) -> float:
        """Tokens per second of one batch, a request for each adapter folder (None is the base).

        Raises:
            RuntimeError: the engine failed; it is of no more use.
            TimeoutError: it did not answer in time; likewise.
        """
        return float(self._ask(("run", folders, num_tokens), timeout_seconds))

    def first_token_seconds(self, folders: Sequence[Path]) -> list[tuple[float, float]]:
        """Of each adapter: when it is loaded for its first request, and right after."""
        times: list[tuple[float, float]] = self._ask(("first", folders, 1), None)
        return times

    def _ask(self, order: tuple[str, Sequence[Path | None], int], timeout: float | None) -> Any:
        # A process that has ended is found out by the answer that does not come.
        with contextlib.suppress(BrokenPipeError):
            self._pipe.send(order)
        return self._answer(timeout)

    def _answer(self, timeout_seconds: float | None) -> Any:
        if not self._pipe.poll(timeout_seconds):
            raise TimeoutError(f"the engine did not answer within {timeout_seconds:.0f} s")
        try:
            answer = self._pipe.recv()
        except EOFError:
            self._process.join(STOP_SECONDS)
            code = self._process.exitcode
            raise RuntimeError(f"the engine's process ended with exit code {code}") from None
        if isinstance(answer, Exception):
            raise answer
        return answer


def _serve(pipe: Connection, spec: EngineSpec) -> None:
    """Answer orders until one is None; what is raised is an answer, too."""
    try:
        running = _RunningEngine(spec)
        pipe.send("ready")
        while (order := pipe.recv()) is not None:
            task, folders, num_tokens = order
            if task == "run":
                seconds = running.generate(folders, num_tokens)
                pipe.send(len(folders) * num_tokens / seconds)
            else:
                pipe.send([running.first_token_seconds(folder) for folder in folders])
    except Exception as error:
        pipe.send(RuntimeError(f"{type(error).__name__}: {error}"))
        raise


class _RunningEngine:
    """The engine in its own process."""

    def __init__(self, spec: EngineSpec):
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
        from vllm import LLM

        from serving.engine import engine_options

        self._spec = spec
        if spec.method == "propulsion":
            self._llm = LLM(**engine_options(spec.base, **spec.options))
        else:
            self._llm = LLM(model=str(spec.base), **spec.options)

    def generate(self, folders: Sequence[Path | None], num_tokens: int) -> float:
        """Seconds for a batch of prompts."""
        from vllm import SamplingParams

        sampling = SamplingParams(
            temperature=0.0, max_tokens=num_tokens, ignore_eos=True, detokenize=False
        )
        # No two prompts alike, none of them text: lengths are what counts.
        prompts = [
            {"prompt_token_ids": [1, *range(3 + i % 90, 3 + i % 90 + self._spec.prompt - 1)]}
            for i in range(len(folders))
        ]
        requests: Any = None
        if self._spec.method != "base":
            requests = [folder and self._request_for(folder) for folder in folders]
        start = time.perf_counter()
        self._llm.generate(prompts, sampling, lora_request=requests, use_tqdm=False)
        return time.perf_counter() - start

    def first_token_seconds(self, folder: Path) -> tuple[float, float]:
        """With the loading of the adapter, and again without it."""
        from adapters import AdapterVersion
        from serving.engine import load_adapter

        start = time.perf_counter()
        load_adapter(self._llm, AdapterVersion(folder.name, "v1", folder))
        cold = time.perf_counter() - start + self.generate([folder], 1)
        return cold, self.generate([folder], 1)

    def _request_for(self, folder: Path) -> Any:
        from vllm.lora.request import LoRARequest

        from adapters import AdapterVersion
        from serving.engine import adapter_request

        if self._spec.method == "lora":
            number = 1 + int(folder.name.rpartition("-")[2])
            return LoRARequest(folder.name, number, str(folder))
        return adapter_request(AdapterVersion(folder.name, "v1", folder))
