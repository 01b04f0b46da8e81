"""Looks at the repository from time to time and has the registry keep up with it."""

import asyncio
import contextlib
import logging
from contextlib import AbstractAsyncContextManager

from ..background import background
from .registry import Registry

log = logging.getLogger(__name__)


def watch(registry: Registry, seconds: float, now: asyncio.Event) -> AbstractAsyncContextManager[None]:
    """Load what there is, in the background, then look again every ``seconds`` (0: never) and when ``now`` is set."""
    return background(_watch(registry, seconds, now), "repository watcher")


async def _watch(registry: Registry, seconds: float, now: asyncio.Event) -> None:
    while True:
        now.clear()
        try:
            await registry.sync()
        except Exception:
            registry.metrics.repository_failures.inc()
            log.exception("looking at the model repository failed, which is a bug; it is looked at again")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds or None):
                await now.wait()
