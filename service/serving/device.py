"""One worker per device: asks the scheduler what runs next, runs some layers of it, hands the results back.

A step ends when one of it is through, or between two layers when something came that goes first or fits in.  What is
not through goes back to the scheduler with the work that is left.
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
from dataclasses import dataclass, field, replace

from service.errors import (
    DeadlineExceeded,
    QueueFull,
    ServiceError,
    TooLarge,
    Unavailable,
)
from service.metrics import Metrics
from service.serving.admission import retry_after
from service.serving.isolation import Runner, run_apart
from service.serving.scheduler import Job, Limits, Policy, Scheduler
from service.serving.stepping import Progress
from service.serving.tickets import Outcome, Ticket, outcomes, timings
from service.types import ModelRef, Priority, Sequence, Timings

log = logging.getLogger(__name__)
Clock = Callable[[], float]


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
    _tickets: dict[int, Ticket] = field(default_factory=dict)
    _runners: dict[ModelRef, Runner] = field(default_factory=dict)
    _keys: "itertools.count[int]" = field(default_factory=itertools.count)
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _running: list[Job] = field(default_factory=list)  # in the step
    _stop: bool = False  # the step is to end between layers; the device's thread reads it
    _busy_until: float = 0.0
    _look_up: float = 0.0  # seconds between two looks at ``_stop``

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

    @property
    def backlog(self) -> float:
        """Seconds of the device that wait."""
        return self._scheduler.cost

    async def submit(
        self, runner: Runner, rows: Seq[Sequence], *, deadline: float, priority: Priority = Priority.INTERACTIVE,
        early_exit: bool = True,
    ) -> tuple[list[Outcome], Timings]:  # fmt: skip
        """Each row's logits, or the error that it alone failed with, and where the time went.

        ``deadline`` is on the worker's clock; without ``early_exit`` all layers run.  QueueFull, TooLarge or
        DeadlineExceeded at once where the rows cannot be served in time; DeadlineExceeded later where the deadline
        passes.  Cancelling the caller drops the work.
        """
        now = self.clock()
        loop = asyncio.get_running_loop()
        tickets: dict[int, Ticket] = {}
        for row in rows:
            start, key = Progress(row, early_exit), next(self._keys)
            job = Job(
                key, runner.ref, len(row), _cost(runner, start), now, deadline, priority, runner.stepping.lane(start)
            )
            tickets[key] = Ticket(runner, start, job, loop.create_future())
        jobs = [ticket.job for ticket in tickets.values()]
        self._admit(runner, jobs, now)
        for job in jobs:
            self._scheduler.add(job)
            self._stop = self._stop or self._passes(job)
        self._tickets |= tickets
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
        return outcomes(futures), timings(list(tickets.values()))

    def _admit(self, runner: Runner, jobs: Seq[Job], now: float) -> None:
        """Refuse now what would be late anyway: a client that hears so at once can still go elsewhere."""
        if not self.healthy:
            raise Unavailable("the device is down and being restarted; try again in a moment")
        deadline, left = jobs[0].deadline, jobs[0].deadline - now
        if deadline <= now:
            raise _late()
        tokens = sum(job.tokens for job in jobs)
        own = runner.cost.seconds(tokens, runner.budget)
        refusal: ServiceError | None = None
        if tokens > self.max_queue_tokens:
            refusal = TooLarge(
                f"the request has {tokens} tokens, and at most {self.max_queue_tokens} may wait: send it in parts"
            )
        elif self._scheduler.tokens + tokens > self.max_queue_tokens:
            refusal = _busy("too much waits for the device already", self.backlog + max(0.0, self._busy_until - now))
        elif own > left:
            refusal = DeadlineExceeded(
                f"{tokens} tokens take about {own:.1f} s here, longer than the deadline: send less, or a "
                "later X-Deadline-Ms"
            )
        else:  # asked last, for it walks through what waits
            ahead = self._ahead(max(jobs, key=lambda job: job.cost), now)
            if ahead + own > left:
                refusal = _busy("what waits before it would make it miss its deadline", ahead + own - left)
        if refusal:
            self.metrics.dropped.labels("refused").inc(len(jobs))
            raise refusal

    def _ahead(self, job: Job, now: float) -> float:
        """Seconds of the device before ``job``: of what waits, and of the step that runs."""
        running = max(0.0, self._busy_until - now)
        if self._passes(job):
            running = min(running, self._look_up)
        return self._scheduler.ahead(job.cost, now, job.priority) + running

    def _passes(self, job: Job) -> bool:
        if not self._running:
            return False
        runner = self._runners[self._running[0].model]
        return self._scheduler.passes(job, self._running, _limits(runner))

    def _drop(self, tickets: dict[int, Ticket], reason: str) -> None:
        """Forget tickets that are still open.  One that is in a running step stays there; nobody reads its result."""
        for key, ticket in tickets.items():
            if self._tickets.pop(key, None) and not ticket.future.done():
                ticket.future.cancel()
                self.metrics.dropped.labels(reason).inc()
            elif not ticket.future.cancelled():
                ticket.future.exception()  # read by nobody else where the caller left, and asyncio would complain
            self._scheduler.remove(key)
        self._stop = self._stop or not any(job.key in self._tickets for job in self._running)  # it runs for nobody
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
            limits = {ref: _limits(runner) for ref, runner in self._runners.items()}
            self._running, self._stop = self._scheduler.next_step(limits), False
            self._gauge()
            if self._running:
                await self._step([self._tickets[job.key] for job in self._running])
            else:
                self._wake.clear()
                await self._wake.wait()

    async def _step(self, tickets: list[Ticket]) -> None:
        runner, group = tickets[0].runner, [ticket.progress for ticket in tickets]
        stepping, tokens = runner.stepping, sum(map(len, group))
        began = self.clock()
        expected = tokens * stepping.end(group) / stepping.layers
        self._busy_until = began + runner.cost.seconds(expected, expected)
        self._look_up = runner.cost.marginal(tokens * stepping.piece(group, runner.budget) / stepping.layers)
        soonest = min(ticket.job.deadline for ticket in tickets)
        loop = asyncio.get_running_loop()
        moved = await loop.run_in_executor(
            self.executor, run_apart, runner, group, lambda: self._stop or self.clock() >= soonest
        )
        ended = self._busy_until = self.clock()
        self._observe(runner, group, moved, ended - began)
        for ticket, outcome in zip(tickets, moved, strict=True):
            ticket.started, ticket.finished = ticket.started or began, ended
            self._settle(ticket, outcome)

    def _settle(self, ticket: Ticket, outcome: Progress | ServiceError) -> None:
        """Answer, or send on through the layers that are left."""
        runner, key = ticket.runner, ticket.job.key
        if isinstance(outcome, ServiceError):
            self.metrics.failed.labels(runner.ref.name, runner.ref.version).inc()
            self._resolve(key, outcome)
        elif outcome.logits is not None:
            self._left(runner, outcome)
            self._resolve(key, outcome.logits)
        elif key in self._tickets:  # else nobody waits for it any more
            ticket.progress = outcome
            ticket.job = replace(ticket.job, cost=_cost(runner, outcome), lane=runner.stepping.lane(outcome))
            self._scheduler.put_back(ticket.job)

    def _left(self, runner: Runner, progress: Progress) -> None:
        label = (runner.ref.name, str(runner.ref.version))
        self.metrics.exit_depth.labels(*label).observe(progress.depth)
        saved = len(progress) * (runner.stepping.layers - progress.depth)
        self.metrics.layers.labels(*label, "saved").inc(saved)

    def _observe(
        self, runner: Runner, group: Seq[Progress], moved: Seq[Progress | ServiceError], seconds: float
    ) -> None:
        label = (runner.ref.name, str(runner.ref.version))
        tokens, longest = sum(map(len, group)), max(map(len, group))
        layers = sum(
            len(before) * (after.depth - before.depth)
            for before, after in zip(group, moved, strict=True)
            if isinstance(after, Progress)
        )
        if layers:
            runner.cost.observe(layers / runner.stepping.layers, seconds)
        self.metrics.steps.labels(*label).inc()
        self.metrics.step_sequences.labels(*label).observe(len(group))
        self.metrics.step_tokens.labels(*label).observe(tokens)
        self.metrics.layers.labels(*label, "run").inc(layers)
        self.metrics.padding_avoided.labels(*label).inc(len(group) * longest - tokens)
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


def _limits(runner: Runner) -> Limits:
    return Limits(runner.budget, runner.padding)


def _cost(runner: Runner, progress: Progress) -> float:
    """Seconds of the device that are expected to lie before it."""
    return runner.cost.marginal(len(progress) * runner.stepping.left(progress))


def _busy(why: str, seconds: float) -> QueueFull:
    return QueueFull(f"{why}; if this happens a lot, add workers or devices", retry_after(seconds))


def _late() -> DeadlineExceeded:
    return DeadlineExceeded("the deadline passed before the answer was there; the work was dropped")
