"""Tasks that several wait for, and that outlive them."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def shared_task(coroutine: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
    """A task whose error is no news to asyncio when all who waited for it have left."""
    task = asyncio.create_task(coroutine)
    task.add_done_callback(lambda done: done.cancelled() or done.exception())
    return task
