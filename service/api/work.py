"""One request's work: admitted by its head, run in stages that are timed, dropped when its client leaves."""

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence as Seq
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from fastapi import Request
from starlette.responses import Response

from ..errors import Cancelled, DeadlineExceeded, InvalidRequest, ServiceError
from ..serving.admission import Reservation
from ..serving.depths import InDeviceThread
from ..serving.engine import Engine
from ..serving.pending import Outcome
from ..serving.queue import estimate
from ..types import Floats, Priority, Sequence, StepRun
from .json_parts import json_of
from .service import PRICED, Service

if TYPE_CHECKING:
    from ..tracing import Trace

T = TypeVar("T")
JSON = {"Content-Type": "application/json"}
LONGEST_DEADLINE_MS = 3_600_000.0
WATCH_SECONDS = 0.01  # a request that is answered by then needs nobody to see whether its client is still there
LONG_DECODING = 4_000  # tokens; more take longer than a hop to a thread


def begin(service: Service, request: Request, route: str) -> "RequestWork":
    """Whether there is room for a request, by its head.  DeadlineExceeded, QueueFull or InvalidRequest at once."""
    length = request.headers.get("content-length", "")
    return admit(
        service, route, client=_client(request), size=int(length) if length.isdigit() else 0,
        began=request.scope.get("state", {}).get("began", time.monotonic()),
        deadline_ms=request.headers.get("x-deadline-ms"), connected=partial(while_connected, request),
        trace=request.scope.get("state", {}).get("trace"),
    )  # fmt: skip


def admit(
    service: Service, route: str, *, client: str, size: int, began: float, deadline_ms: str | None,
    connected: Callable[[], AbstractAsyncContextManager[None]], trace: "Trace | None" = None,
) -> "RequestWork":  # fmt: skip
    """The same of a request that has ``size`` bytes and ``began`` then, by time.monotonic; ``route`` prices it."""
    deadline = began + _milliseconds(deadline_ms, service.settings.deadline_ms) / 1000
    seconds = service.guess(route, size)
    if not service.may_be_files(route, seconds, deadline):
        service.device.admission.check(client, seconds, deadline)
    return RequestWork(service, route, client, began, deadline, deadline_ms is not None, connected, trace)


def _client(request: Request) -> str:
    """Who asks, for a fair share: by key where it has one, else by address."""
    return request.scope["state"].get("client") or (request.client.host if request.client else "")


def _milliseconds(given: str | None, default: int) -> float:
    try:
        milliseconds = float(given) if given is not None else float(default)
    except ValueError:
        milliseconds = math.nan
    if math.isnan(milliseconds):
        raise InvalidRequest("X-Deadline-Ms: wanted a number of milliseconds from now")
    if milliseconds <= 0:
        raise DeadlineExceeded("X-Deadline-Ms is not in the future: the deadline has passed already")
    return min(milliseconds, LONGEST_DEADLINE_MS)


