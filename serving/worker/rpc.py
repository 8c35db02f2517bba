"""What the server asks of every worker beyond vLLM's LoRA calls, and the answers' way back.

A load must answer, not raise: with several ranks, vLLM leaves the other ranks' replies in their
queues when one raises, and every later call then reads the reply to an earlier one.
"""

import logging
from collections.abc import Iterable, Sequence
from typing import Any

from propulsion import errors
from propulsion.errors import PropulsionError
from serving import vllm_compat

LOAD_METHOD = "load_propulsion_adapter"

logger = logging.getLogger(__name__)


class WorkerRpc:
    """Mixed into vLLM's worker by `worker_extension_cls`."""

    def load_propulsion_adapter(self, name: str, adapter_id: int, path: str) -> list[str] | None:
        """Load an adapter to the host; None, or the error's class name and message."""
        request = vllm_compat.LoRARequest(name, adapter_id, path)
        try:
            self.model_runner.lora_manager.add_adapter(request)  # type: ignore[attr-defined]
        except PropulsionError as error:
            return [type(error).__name__, str(error)]
        except Exception as error:
            # Whatever it was (a store that is away, say): this load fails, the ranks stay in step.
            logger.exception("Loading adapter %s from %s failed", name, path)
            return [PropulsionError.__name__, f"loading {name} failed: {error}"]
        return None


def load_arguments(request: Any) -> tuple[str, int, str]:
    """The arguments of LOAD_METHOD for a LoRARequest."""
    return request.lora_name, request.lora_int_id, request.lora_path


def raise_load_error(replies: Iterable[Sequence[str] | None]) -> None:
    """Raise the first error among the ranks' replies to LOAD_METHOD, if any."""
    for reply in replies:
        if reply is not None:
            kind, message = reply
            raise getattr(errors, kind, PropulsionError)(message)
