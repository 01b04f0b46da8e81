"""The stage before the device: texts to token sequences, bounded, and off the event loop where it takes long.

One thread tokenizes texts of usual size, another the long ones, so that a book does not hold up the sentences.  The
tokenizer's library lets go of the interpreter meanwhile.  What waits for a thread is bounded in code points.
"""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import ParamSpec, TypeVar

from ..errors import QueueFull
from .admission import late

P = ParamSpec("P")
T = TypeVar("T")
ON_THE_LOOP = 1_000  # code points: more take longer than a hop to a thread
LONG = 50_000  # code points
LONGEST_RETRY = 60.0  # seconds


@dataclass(slots=True)
class _Lane:
    """One thread and what waits for it; ``rate`` is in seconds a code point, of the last texts."""

    name: str
    waiting: int = 0  # code points, what the thread works on included
    rate: float = 0.0
    thread: ThreadPoolExecutor = field(init=False)

    def __post_init__(self) -> None:
        self.thread = ThreadPoolExecutor(1, thread_name_prefix=self.name)


@dataclass(slots=True)
class EncodingStage:
    """``max_chars`` may wait in each lane; deadlines are on ``clock``."""

    max_chars: int = 4_000_000
    clock: Callable[[], float] = time.monotonic
    on_refusal: Callable[[str], None] = lambda cause: None
    _short: _Lane = field(default_factory=lambda: _Lane("encode"))
    _long: _Lane = field(default_factory=lambda: _Lane("encode-long"))

    @property
    def waiting(self) -> int:
        """Code points in both lanes."""
        return self._short.waiting + self._long.waiting

    async def run(self, size: int, deadline: float, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """``work`` on ``size`` code points.

        QueueFull where the stage is full or would be done too late; DeadlineExceeded where the deadline passed before
        its turn came.
        """
        if size <= ON_THE_LOOP:
            return work(*args, **kwargs)
        lane = self._long if size > LONG else self._short
        self._check(lane, size, deadline)
        lane.waiting += size
        try:
            return await asyncio.get_running_loop().run_in_executor(
                lane.thread, lambda: self._timed(lane, size, deadline, lambda: work(*args, **kwargs))
            )
        finally:
            lane.waiting -= size

    def close(self) -> None:
        for lane in (self._short, self._long):
            lane.thread.shutdown(wait=False, cancel_futures=True)

    def _check(self, lane: _Lane, size: int, deadline: float) -> None:
        wait = lane.waiting * lane.rate
        full = lane.waiting and lane.waiting + size > self.max_chars
        if full or (lane.waiting and self.clock() + wait > deadline):
            self.on_refusal("encoding")
            raise QueueFull(
                "too much text waits to be tokenized; come back after Retry-After", min(LONGEST_RETRY, max(1.0, wait))
            )

    def _timed(self, lane: _Lane, size: int, deadline: float, work: Callable[[], T]) -> T:
        began = self.clock()
        if began >= deadline:
            raise late()
        result = work()
        # A moving average that forgets half of the past in two texts: one stall does not shut anybody out for long.
        rate = (self.clock() - began) / size
        lane.rate = rate if not lane.rate else min(0.7 * lane.rate + 0.3 * rate, 2 * lane.rate)
        return result
