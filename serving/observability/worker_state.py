"""Brings the workers' own counts (slots, evictions) to the metrics."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import NoReturn

from serving.observability.metrics import ServeMetrics, WorkerState

logger = logging.getLogger(__name__)


async def watch_worker_state(
    fetch: Callable[[], Awaitable[WorkerState]],
    metrics: ServeMetrics,
    interval_seconds: float = 5.0,
) -> NoReturn:
    """Put a worker's state into `metrics` again and again, until cancelled.

    Args:
        fetch: asks for it, such as `EngineAdapters.state`; may fail while the engine is away.
        metrics: where to put it.
        interval_seconds: pause between two questions, each of which the engine answers between
            two of its steps.
    """
    while True:
        try:
            metrics.set_worker_state(await fetch())
        except Exception as error:
            logger.debug("The workers' state could not be read: %s", error)
        await asyncio.sleep(interval_seconds)
