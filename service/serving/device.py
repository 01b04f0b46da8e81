"""One worker per device: asks the scheduler what runs next, runs it, hands the results back.

This is where blocking work leaves the event loop: one hop a step, to one thread, which alone touches the device.
Every future is answered exactly once, by a result, an error or its own cancellation.
"""

import asyncio
import contextlib
import itertools
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence as Seq
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from service.errors import (
    DeadlineExceeded,
    InferenceFailed,
    OutOfMemory,
    QueueFull,
    ServiceError,
    TooLarge,
    Unavailable,
)
from service.metrics import Metrics
from service.serving.admission import CostModel, retry_after
from service.serving.scheduler import Job, Policy, Scheduler
from service.types import Floats, ModelRef, Priority, Sequence, Timings

log = logging.getLogger(__name__)
Clock = Callable[[], float]
Outcome = Floats | ServiceError


class Runner(Protocol):
    """What the worker needs of a model: its name, its budget in tokens, its cost, and how to run some sequences."""

    @property
    def ref(self) -> ModelRef: ...

    budget: int
    cost: CostModel

    def run(self, rows: Seq[Sequence]) -> list[Floats]: ...


@dataclass(slots=True)
class _Ticket:
    runner: Runner
    sequence: Sequence
    future: "asyncio.Future[Floats]"
    submitted: float
    started: float = 0.0
    finished: float = 0.0


@dataclass(slots=True)
class Worker:
    """The device's worker.  ``async with worker.running():`` starts and stops it."""

    metrics: Metrics
    policy: Policy = field(default_factory=Policy)
    max_queue_tokens: int = 262_144
    clock: Clock = time.monotonic
    executor: Executor = field(default_factory=lambda: ThreadPoolExecutor(1, thread_name_prefix="device"))
    healthy: bool = False
    _scheduler: Scheduler = field(init=False)
    _tickets: dict[int, _Ticket] = field(default_factory=dict)
    _runners: dict[ModelRef, Runner] = field(default_factory=dict)
    _keys: "itertools.count[int]" = field(default_factory=itertools.count)
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _busy_until: float = 0.0

    def __post_init__(self) -> None:
        self._scheduler = Scheduler(self.policy)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["Worker"]:
        task = asyncio.create_task(self._supervise(), name="device worker")
        self.healthy = True
        try:
            yield self
        finally:
            self.healthy = False
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            self._fail_all(Unavailable("the service has stopped"))
            self.executor.shutdown(wait=True)

    async def submit(
        self, runner: Runner, rows: Seq[Sequence], *, deadline: float, priority: Priority = Priority.INTERACTIVE
    ) -> tuple[list[Outcome], Timings]:
        """Each row's logits, or the error that it alone failed with, and where the time went.

        ``deadline`` is on the worker's clock.  QueueFull, TooLarge or DeadlineExceeded at once where the rows cannot
        be served in time; DeadlineExceeded later where the deadline passes.  Cancelling the caller drops the work.
        """
        now = self.clock()
        self._admit(runner, rows, now, deadline, priority)
        loop = asyncio.get_running_loop()
        tickets = {next(self._keys): _Ticket(runner, row, loop.create_future(), now) for row in rows}
        self._tickets |= tickets
        for key, ticket in tickets.items():
            tokens = len(ticket.sequence)
            self._scheduler.add(Job(key, runner.ref, tokens, runner.cost.marginal(tokens), now, deadline, priority))
        self._runners[runner.ref] = runner
        self._gauge()
        self._wake.set()
        futures = [ticket.future for ticket in tickets.values()]
        try:
            async with asyncio.timeout(deadline - now):
                await asyncio.wait(futures)
        except TimeoutError:
            self._drop(tickets, "deadline")
            raise _late() from None
        finally:
            self._drop(tickets, "cancelled")
        return _outcomes(futures), _timings(list(tickets.values()))

    def _admit(self, runner: Runner, rows: Seq[Sequence], now: float, deadline: float, priority: Priority) -> None:
        """Refuse now what would be late anyway: a client that hears so at once can still go elsewhere."""
        if not self.healthy:
            raise Unavailable("the device is down and being restarted; try again in a moment")
        if deadline <= now:
            raise _late()
        tokens, left = sum(len(row) for row in rows), deadline - now
        own = runner.cost.seconds(tokens, runner.budget)
        running = max(0.0, self._busy_until - now)  # what is left of the step that runs
        refusal: ServiceError | None = None
        if tokens > self.max_queue_tokens:
            refusal = TooLarge(
                f"the request has {tokens} tokens, and at most {self.max_queue_tokens} may wait: send it in parts"
            )
        elif self._scheduler.tokens + tokens > self.max_queue_tokens:
            refusal = _busy("too much waits for the device already", self._scheduler.cost + running)
        elif own > left:
            refusal = DeadlineExceeded(
                f"{tokens} tokens take about {own:.1f} s here, longer than the deadline: send less, or a "
                "later X-Deadline-Ms"
            )
        else:  # asked last, for it walks through what waits
            ahead = self._scheduler.ahead(runner.cost.marginal(tokens) / len(rows), now, priority) + running
            if ahead + own > left:
                refusal = _busy("what waits before it would make it miss its deadline", ahead + own - left)
        if refusal:
            self.metrics.dropped.labels("refused").inc(len(rows))
            raise refusal

    def _drop(self, tickets: dict[int, _Ticket], reason: str) -> None:
        """Forget tickets that are still open.  One that is in a running step stays there; nobody reads its result."""
        for key, ticket in tickets.items():
            if self._tickets.pop(key, None) and not ticket.future.done():
                ticket.future.cancel()
                self.metrics.dropped.labels(reason).inc()
            elif not ticket.future.cancelled():
                ticket.future.exception()  # read by nobody else where the caller left, and asyncio would complain
            self._scheduler.remove(key)
        self._gauge()

    async def _supervise(self) -> None:
        """Keep the worker alive: whatever ends it, everyone who waits is told, and it starts again."""
        while True:
            try:
                await self._work()
            except Exception:
                log.exception("the device worker ended, which is a bug or a lost device; starting it again")
                self.healthy = False
                self._fail_all(Unavailable("the device failed and is being restarted"))
                await asyncio.sleep(0.5)
                self.healthy = True

    async def _work(self) -> None:
        while True:
            for job in self._scheduler.expire(self.clock()):
                self._resolve(job.key, _late())
                self.metrics.dropped.labels("deadline").inc()
            # A version that nobody asks any more must not be kept in memory from here.
            self._runners = {ref: runner for ref, runner in self._runners.items() if self._scheduler.waiting(ref)}
            jobs = self._scheduler.next_step({ref: runner.budget for ref, runner in self._runners.items()})
            self._gauge()
            if jobs:
                await self._step([self._tickets[job.key] for job in jobs], [job.key for job in jobs])
            else:
                self._wake.clear()
                await self._wake.wait()

    async def _step(self, tickets: list[_Ticket], keys: list[int]) -> None:
        runner, rows = tickets[0].runner, [ticket.sequence for ticket in tickets]
        tokens = sum(len(row) for row in rows)
        began = self.clock()
        self._busy_until = began + runner.cost.seconds(tokens, tokens)
        loop = asyncio.get_running_loop()
        outcomes = await loop.run_in_executor(self.executor, run_apart, runner, rows)
        ended = self._busy_until = self.clock()
        self._observe(runner, rows, tokens, ended - began)
        for key, ticket, outcome in zip(keys, tickets, outcomes, strict=True):
            ticket.started, ticket.finished = began, ended
            if isinstance(outcome, ServiceError):
                self.metrics.failed.labels(runner.ref.name, runner.ref.version).inc()
            self._resolve(key, outcome)

    def _observe(self, runner: Runner, rows: Seq[Sequence], tokens: int, seconds: float) -> None:
        runner.cost.observe(tokens, seconds)
        label = (runner.ref.name, str(runner.ref.version))
        self.metrics.steps.labels(*label).inc()
        self.metrics.step_sequences.labels(*label).observe(len(rows))
        self.metrics.step_tokens.labels(*label).observe(tokens)
        self.metrics.padding_avoided.labels(*label).inc(len(rows) * max(map(len, rows)) - tokens)
        self.metrics.device_busy.inc(seconds)
        self.metrics.token_budget.labels(*label).set(runner.budget)  # out of memory halves it
        for name, value in zip(("per_step", "per_token"), runner.cost.coefficients, strict=True):
            self.metrics.cost.labels(*label, name).set(value)

    def _resolve(self, key: int, outcome: Outcome) -> None:
        ticket = self._tickets.pop(key, None)
        if ticket is None or ticket.future.done():
            return
        if isinstance(outcome, ServiceError):
            ticket.future.set_exception(outcome)
        else:
            ticket.future.set_result(outcome)

    def _fail_all(self, error: ServiceError) -> None:
        for key in list(self._tickets):
            self._scheduler.remove(key)
            self._resolve(key, error)
        self._gauge()

    def _gauge(self) -> None:
        self.metrics.queue_sequences.set(len(self._scheduler))
        self.metrics.queue_tokens.set(self._scheduler.tokens)


