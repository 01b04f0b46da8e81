"""What waits for the device, and what it runs: here the event loop and the device's thread meet.

The loop adds and drops, the device's thread waits, takes and requeues; what changes anything holds the one lock.
"""

import itertools
import math
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence as Seq
from dataclasses import dataclass, field

from ..types import ModelRef, Priority, Sequence
from .admission import Admission
from .pending import PendingRequest, PendingSequence, Runner
from .scheduler import BatchLimits, Policy, Scheduler
from .stepping import Progress

URGENT = 0.05  # of what is promised may be lost before the earliest deadline goes first
URGENT_SECONDS = 0.1
LOOK_SECONDS = 0.1  # between two looks for promises that cannot be kept


@dataclass(slots=True)
class Queue:
    """The sequences of all requests that are open, be it before a step, in one, or on the way to their answer."""

    admission: Admission
    policy: Policy = field(default_factory=Policy)
    _open: dict[int, PendingSequence] = field(default_factory=dict)
    _scheduler: Scheduler = field(init=False)
    _runners: dict[ModelRef, Runner] = field(default_factory=dict)
    _running: list[PendingSequence] = field(default_factory=list)
    _preempt: bool = False
    _keys: "itertools.count[int]" = field(default_factory=itertools.count)
    _clients: Counter[str] = field(default_factory=Counter)  # sequences that each has open
    _virtual: dict[str, float] = field(default_factory=dict)  # by client: see _arrival
    _time: float = 0.0  # the virtual time
    _look_at: float = -math.inf
    _charged: float = 0.0  # seconds of work in the step that runs
    _sharing: int = 1  # clients that share the device in it
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def __post_init__(self) -> None:
        self._scheduler = Scheduler(self.policy)

    def __len__(self) -> int:
        """Sequences that wait for a step."""
        return len(self._scheduler)

    @property
    def tokens(self) -> int:
        """Of those that wait for a step."""
        return self._scheduler.tokens

    @property
    def preemption_requested(self) -> bool:
        """Is the step that runs to end between two layers?"""
        return self._preempt

    def add(
        self, request: PendingRequest, rows: Iterable[tuple[int, Sequence]], *, now: float, priority: Priority,
        early_exit: bool,
    ) -> list[int]:  # fmt: skip
        """Some rows of one request, by their index in it; the keys to drop them by."""
        runner, reservation = request.runner, request.reservation
        assert reservation is not None
        added: list[PendingSequence] = []
        with self._changed:
            for index, row in rows:
                progress = Progress(row, early_exit)
                work, cost = work_left(runner, progress)
                arrived = self._arrival(reservation.client, cost, now)
                one = PendingSequence(
                    next(self._keys), runner.ref, len(row), work, cost, arrived, reservation.deadline, priority,
                    runner.stepping.batch_key(progress), request, index, progress,
                )  # fmt: skip
                self._open[one.key] = one
                self._clients[reservation.client] += 1
                self._scheduler.add(one)
                added.append(one)
            if added:
                self._runners[runner.ref] = runner
                # They came together, so if one of them preempts, the one of lowest rank does.
                self._preempt = self._preempt or self._preempts(min(added, key=lambda one: one.rank))
            self._changed.notify()
        return [one.key for one in added]

    def _arrival(self, client: str, cost: float, now: float) -> float:
        """A client's sequences arrive one after the other, as if each took its turn on the device: so that a long list
        of one client does not stand before what others send meanwhile (start-time fair queueing, Goyal et al. 1996).

        Virtual time passes as each client is served: a second for a second of the device that all of them share.
        """
        if not self._clients:
            self._time = now
            self._virtual.clear()
        arrived = max(self._time, self._virtual.get(client, self._time))
        self._virtual[client] = arrived + cost
        return arrived

    def _pass_time(self) -> None:
        """The step is over that was charged for."""
        self._time += max(0.0, self._charged) / self._sharing
        self._charged = 0.0
        if len(self._virtual) > 64 + 2 * len(self._clients):
            self._virtual = {client: at for client, at in self._virtual.items() if at > self._time}

    def wait(self, ready: Callable[[], object], seconds: float) -> None:
        """In the device's thread: until something waits, ``ready`` is true, or the time is over."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._scheduler) or ready(), seconds)

    def notify(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def next_batch(self, now: float) -> tuple[list[PendingSequence], list[PendingSequence]]:
        """Those whose deadline passed, and the next batch; both out of the queue."""
        with self._changed:
            self._pass_time()
            late = self._scheduler.expire(now)
            for request in self.admission.broken(now) if now >= self._look_at else ():
                late += self._given_up(request)
                self._look_at = now + LOOK_SECONDS
            limits = {ref: batch_limits(runner) for ref, runner in self._runners.items()}
            slack = self.admission.slack(now)
            critical = slack < URGENT_SECONDS + URGENT * self.admission.promised
            self._running, self._preempt = self._scheduler.next_batch(limits, critical=critical), False
            self._charged, self._sharing = sum(one.cost for one in self._running), max(1, len(self._clients))
            if not self._running:
                self._end()
            return late, self._running

    def _given_up(self, request: PendingRequest) -> list[PendingSequence]:
        """Those of its sequences that wait; one that runs is not read, for an error is the whole request's."""
        return [one for key in request.keys if self._scheduler.remove(key) and (one := self._open.get(key))]

    def requeue(self, moved: Iterable[tuple[PendingSequence, Progress]]) -> None:
        """Those of the step that are not done, with the work that is left; the step is over."""
        with self._changed:
            for one, progress in moved:
                if one.key not in self._open:
                    continue  # nobody waits for it any more
                assert one.request is not None
                runner = one.request.runner
                one.progress, one.batch_key = progress, runner.stepping.batch_key(progress)
                one.work, one.cost = work_left(runner, progress)
                self._scheduler.add(one)
                self._charged -= one.cost
            self._pass_time()
            self._end()

    def close(self, key: int) -> PendingSequence | None:
        """One that left by a step or late, to answer it; None where nobody waits any more."""
        with self._changed:
            return self._close(key)

    def drop(self, keys: Iterable[int]) -> int:
        """Forget these, wherever they are; how many were still open.

        One that is in a running step stays in it, and nobody reads its result.
        """
        with self._changed:
            return len(self._drop(keys))

    def drop_all(self) -> list[PendingRequest]:
        """Forget everyone, for the device has failed or stops; the requests that they were of."""
        with self._changed:
            dropped = self._drop(list(self._open))
            self._end()
        return list({id(one.request): one.request for one in dropped if one.request is not None}.values())

    def _drop(self, keys: Iterable[int]) -> list[PendingSequence]:
        dropped = [one for key in keys if (one := self._close(key))]
        for one in dropped:
            self._scheduler.remove(one.key)
        if dropped and not any(one.key in self._open for one in self._running):
            self._preempt = True  # nobody waits for what it computes
        return dropped

    def _close(self, key: int) -> PendingSequence | None:
        one = self._open.pop(key, None)
        if one is not None and one.request is not None and one.request.reservation is not None:
            client = one.request.reservation.client
            self._clients[client] -= 1
            if not self._clients[client]:
                del self._clients[client]
        return one

    def _end(self) -> None:
        """No step runs.  A version that nobody asks any more must not be kept in memory from here."""
        self._running = []
        self._runners = {ref: runner for ref, runner in self._runners.items() if self._scheduler.waiting(ref)}

    def _preempts(self, one: PendingSequence) -> bool:
        if not self._running:
            return False
        return self._scheduler.preempts(one, self._running, batch_limits(self._runners[self._running[0].model]))


def work_left(runner: Runner, progress: Progress) -> tuple[float, float]:
    """Of one sequence: in tokens through all layers, and in seconds of device time in steps that are full."""
    work = len(progress) * runner.stepping.remaining(progress)
    return work, runner.cost.marginal(work, runner.budget)


def batch_limits(runner: Runner) -> BatchLimits:
    return BatchLimits(runner.budget, runner.padding)


def estimate(runner: Runner, rows: Seq[Sequence], early_exit: bool) -> float:
    """Seconds of device time for ``rows`` of one request."""
    work = sum(len(row) for row in rows) * runner.stepping.remaining(Progress(rows[0], early_exit))
    return runner.cost.marginal(work, runner.budget) + runner.cost.coefficients[0]
