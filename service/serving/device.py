"""One worker per device: admits what can be served in time, runs it step after step, hands the results back.

A step ends when one of it is through, or between two layers when something came that goes first or fits in.  What is
not through goes back to the queue with the work that is left.
This is where blocking work leaves the event loop: to one thread, which alone touches the device.  It takes the next
step from the queue by itself and goes on for as long as there is one; the loop hands out the answers meanwhile.
Every future is answered exactly once, by a result, an error or its own cancellation.
"""

import asyncio
import contextlib
import itertools
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence as Seq
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field

from service.errors import DeadlineExceeded, QueueFull, ServiceError, TooLarge, Unavailable
from service.metrics import Metrics
from service.serving.admission import retry_after
from service.serving.isolation import Runner, run_apart
from service.serving.queue import Queue, cost
from service.serving.scheduler import Job, Policy
from service.serving.stepping import Progress
from service.serving.tickets import Outcome, Ticket, outcomes, timings
from service.types import Priority, Sequence, Timings

log = logging.getLogger(__name__)
Clock = Callable[[], float]
TURN = 0.1  # seconds of steps, then whatever else is to run in the device's thread gets its turn: a model that loads


@dataclass(frozen=True, slots=True)
class Step:
    """One that ran: who was in it, with what tokens each, and what became of each.

    ``layers`` are those that ran, times tokens; ``seconds`` is what they took.
    """

    runner: Runner
    tickets: Seq[Ticket]
    lengths: Seq[int]
    after: Seq[Progress | ServiceError]
    layers: int
    seconds: float


