"""The loop of one device: takes batch after batch from the queue, runs each, hands the results to the event loop.

This is where blocking work leaves the event loop: to one thread, which alone touches the device.  A thread that hangs
is given up, and whatever it computes later is not read: ``generation`` says whose results count.
Every request is answered exactly once, by its results, an error or its own cancellation.
"""

import asyncio
import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence as Seq
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field
from typing import Any, TypeVar

from ..errors import DeviceLost, ServiceError, Unavailable
from ..logs import log_for_request
from ..metrics import Metrics
from .admission import Admission, late
from .isolation import regrow, run_isolating_failures
from .pending import Outcome, PendingSequence
from .queue import Queue
from .scheduler import Policy
from .step_metrics import Step, count_step, record_step
from .stepping import Progress

log = logging.getLogger(__name__)
T = TypeVar("T")
Clock = Callable[[], float]
IDLE_SECONDS = 1.0  # how long the thread sleeps at most before it sees whether it is still wanted
BACK_TO_BACK = 0.25  # seconds between two steps, while sequences waited, that are part of what the second costs
SLICE_SHARE = 0.1  # of the device's time goes to warming models up while sequences wait


@dataclass(frozen=True, slots=True, eq=False)
class Running:
    """What the thread does now, and the seconds that it should take; ``asked`` by who waits for it, if not a batch."""

    expected: float
    asked: "Future[Any] | None" = None


