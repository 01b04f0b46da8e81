"""What waits for the device, and what it runs: here the event loop and the device's thread meet.

The loop adds and drops, the device's thread takes and puts back; what changes anything holds the lock, one row at a
time where a request has many.
"""

import threading
from collections.abc import Iterable, Sequence as Seq
from dataclasses import dataclass, field, replace

from service.serving.isolation import Runner
from service.serving.scheduler import Job, Limits, Policy, Scheduler
from service.serving.stepping import Progress
from service.serving.tickets import Ticket
from service.types import ModelRef


@dataclass(slots=True)
class Queue:
    """The tickets of all who wait, by key, be it for their turn, for the end of their step or for their answer."""

    policy: Policy = field(default_factory=Policy)
    _tickets: dict[int, Ticket] = field(default_factory=dict)
    _scheduler: Scheduler = field(init=False)
    _runners: dict[ModelRef, Runner] = field(default_factory=dict)
    _running: list[Job] = field(default_factory=list)  # in the step
    _until: float = 0.0  # when the step should be over, on the caller's clock
    _look_up: float = 0.0  # seconds between two looks at ``stopping``
    _stopping: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._scheduler = Scheduler(self.policy)

    def __len__(self) -> int:
        """Sequences that wait for their turn."""
        return len(self._scheduler)

    @property
    def tokens(self) -> int:
        """Of those that wait for their turn."""
        return self._scheduler.tokens

    @property
    def cost(self) -> float:
        """Seconds of the device that wait."""
        return self._scheduler.cost

    @property
    def stopping(self) -> bool:
        """Is the step to end between two layers?"""
        return self._stopping

    def left(self, now: float) -> float:
        """Seconds that the step should still run."""
        return max(0.0, self._until - now)

    def add(self, tickets: Seq[Ticket]) -> None:
        """The rows of one request."""
        for ticket in tickets:
            with self._lock:
                self._tickets[ticket.job.key] = ticket
                self._runners[ticket.job.model] = ticket.runner
                self._scheduler.add(ticket.job)
        # They came together, so if one of them may pass, the one of least work may.
        soonest = min((ticket.job for ticket in tickets), key=lambda job: job.cost)
        with self._lock:
            self._stopping = self._stopping or self._passes(soonest)

    def ahead(self, job: Job, now: float) -> float:
        """Seconds of the device before ``job``: of what waits, and of the step that runs."""
        with self._lock:
            running = self.left(now)
            if self._passes(job):
                running = min(running, self._look_up)
            return self._scheduler.ahead(job.cost, now, job.priority) + running

    def take(self, now: float) -> tuple[list[int], list[Ticket]]:
        """The keys of those whose deadline passed, and the next step; both out of the queue."""
        with self._lock:
            late = [job.key for job in self._scheduler.expire(now)]
            limits = {ref: _limits(runner) for ref, runner in self._runners.items()}
            self._running, self._stopping = self._scheduler.next_step(limits), False
            step = [self._tickets[job.key] for job in self._running]
            self._until = now
            if step:
                self._expect(step[0].runner, [ticket.progress for ticket in step])
            else:
                self._end()
            return late, step

    def put_back(self, moved: Iterable[tuple[Ticket, Progress]], now: float) -> None:
        """Those who are not through, with the work that is left; the step is over."""
        with self._lock:
            self._until = now
            for ticket, progress in moved:
                if ticket.job.key not in self._tickets:
                    continue  # nobody waits for it any more
                ticket.progress, runner = progress, ticket.runner
                ticket.job = replace(ticket.job, cost=cost(runner, progress), lane=runner.stepping.lane(progress))
                self._scheduler.put_back(ticket.job)
            self._end()

    def pop(self, key: int) -> Ticket | None:
        """The ticket of one that left by a step or late, to answer it; None where nobody waits any more."""
        with self._lock:
            return self._tickets.pop(key, None)

    def drop(self, keys: Iterable[int]) -> list[Ticket]:
        """Forget these, wherever they are; the tickets that were still open.

        One that is in a running step stays in it, and nobody reads its result.
        """
        with self._lock:
            return self._drop(keys)

    def drop_all(self) -> list[Ticket]:
        """Forget everyone; the device has failed or stops."""
        with self._lock:
            dropped = self._drop(list(self._tickets))
            self._end()
            return dropped

    def _drop(self, keys: Iterable[int]) -> list[Ticket]:
        dropped = [ticket for key in keys if (ticket := self._tickets.pop(key, None))]
        for ticket in dropped:
            self._scheduler.remove(ticket.job.key)
        if not any(job.key in self._tickets for job in self._running):
            self._stopping = True  # it runs for nobody
        return dropped

    def _end(self) -> None:
        """No step runs.  A version that nobody asks any more must not be kept in memory from here."""
        self._running = []
        self._runners = {ref: runner for ref, runner in self._runners.items() if self._scheduler.waiting(ref)}

    def _passes(self, job: Job) -> bool:
        if not self._running:
            return False
        return self._scheduler.passes(job, self._running, _limits(self._runners[self._running[0].model]))

    def _expect(self, runner: Runner, group: Seq[Progress]) -> None:
        stepping, tokens = runner.stepping, sum(map(len, group))
        expected = tokens * stepping.end(group) / stepping.layers
        self._until += runner.cost.seconds(expected, expected)
        self._look_up = runner.cost.marginal(tokens * stepping.piece(group, runner.budget) / stepping.layers)


def cost(runner: Runner, progress: Progress) -> float:
    """Seconds of the device that are expected to lie before it."""
    return runner.cost.marginal(len(progress) * runner.stepping.left(progress))


def _limits(runner: Runner) -> Limits:
    return Limits(runner.budget, runner.padding)