@dataclass(slots=True)
class RequestWork:
    """One request's work, with its stages timed in seconds.

    ``connected()`` cancels its body when the client leaves.
    """

    service: Service
    route: str
    client: str
    began: float
    deadline: float
    own_deadline: bool
    connected: Callable[[], AbstractAsyncContextManager[None]] = contextlib.nullcontext
    trace: "Trace | None" = None
    size: int = 0
    reservation: Reservation | None = None
    stages: dict[str, float] = field(default_factory=dict)

    def reserve(self, size: int) -> None:
        """The body is there, of ``size`` bytes.  QueueFull where there is no room any more."""
        self.size = size
        seconds = self.service.guess(self.route, size)
        seconds = 0.0 if self.service.may_be_files(self.route, seconds, self.deadline) else seconds
        self.reservation = self.service.device.admission.reserve(self.client, seconds, self.deadline, guess=True)

    def holds_files(self, size: int) -> None:
        """But for ``size`` bytes the body is files, whose bytes say nothing of the device's time."""
        self.size = size
        if self.reservation is not None:
            self.service.device.admission.resize(self.reservation, self.service.guess(self.route, size))

    def until(self, priority: Priority) -> float:
        """The deadline; bulk work has a later one, where the request gave none."""
        if priority is Priority.BULK and not self.own_deadline:
            return self.began + self.service.settings.bulk_deadline_ms / 1000
        return self.deadline

    def release(self) -> None:
        if self.reservation is not None:
            self.service.device.admission.release(self.reservation)

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        seconds = time.perf_counter() - began
        self._add(name, seconds)
        if self.trace is not None:
            self.trace.stage(name, seconds)

    def _add(self, name: str, seconds: float) -> None:
        """A stage may come twice: an explanation runs what it explains first."""
        self.stages[name] = self.stages.get(name, 0.0) + seconds

    async def encode(self, size: int, work: Callable[[], T], until: float | None = None) -> T:
        """``work`` on ``size`` code points, in its turn, which must come by ``until``, or the deadline."""
        with self.stage("encode"):
            return await self.service.encoding.run(size, self.deadline if until is None else until, work)

    async def run(
        self, engine: Engine, rows: Seq[Sequence], priority: Priority, *, early_exit: bool, usual: bool = True
    ) -> list[Outcome]:
        """The outcome of each row.  ``usual``: what it costs tells of others of its size."""
        plan = self.service.reuse.plan(engine, rows, early_exit=early_exit)
        if self.route in PRICED and plan.rows and usual:
            self.service.prices[self.route].observe(self.size, estimate(engine, plan.rows, early_exit))
        if not plan.rows:
            self.service.reuse.keep(plan, [])
            return plan.whole([])
        outcomes = await self._submitted(engine, plan.rows, priority, early_exit=early_exit)
        self.service.reuse.keep(plan, outcomes)
        return plan.whole(outcomes)

    async def _submitted(
        self, engine: Engine, rows: Seq[Sequence], priority: Priority, *, early_exit: bool
    ) -> list[Outcome]:
        steps: list[StepRun] | None = [] if self.trace is not None and self.trace.recorded else None
        arrived = self.service.device.clock()
        outcomes, timings = await self.service.submit(
            engine, rows, deadline=self.until(priority), reservation=self.reservation, priority=priority,
            early_exit=early_exit, steps=steps,
        )  # fmt: skip
        if self.trace is not None:
            self.trace.device(arrived, steps or [], self.service.device.clock)
        self._add("queue", timings.queue)
        self._add("run", timings.run)
        return outcomes

    async def run_whole(
        self, engine: Engine, rows: Seq[Sequence], priority: Priority, *, early_exit: bool, usual: bool = True
    ) -> list[Floats]:
        """The logits of every row; the first error is the request's, for an answer without that row could be wrong."""
        logits: list[Floats] = []
        for outcome in await self.run(engine, rows, priority, early_exit=early_exit, usual=usual):
            if isinstance(outcome, ServiceError):
                raise outcome
            logits.append(outcome)
        return logits

    async def run_aside(self, work: Callable[[InDeviceThread], T]) -> T:
        """``work`` in a thread beside the loop, which goes to the device piece by piece until the deadline."""
        with self.stage("run"):
            return await self.service.aside.run(self.deadline, work)

    async def decode(self, size: int, work: Callable[[], T]) -> T:
        """``work`` on the answers to ``size`` tokens."""
        with self.stage("decode"):
            return await self.beside(size, work)

    async def beside(self, size: float, work: Callable[[], T]) -> T:
        """``work`` on the answers to ``size`` tokens: here where that is quick, beside the loop where it is not."""
        if size <= LONG_DECODING:
            return work()
        return await asyncio.get_running_loop().run_in_executor(None, work)

    def respond(self, engine: Engine, body: dict[str, object]) -> Response:
        """The answer, with the model that gave it."""
        model = {"model": {"name": engine.ref.name, "version": engine.ref.version}}
        return self.respond_json(engine, model | body)

    def respond_json(self, engine: Engine, content: object) -> Response:
        """``content`` as it is."""
        return Response(json_of(content), headers=JSON | self.timing(engine))

    def timing(self, engine: Engine) -> dict[str, str]:
        """The time by stage, for the header ``Server-Timing``; the metrics get it, too."""
        ref, exemplar = engine.ref, None
        if self.trace is not None and self.trace.recorded:
            self.trace.tell(albert_model=ref.name, albert_version=ref.version)
            exemplar = {"trace_id": self.trace.id}
        for name, seconds in self.stages.items():
            self.service.metrics.stage_seconds.labels(ref.name, ref.version, name).observe(seconds, exemplar)
        timing = ", ".join(f"{name};dur={seconds * 1000:.2f}" for name, seconds in self.stages.items())
        return {"Server-Timing": timing}


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
