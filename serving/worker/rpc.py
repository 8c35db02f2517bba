"""What the server asks of every worker beyond vLLM's LoRA calls, and the answers' way back.

A call must answer, not raise: with several ranks, vLLM leaves the other ranks' replies in their
queues when one raises, and every later call then reads the reply to an earlier one.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from propulsion import errors
from propulsion.errors import PropulsionError
from serving import vllm_compat

LOAD_METHOD = "load_propulsion_adapter"
UNLOAD_METHOD = "unload_propulsion_adapter"
PIN_METHOD = "pin_propulsion_adapter"
UNPIN_METHOD = "unpin_propulsion_adapter"
STATE_METHOD = "propulsion_state"

logger = logging.getLogger(__name__)

Failure = list[str]


class WorkerRpc:
    """Mixed into vLLM's worker by `worker_extension_cls`."""

    def load_propulsion_adapter(self, name: str, adapter_id: int, path: str) -> Failure | None:
        """Load an adapter to the host; None, or the error's class name and message."""
        request = vllm_compat.LoRARequest(name, adapter_id, path)
        return _answer(f"loading {name}", lambda: self._adapters.add_adapter(request))

    def unload_propulsion_adapter(self, adapter_id: int) -> bool:
        """Forget an adapter; whether it was loaded."""
        return bool(self._adapters.remove_adapter(adapter_id))

    def pin_propulsion_adapter(self, adapter_id: int) -> Failure | None:
        """Keep a loaded adapter in its slot; None, or the error's class name and message."""
        return _answer(f"pinning {adapter_id}", lambda: self._adapters.pin_adapter(adapter_id))

    def unpin_propulsion_adapter(self, adapter_id: int) -> None:
        """Let a pinned adapter be evicted again."""
        self._adapters.unpin_adapter(adapter_id)

    def propulsion_state(self) -> dict[str, Any]:
        """Where this rank's adapters are.

        `num_slots` and `slots_used` count bank rows, `slots` maps adapter ids to their (first) row,
        `pinned` and `host` are lists of ids, `row_bytes` is the memory of one row; `slot_hits`,
        `slot_misses` and `evictions` count since the start. `base_answers` is false if the engine
        classifies and its base has no head. `fused` maps layers that need no pass of
        their own to the kind of module that scales them.
        """
        state: dict[str, Any] = self._adapters.state()
        return state

    @property
    def _adapters(self) -> Any:
        return self.model_runner.lora_manager  # type: ignore[attr-defined]


def _answer(what: str, act: Callable[[], Any]) -> Failure | None:
    try:
        act()
    except PropulsionError as error:
        return [type(error).__name__, str(error)]
    except Exception as error:
        # Whatever it was (a store that is away, say): this call fails, the ranks stay in step.
        logger.exception("%s failed", what)
        return [PropulsionError.__name__, f"{what} failed: {error}"]
    return None


def load_arguments(request: Any) -> tuple[str, int, str]:
    """The arguments of LOAD_METHOD for a LoRARequest."""
    return request.lora_name, request.lora_int_id, request.lora_path


def raise_load_error(replies: Iterable[Sequence[str] | None]) -> None:
    """Raise the first error among the ranks' replies to LOAD_METHOD or PIN_METHOD, if any."""
    for reply in replies:
        if reply is not None:
            kind, message = reply
            raise getattr(errors, kind, PropulsionError)(message)
