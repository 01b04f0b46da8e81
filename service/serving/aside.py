"""Work that goes to the device in pieces between its steps, such as one text's layers one by one.

A thread beside the loop goes from piece to piece; there are few, and few requests may wait for one.
"""

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from ..errors import QueueFull
from .admission import late
from .depths import InDeviceThread

T = TypeVar("T")
THREADS = 2
MOST = 32  # requests, those that run included
RETRY_SECONDS = 1.0


class Aside:
    """``on_refusal`` is told the cause."""

    def __init__(self, between_steps: InDeviceThread, on_refusal: Callable[[str], None] = lambda cause: None) -> None:
        self._between_steps = between_steps
        self._on_refusal = on_refusal
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="aside")
        self._inside = 0

    async def run(self, deadline: float, work: Callable[[InDeviceThread], T]) -> T:
        """``work`` in a thread; it is given what runs a piece in the device's thread, and waits for it.

        QueueFull at once where too many wait; DeadlineExceeded where ``deadline`` passes before the end.  No piece
        begins once the caller is gone.
        """
        if self._inside >= MOST:
            self._on_refusal("explaining")
            raise QueueFull("too many explanations are being made; come back after Retry-After", RETRY_SECONDS)
        gone = threading.Event()

        def piece(one: Callable[[], Any]) -> Any:
            if gone.is_set():
                raise late()
            return self._between_steps(one)

        self._inside += 1
        try:
            async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                return await asyncio.get_running_loop().run_in_executor(self._threads, work, piece)
        except TimeoutError:
            raise late() from None
        finally:
            gone.set()
            self._inside -= 1

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
