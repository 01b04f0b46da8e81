"""A device that is kept busy."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator

from service.sharing.host import Host
from tests.fakes import until


@contextlib.asynccontextmanager
async def held(host: Host) -> AsyncIterator[None]:
    """The thread of its device is busy for as long as the block."""
    entered, release = threading.Event(), threading.Event()

    def wait() -> None:
        entered.set()
        release.wait(20)

    busy = asyncio.get_running_loop().run_in_executor(None, host.device.between_steps, wait)
    await until(entered.is_set)
    try:
        yield
    finally:
        release.set()
        await busy
