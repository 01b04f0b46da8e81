"""Two ways to load a service.

Open loop: requests come by chance at a rate, as from many people, whether or not earlier ones were answered.  A latency
counts from when the request was due, so a service that stalls pays for all that came meanwhile ("no coordinated
omission", Tene 2015).  Closed loop: so many clients, each asking again once it is answered; it finds the most that a
service can do, and its latencies say little.
"""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp

from .traffic import Ask

Send = Callable[[Ask], Awaitable[int]]
Told = Callable[[], object]
NO_ANSWER = 0  # the status of a request whose connection failed or that was never answered
PATIENCE = 120.0  # seconds that an answer may take


@dataclass(frozen=True, slots=True)
class Sample:
    """One request: ``due`` in seconds after the start, ``seconds`` from then to its answer, ``late`` was it sent."""

    kind: str
    due: float
    seconds: float
    late: float
    status: int


@asynccontextmanager
async def sender(url: str, key: str | None = None) -> AsyncIterator[Send]:
    """Requests to ``url``, over as many connections as there are requests at once."""
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
    timeout = aiohttp.ClientTimeout(total=PATIENCE)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(url, headers=headers, timeout=timeout, connector=connector) as session:

        async def send(ask: Ask) -> int:
            try:
                async with session.post(ask.route, data=ask.body) as response:
                    await response.read()
                    return response.status
            except (aiohttp.ClientError, TimeoutError):
                return NO_ANSWER

        yield send


async def open_loop(
    send: Send, asks: Iterator[Ask], rate: float, seconds: float, seed: int = 0, told: Told = lambda: None
) -> list[Sample]:
    """``rate`` requests a second on average, for so long; returns once all are answered."""
    draw, samples = random.Random(seed), list[Sample]()
    began, due = time.perf_counter(), draw.expovariate(rate)

    async def one(ask: Ask, due: float, late: float) -> None:
        status = await send(ask)
        samples.append(Sample(ask.kind, due, time.perf_counter() - began - due, late, status))
        told()

    async with asyncio.TaskGroup() as group:
        while due < seconds:
            await asyncio.sleep(max(0.0, due - (time.perf_counter() - began)))
            late = time.perf_counter() - began - due
            group.create_task(one(next(asks), due, late))
            due += draw.expovariate(rate)
    return samples


async def closed_loop(
    send: Send, asks: Iterator[Ask], clients: int, seconds: float, told: Told = lambda: None
) -> list[Sample]:
    """``clients`` that ask one after the other, for so long; returns once all are answered."""
    samples: list[Sample] = []
    began = time.perf_counter()

    async def client() -> None:
        while (due := time.perf_counter() - began) < seconds:
            ask = next(asks)
            status = await send(ask)
            samples.append(Sample(ask.kind, due, time.perf_counter() - began - due, 0.0, status))
            told()

    async with asyncio.TaskGroup() as group:
        for _ in range(clients):
            group.create_task(client())
    return samples