@dataclass(slots=True)
class DeviceLoop:
    """``async with device.running():`` starts and stops it.  ``down`` says why it answers nothing; empty: it does."""

    metrics: Metrics
    policy: Policy = field(default_factory=Policy)
    clock: Clock = time.monotonic
    admission: Admission = field(init=False)
    queue: Queue = field(init=False)
    down: str = "the device is not started yet"
    current: Running | None = None
    lost: Callable[[str], None] = lambda why: None  # called on the loop where the device computes nothing any more
    _generation: int = 0
    _ended: float = 0.0  # when the last step ended
    _more: bool = False  # sequences waited when the last step ended
    _slice_due: float = 0.0
    _slices: deque[tuple[Callable[[], Any], "Future[Any]"]] = field(default_factory=deque)
    _slicing: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.admission = Admission(self.clock, lambda cause: self.metrics.refused.labels(cause).inc())
        self.queue = Queue(self.admission, self.policy)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["DeviceLoop"]:
        self.start()
        try:
            yield self
        finally:
            self.stop(Unavailable("the service has stopped"))

    @property
    def healthy(self) -> bool:
        return not self.down

    def start(self) -> None:
        """A new thread, whatever became of the last one."""
        self._generation += 1
        self.down, self.current = "", None
        loop, generation = asyncio.get_running_loop(), self._generation
        threading.Thread(target=self._serve, args=(loop, generation), name="device", daemon=True).start()

    def stop(self, why: ServiceError) -> None:
        """Answer everyone who waits with ``why``, and take no one more.  The thread ends when its step does."""
        self._generation += 1
        self.down = why.message
        for request in self.queue.drop_all():
            if not request.done.done():
                request.done.set_exception(why)
        with self._slicing:
            asked = [future for _, future in self._slices]
            self._slices.clear()
        if self.current is not None and self.current.asked is not None:
            asked.append(self.current.asked)
        for future in asked:
            _settle(future, error=why)
        self.queue.notify()
        self.set_gauges()

    def between_steps(self, work: Callable[[], T]) -> T:
        """Run ``work``, which must be short, in the device's thread.  For other threads: blocks until it is done.

        While sequences wait, such work gets a tenth of the device's time.
        """
        future: Future[T] = Future()
        with self._slicing:
            if self.down:
                raise Unavailable(self.down)
            self._slices.append((work, future))
        self.queue.notify()
        return future.result()

    def set_gauges(self) -> None:
        """Never raises: nobody waits longer for a metric that fails."""
        try:
            self.metrics.queue_sequences.set(len(self.queue))
            self.metrics.queue_tokens.set(self.queue.tokens)
            self.metrics.promised.set(self.admission.promised)
        except Exception:
            log.exception("the gauges of the queue cannot be set, which is a bug")

    def _serve(self, loop: asyncio.AbstractEventLoop, generation: int) -> None:
        """The thread.  Whatever ends it but its being given up, the event loop is told."""
        try:
            while self._generation == generation:
                self.queue.wait(lambda: self._slices or self._generation != generation, IDLE_SECONDS)
                if self._generation == generation:
                    self._turn(loop, generation)
        except Exception as error:
            if not isinstance(error, DeviceLost):
                log.exception("the device's thread ended, which is a bug; it is started again")
            if self._generation == generation:
                _call_on_loop(loop, self.lost, str(error))

    def _turn(self, loop: asyncio.AbstractEventLoop, generation: int) -> None:
        late_ones, batch = self.queue.next_batch(self.clock())
        if late_ones:
            _call_on_loop(loop, self._deliver_expired, late_ones)
        if batch:
            self.set_gauges()
            step = self._step(batch, generation)
            if step:
                _call_on_loop(loop, self._deliver, step)
        if self._slices and (not batch or self.clock() >= self._slice_due):
            self._run_slice()

    def _step(self, batch: Seq[PendingSequence], generation: int) -> Step | None:
        """Run one batch; None where the thread was given up meanwhile."""
        assert batch[0].request is not None
        runner = batch[0].request.runner
        group = [one.progress for one in batch if one.progress is not None]
        soonest = min(one.deadline for one in batch)
        began = self.clock()

        def wanted() -> bool:
            return self._generation == generation

        def stop() -> bool:
            return self.queue.preemption_requested or self.clock() >= soonest or not wanted()

        expected = runner.cost.seconds(sum(one.work for one in batch), runner.budget)
        layers_per_check = runner.stepping.check_interval(group, runner.budget)
        self.admission.step = expected * min(1.0, layers_per_check / runner.stepping.layers)
        with self._doing(Running(expected)):
            ran = run_isolating_failures(runner, group, stop, wanted)
        if self._generation != generation:
            return None
        ended = self.clock()
        layers = sum(
            len(was) * (now.depth - was.depth)
            for was, now in zip(group, ran.after, strict=True)
            if isinstance(now, Progress)
        )
        if ran.clean:
            # What the loop kept the interpreter for is a part of what a step costs here.
            since = self._ended if self._more and began - self._ended < BACK_TO_BACK else began
            runner.cost.observe(layers / runner.stepping.layers, ended - since)
            regrow(runner, sum(map(len, group)))
        self._ended = ended
        self._account(batch, ran.after, began, ended)
        self._more = len(self.queue) > 0
        return Step(runner, batch, [*map(len, group)], ran.after, layers, ended - began)

    def _account(
        self, batch: Seq[PendingSequence], after: Seq[Progress | ServiceError], began: float, ended: float
    ) -> None:
        """Who is not done goes back to the queue; what was done is not owed any more."""
        before = [one.cost for one in batch]
        for one in batch:
            assert one.request is not None
            one.request.started, one.request.finished = one.request.started or began, ended
            if one.request.steps is not None:
                record_step(one.request.steps, batch, after, began, ended)
        self.queue.requeue(
            (one, now)
            for one, now in zip(batch, after, strict=True)
            if isinstance(now, Progress) and now.logits is None
        )
        for one, now, cost in zip(batch, after, before, strict=True):
            done = cost - one.cost if isinstance(now, Progress) and now.logits is None else cost
            if one.request is not None and one.request.reservation is not None:
                self.admission.spend(one.request.reservation, done)

    @contextlib.contextmanager
    def _doing(self, running: Running) -> Iterator[None]:
        self.current = running
        try:
            yield
        finally:
            if self.current is running:
                self.current = None

    def _run_slice(self) -> None:
        with self._slicing:
            if not self._slices:
                return
            work, future = self._slices.popleft()
        began = self.clock()
        with self._doing(Running(1.0, future)):
            try:
                _settle(future, work())
            except Exception as error:
                _settle(future, error=error)
                if isinstance(error, DeviceLost):
                    raise
        self._slice_due = self.clock() + (self.clock() - began) * (1 / SLICE_SHARE - 1)
        self._ended = 0.0

    def _deliver(self, step: Step) -> None:
        """On the loop: hand out the answers of a step, then count; a metric that fails must keep nobody waiting."""
        for one, now in zip(step.sequences, step.after, strict=True):
            if isinstance(now, ServiceError):
                self._complete(one, now)
                log_for_request(
                    log,
                    one.request.request_id if one.request else "",
                    f"{one.model} failed on {one.tokens} tokens",
                    now,
                )
            elif now.logits is not None:
                self._complete(one, now.logits)
        self.set_gauges()
        count_step(self.metrics, step)

    def _deliver_expired(self, sequences: Seq[PendingSequence]) -> None:
        closed = [closed for one in sequences if (closed := self.queue.close(one.key)) is not None]
        for one in closed:
            if one.request is not None:
                one.request.deliver(one.index, late())
        self.metrics.dropped.labels("deadline").inc(len(closed))
        self.set_gauges()

    def _complete(self, one: PendingSequence, outcome: Outcome) -> None:
        """Answer, if anyone still waits."""
        closed = self.queue.close(one.key)
        if closed is not None and closed.request is not None:
            closed.request.deliver(one.index, outcome)


def _settle(future: "Future[Any]", result: object = None, error: Exception | None = None) -> None:
    """Unless it is settled: the thread that works on it may have been given up."""
    with contextlib.suppress(InvalidStateError):
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)


def _call_on_loop(loop: asyncio.AbstractEventLoop, what: Callable[..., object], *given: object) -> None:
    with contextlib.suppress(RuntimeError):  # the loop has closed: nobody waits any more
        loop.call_soon_threadsafe(what, *given)
