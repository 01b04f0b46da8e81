"""Which sequences run next: pure policy, with no clock and no thread of its own.

Least remaining work first, with ageing.  A step may end between layers; what is not through comes back with the cost
that is left, and what is short and came meanwhile goes first.  A sequence's rank is

    rank = cost + ageing * arrived + (bulk: ageing * bulk_delay)

in seconds of device time, and the lowest goes first.  Two sequences age alike, so their order never changes while
they wait, and the rank can be written once as a constant: a sequence is overtaken only by those that arrive within
``cost / ageing`` seconds after it, plus ``bulk_delay`` for bulk work.  So nothing starves.  Each step takes the
sequence of lowest rank, whatever its size, and fills the budget with others of the same model; those may be later
ones, for they cost it nothing.
"""

import bisect
import heapq
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence as Seq
from dataclasses import dataclass, field
from operator import attrgetter

from service.types import ModelRef, Priority

LOOK_AHEAD = 64  # sequences too long for what is left of a budget that are passed over while it is filled

LONELY = 0.25  # a step of up to this share of its budget runs faster with more in it


@dataclass(frozen=True, slots=True)
class Policy:
    ageing: float = 0.02
    bulk_delay: float = 30.0  # seconds

    def rank(self, cost: float, arrived: float, priority: Priority) -> float:
        """``cost`` in seconds of device time that are left, ``arrived`` on the caller's clock."""
        late = self.bulk_delay if priority is Priority.BULK else 0.0
        return cost + self.ageing * (arrived + late)


@dataclass(frozen=True, slots=True)
class Job:
    """One sequence that waits.  ``cost`` is in seconds of device time, ``deadline`` on the caller's clock."""

    key: int
    model: ModelRef
    tokens: int
    cost: float
    arrived: float
    deadline: float
    priority: Priority = Priority.INTERACTIVE
    lane: int = 0  # of its model; only jobs of one lane share a step


@dataclass(frozen=True, slots=True)
class Limits:
    """What a step of a model may hold: ``tokens``, and padding in attention, the one place where there is any.

    Attention pads every row to the longest of its step.  ``padding``: so many squares of a token, for each token of
    the step, may be computed for nothing.
    """

    tokens: int
    padding: float = math.inf


@dataclass(slots=True)
class Scheduler:
    """Holds what waits for one device, over all its models.  Every job that is added leaves once: by ``next_step``,
    ``expire`` or ``remove``.  One that left by a step may be put back.
    """

    policy: Policy = field(default_factory=Policy)
    tokens: int = 0  # that wait
    cost: float = 0.0  # of all that waits
    _jobs: dict[int, "_Ranked"] = field(default_factory=dict)
    _queues: dict[ModelRef, list["_Ranked"]] = field(default_factory=dict)
    _deadlines: list[tuple[float, int]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self._jobs)

    def add(self, job: Job) -> None:
        heapq.heappush(self._deadlines, (job.deadline, job.key))
        self.put_back(job)

    def put_back(self, job: Job) -> None:
        """A job that was here before and is not through: its deadline is known."""
        ranked = _Ranked((self.policy.rank(job.cost, job.arrived, job.priority), job.key), job)
        self._jobs[job.key] = ranked
        bisect.insort(self._queues.setdefault(job.model, []), ranked, key=attrgetter("rank"))
        self.tokens += job.tokens
        self.cost += job.cost

    def remove(self, key: int) -> bool:
        """Forget a job that nobody waits for any more; False where it is not here."""
        ranked = self._jobs.pop(key, None)
        if ranked is None:
            return False
        queue = self._queues[ranked.job.model]
        del queue[bisect.bisect_left(queue, ranked.rank, key=attrgetter("rank"))]
        if not queue:
            del self._queues[ranked.job.model]
        self.tokens -= ranked.job.tokens
        self.cost = self.cost - ranked.job.cost if self._jobs else 0.0  # no rounding error outlives the queue
        return True

    def expire(self, now: float) -> list[Job]:
        """Take out and return what is past its deadline."""
        late = []
        while self._deadlines and self._deadlines[0][0] <= now:
            _, key = heapq.heappop(self._deadlines)
            if key in self._jobs:
                late.append(self._jobs[key].job)
                self.remove(key)
        return late

    def next_step(self, limits: dict[ModelRef, Limits]) -> list[Job]:
        """The next step, taken out: jobs of one model and lane, within its limits (one alone may exceed them)."""
        if not self._queues:
            return []
        queue = min(self._queues.values(), key=lambda queue: queue[0].rank)
        chosen = list(_fill((ranked.job for ranked in queue), limits[queue[0].job.model]))
        for job in chosen:
            self.remove(job.key)
        return chosen

    def passes(self, job: Job, running: Seq[Job], limits: Limits) -> bool:
        """Is a step of ``running`` to end between two layers for ``job``?

        Where it goes first, or where they are few, gain from company, and it fits in beside them.
        """
        rank = self.policy.rank(job.cost, job.arrived, job.priority)
        if any(rank < self.policy.rank(one.cost, one.arrived, one.priority) for one in running):
            return True
        if job.model != running[0].model or sum(one.tokens for one in running) > limits.tokens * LONELY:
            return False
        return len(list(_fill([*running, job], limits))) == len(running) + 1

    def waiting(self, model: ModelRef) -> bool:
        return model in self._queues

    def ahead(self, cost: float, arrived: float, priority: Priority) -> float:
        """Seconds of device time that would go before such a job, by today's queue."""
        rank = (self.policy.rank(cost, arrived, priority), math.inf)  # of equals, those that came first go first
        before = (itertools.takewhile(lambda other: other.rank < rank, queue) for queue in self._queues.values())
        return sum(ranked.job.cost for ranked in itertools.chain.from_iterable(before))


@dataclass(frozen=True, slots=True)
class _Ranked:
    rank: tuple[float, int]  # the key makes it unique
    job: Job


def _fill(queue: Iterable[Job], limits: Limits) -> Iterator[Job]:
    lane, rows, tokens, squares, longest, passed_over = None, 0, 0, 0, 0, 0
    for job in queue:
        length = job.tokens
        total, widest = tokens + length, max(longest, length)
        padding = (rows + 1) * widest**2 - (squares + length**2)
        fits = job.lane == lane and total <= limits.tokens and padding <= limits.padding * total
        if rows and not fits:
            passed_over += 1
            if passed_over > LOOK_AHEAD:
                return
            continue
        yield job
        lane, rows, tokens, squares, longest = job.lane, rows + 1, total, squares + length**2, widest
        if tokens >= limits.tokens:
            return
