"""Looks at the repository from time to time and has the registry keep up with it."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

from service.serving.registry import Registry

log = logging.getLogger(__name__)


@contextlib.asynccontextmanager
async def watch(registry: Registry, seconds: float, now: asyncio.Event) -> AsyncIterator[None]:
    """Load what there is, in the background, then look again every ``seconds`` (0: never) and when ``now`` is set."""
    task = asyncio.create_task(_watch(registry, seconds, now), name="repository watcher")
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


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