@dataclass(slots=True)
class Worker:
    """The device's worker.  ``async with worker.running():`` starts and stops it."""

    metrics: Metrics
    policy: Policy = field(default_factory=Policy)
    max_queue_tokens: int = 262_144
    clock: Clock = time.monotonic
    executor: Executor = field(default_factory=lambda: ThreadPoolExecutor(1, thread_name_prefix="device"))
    healthy: bool = False
    _queue: Queue = field(init=False)
    _keys: "itertools.count[int]" = field(default_factory=itertools.count)
    _wake: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self._queue = Queue(self.policy)

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
        return self._queue.cost

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
        tickets: list[Ticket] = []
        for row in rows:
            start, key = Progress(row, early_exit), next(self._keys)
            job = Job(
                key, runner.ref, len(row), cost(runner, start), now, deadline, priority, runner.stepping.lane(start)
            )
            tickets.append(Ticket(runner, start, job, loop.create_future()))
        self._admit(runner, [ticket.job for ticket in tickets], now)
        self._queue.add(tickets)
        self._gauge()
        self._wake.set()
        futures = [ticket.future for ticket in tickets]
        try:
            async with asyncio.timeout(deadline - now):
                await asyncio.wait(futures)
        except TimeoutError:
            self._drop(tickets, "deadline")
            raise _late() from None
        finally:
            self._drop(tickets, "cancelled")
        return outcomes(futures), timings(tickets)

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
        elif self._queue.tokens + tokens > self.max_queue_tokens:
            refusal = _busy("too much waits for the device already", self.backlog + self._queue.left(now))
        elif own > left:
            refusal = DeadlineExceeded(
                f"{tokens} tokens take about {own:.1f} s here, longer than the deadline: send less, or a "
                "later X-Deadline-Ms"
            )
        else:  # asked last, for it walks through what waits
            ahead = self._queue.ahead(max(jobs, key=lambda job: job.cost), now)
            if ahead + own > left:
                refusal = _busy("what waits before it would make it miss its deadline", ahead + own - left)
        if refusal:
            self.metrics.dropped.labels("refused").inc(len(jobs))
            raise refusal

    def _drop(self, tickets: Seq[Ticket], reason: str) -> None:
        """Forget those of ``tickets`` that are still open."""
        dropped = self._queue.drop(ticket.job.key for ticket in tickets)
        if dropped:
            self.metrics.dropped.labels(reason).inc(len(dropped))
            self._gauge()
        for ticket in tickets:
            if not ticket.future.done():
                ticket.future.cancel()
            elif not ticket.future.cancelled():
                ticket.future.exception()  # read by nobody else where the caller left, and asyncio would complain

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
        loop = asyncio.get_running_loop()
        while True:
            self._wake.clear()
            if not self._queue:
                await self._wake.wait()
            await loop.run_in_executor(self.executor, self._turn, loop)

    def _turn(self, loop: asyncio.AbstractEventLoop) -> None:
        """Step after step while there are any, in the device's thread; ``loop`` is told of each."""
        end = self.clock() + TURN
        while self.clock() <= end:
            late, tickets = self._queue.take(self.clock())
            if late:
                loop.call_soon_threadsafe(self._tell_late, late)
            if not tickets:
                return
            self._gauge()
            step = self._run(tickets)
            loop.call_soon_threadsafe(self._tell, step)

    def _run(self, tickets: Seq[Ticket]) -> Step:
        runner, group = tickets[0].runner, [ticket.progress for ticket in tickets]
        soonest = min(ticket.job.deadline for ticket in tickets)
        began = self.clock()
        moved = run_apart(runner, group, lambda: self._queue.stopping or self.clock() >= soonest)
        ended = self.clock()
        layers = sum(
            len(was) * (now.depth - was.depth)
            for was, now in zip(group, moved, strict=True)
            if isinstance(now, Progress)
        )
        if layers:
            runner.cost.observe(layers / runner.stepping.layers, ended - began)
        for ticket in tickets:
            ticket.started, ticket.finished = ticket.started or began, ended
        unfinished = (
            (ticket, now)
            for ticket, now in zip(tickets, moved, strict=True)
            if isinstance(now, Progress) and now.logits is None
        )
        self._queue.put_back(unfinished, ended)
        return Step(runner, tickets, [*map(len, group)], moved, layers, ended - began)

    def _tell(self, step: Step) -> None:
        """Hand out the answers of a step, then count: a metric that fails must keep nobody waiting."""
        for ticket, now in zip(step.tickets, step.after, strict=True):
            if isinstance(now, ServiceError):
                self._resolve(ticket.job.key, now)
            elif now.logits is not None:
                self._resolve(ticket.job.key, now.logits)
        self._observe(step)

    def _tell_late(self, keys: Iterable[int]) -> None:
        for key in keys:
            if self._resolve(key, _late()):
                self.metrics.dropped.labels("deadline").inc()
        self._gauge()

    def _observe(self, step: Step) -> None:
        runner, lengths = step.runner, step.lengths
        label, tokens = (runner.ref.name, str(runner.ref.version)), sum(lengths)
        self.metrics.steps.labels(*label).inc()
        self.metrics.step_sequences.labels(*label).observe(len(lengths))
        self.metrics.step_tokens.labels(*label).observe(tokens)
        self.metrics.layers.labels(*label, "run").inc(step.layers)
        self.metrics.padding_avoided.labels(*label).inc(len(lengths) * max(lengths) - tokens)
        self.metrics.device_busy.inc(step.seconds)
        self.metrics.token_budget.labels(*label).set(runner.budget)  # out of memory halves it
        for name, value in zip(("per_step", "per_token"), runner.cost.coefficients, strict=True):
            self.metrics.cost.labels(*label, name).set(value)
        for now in step.after:
            if isinstance(now, ServiceError):
                self.metrics.failed.labels(*label).inc()
            elif now.logits is not None:
                self.metrics.exit_depth.labels(*label).observe(now.depth)
                saved = len(now) * (runner.stepping.layers - now.depth)
                self.metrics.layers.labels(*label, "saved").inc(saved)
        self._gauge()

    def _resolve(self, key: int, outcome: Outcome) -> bool:
        """Answer, if anyone still waits."""
        ticket = self._queue.pop(key)
        if ticket is None or ticket.future.done():
            return False
        if isinstance(outcome, ServiceError):
            ticket.future.set_exception(outcome)
        else:
            ticket.future.set_result(outcome)
        return True

    def _fail_all(self, error: ServiceError) -> None:
        for ticket in self._queue.drop_all():
            if not ticket.future.done():
                ticket.future.set_exception(error)
        self._gauge()

    def _gauge(self) -> None:
        self.metrics.queue_sequences.set(len(self._queue))
        self.metrics.queue_tokens.set(self._queue.tokens)


def _busy(why: str, seconds: float) -> QueueFull:
    return QueueFull(f"{why}; if this happens a lot, add workers or devices", retry_after(seconds))


def _late() -> DeadlineExceeded:
    return DeadlineExceeded("the deadline passed before the answer was there; the work was dropped")
