"""Looks at the repository from time to time and has the registry follow it."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

from service.serving.registry import Registry

log = logging.getLogger(__name__)


@contextlib.asynccontextmanager
async def following(registry: Registry, seconds: float) -> AsyncIterator[None]:
    """Load what there is, in the background, then look again every ``seconds``; 0 looks once."""
    task = asyncio.create_task(_follow(registry, seconds), name="repository watcher")
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _follow(registry: Registry, seconds: float) -> None:
    while True:
        try:
            await registry.sync()
        except Exception:
            log.exception("looking at the model repository failed, which is a bug; it is looked at again")
        if not seconds:
            return
        await asyncio.sleep(seconds)
