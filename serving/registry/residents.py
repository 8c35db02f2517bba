"""An adapter in the engine, as the server keeps account of it."""

import asyncio
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from serving.registry.servable import Servable


class LoadMetrics(Protocol):
    """What the loader tells the metrics."""

    adapters_loaded: Any

    def load(self) -> AbstractContextManager[None]: ...
    def count_hit(self) -> None: ...
    def count_miss(self) -> None: ...
    def count_eviction(self) -> None: ...
    def count_unload(self) -> None: ...


@dataclass(eq=False, slots=True)
class Resident:
    """An adapter that the engine holds or is being given.

    Attributes:
        servable: what it is.
        request: the LoRARequest that makes vLLM apply it; None until it is loaded.
        labels: names of its own head's labels; None if it has no head.
        users: requests that run with it or wait for it.
        leaving: to be dropped when its last user has ended.
        loaded_at, last_used: seconds since the epoch; loaded_at is 0 until it is loaded.
        load_seconds: from the first request for it until it was loaded.
        task: the load.
    """

    servable: Servable
    request: Any = None
    labels: Mapping[int, str] | None = None
    users: int = 0
    leaving: bool = False
    loaded_at: float = 0.0
    last_used: float = field(default_factory=time.time)
    load_seconds: float = 0.0
    task: "asyncio.Task[None] | None" = None
