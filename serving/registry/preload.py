"""Adapters that are loaded and pinned before the first request."""

import logging
from collections.abc import Iterable

from propulsion.errors import PropulsionError
from serving.registry.loader import AdapterLoader
from serving.registry.references import parse_model
from serving.registry.resolution import Resolver

logger = logging.getLogger(__name__)


async def preload(references: Iterable[str], resolver: Resolver, loader: AdapterLoader) -> int:
    """Load and pin adapters, as `name`, `name@version`, `name@alias` or blends.

    One that fails is logged and left out: a bad adapter must not keep a server from starting.

    Returns:
        How many were loaded.
    """
    num_loaded = 0
    for reference in references:
        try:
            resolution = await resolver.resolve(parse_model(reference))
            await loader.load(resolution.servable, pin=True)
        except PropulsionError as error:
            logger.error("--preload %s: %s", reference, error)
        else:
            num_loaded += 1
    return num_loaded