def run_apart(runner: Runner, rows: Seq[Sequence]) -> list[Outcome]:
    """Run ``rows`` together; where that fails, in halves, until what fails stands alone.  In the device's thread."""
    try:
        outcomes: list[Outcome] = [_finite(logits) for logits in runner.run(rows)]
        return outcomes
    except Exception as error:
        if isinstance(error, OutOfMemory) and len(rows) > 1:
            runner.budget = max(1, sum(len(row) for row in rows) // 2)
            log.warning(
                "%s: out of memory, the budget is now %d tokens; set token_budget lower", runner.ref, runner.budget
            )
        if len(rows) == 1:
            log.error("%s failed on a sequence of %d tokens", runner.ref, len(rows[0]), exc_info=error)
            return [InferenceFailed("the model failed on this text; the log says why")]
        half = len(rows) // 2
        return run_apart(runner, rows[:half]) + run_apart(runner, rows[half:])


def _finite(logits: Floats) -> Outcome:
    if np.isfinite(logits).all():
        return logits
    log.error("logits that are not finite; a half-precision overflow does this, float32 does not")
    return InferenceFailed("the model gave no finite answer on this text")


def _outcomes(futures: Seq["asyncio.Future[Floats]"]) -> list[Outcome]:
    """A row that the model failed on keeps its error to itself; any other error is everybody's."""
    errors = [future.exception() for future in futures]  # all are read, or asyncio reports the others as forgotten
    for error in errors:
        if error is not None and not isinstance(error, InferenceFailed):
            raise error
    return [
        error if isinstance(error, InferenceFailed) else future.result()
        for error, future in zip(errors, futures, strict=True)
    ]


def _timings(tickets: list[_Ticket]) -> Timings:
    last = max(tickets, key=lambda ticket: ticket.finished)
    return Timings(queue=max(0.0, last.started - last.submitted), run=last.finished - last.started)


def _busy(why: str, seconds: float) -> QueueFull:
    return QueueFull(f"{why}; if this happens a lot, add workers or devices", retry_after(seconds))


def _late() -> DeadlineExceeded:
    return DeadlineExceeded("the deadline passed before the answer was there; the work was dropped")
