"""What the routes share: the service's parts, and how a request's work is run, timed and dropped."""

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator, Iterator, Sequence as Seq
from dataclasses import dataclass, field

from fastapi import Request
from pydantic_core import to_json
from starlette.responses import Response

from service.errors import Cancelled, DeadlineExceeded, InvalidRequest, TooLarge
from service.metrics import Metrics
from service.serving.device import Worker
from service.serving.engine import Engine
from service.serving.registry import Registry
from service.serving.tickets import Outcome
from service.settings import Settings
from service.types import Priority, Sequence

LONGEST_DEADLINE_MS = 3_600_000.0
WATCH_SECONDS = 0.01  # a request that is answered by then needs nobody to see whether its client is still there


@dataclass(frozen=True, slots=True)
class Service:
    settings: Settings
    metrics: Metrics
    registry: Registry
    worker: Worker

    def check_text(self, text: str) -> None:
        if len(text) > self.settings.max_text_chars:
            raise TooLarge(
                f"a text of {len(text)} code points; at most {self.settings.max_text_chars} are taken "
                "(max_text_chars): send it in parts"
            )

    def deadline(self, request: Request) -> float:
        """On the worker's clock, from ``X-Deadline-Ms`` or the default."""
        given = request.headers.get("x-deadline-ms")
        try:
            milliseconds = float(given) if given is not None else float(self.settings.deadline_ms)
        except ValueError:
            milliseconds = math.nan
        if math.isnan(milliseconds):
            raise InvalidRequest("X-Deadline-Ms: wanted a number of milliseconds from now")
        if milliseconds <= 0:
            raise DeadlineExceeded("X-Deadline-Ms is not in the future: the deadline has passed already")
        return self.worker.clock() + min(milliseconds, LONGEST_DEADLINE_MS) / 1000


@dataclass(slots=True)
class Job:
    """One request's work on one engine, with its stages timed in seconds."""

    service: Service
    engine: Engine
    stages: dict[str, float] = field(default_factory=dict)

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.stages[name] = time.perf_counter() - began

    async def run(self, rows: Seq[Sequence], deadline: float, priority: Priority, *, early_exit: bool) -> list[Outcome]:
        outcomes, timings = await self.service.worker.submit(
            self.engine, rows, deadline=deadline, priority=priority, early_exit=early_exit
        )
        self.stages |= {"queue": timings.queue, "run": timings.run}
        return outcomes

    def respond(self, body: dict[str, object]) -> Response:
        """The answer, with the time by stage in ``Server-Timing`` and in the metrics."""
        ref = self.engine.ref
        for name, seconds in self.stages.items():
            self.service.metrics.stage_seconds.labels(ref.name, ref.version, name).observe(seconds)
        timing = ", ".join(f"{name};dur={seconds * 1000:.2f}" for name, seconds in self.stages.items())
        model = {"model": {"name": ref.name, "version": ref.version}}
        content = to_json(model | body, inf_nan_mode="null")
        return Response(content, media_type="application/json", headers={"Server-Timing": timing})


@contextlib.asynccontextmanager
async def while_connected(request: Request) -> AsyncIterator[None]:
    """Cancels its body when the client goes: the work is then dropped wherever it waits.  Raises Cancelled."""
    task = asyncio.current_task()
    watcher: asyncio.Task[None] | None = None
    gone = False

    async def watch() -> None:
        nonlocal gone
        while (await request.receive())["type"] != "http.disconnect":
            pass
        gone = True
        assert task is not None
        task.cancel()

    def begin() -> None:
        nonlocal watcher
        watcher = asyncio.create_task(watch())

    timer = asyncio.get_running_loop().call_later(WATCH_SECONDS, begin)
    try:
        yield
    except asyncio.CancelledError:
        if not gone:
            raise
        assert task is not None
        task.uncancel()
        raise Cancelled("the client left before the answer was there") from None
    finally:
        timer.cancel()
        if watcher:
            watcher.cancel()
