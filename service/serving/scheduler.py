"""Which sequences run next: pure policy, with no clock and no thread of its own.

Least work first, in classes, with ageing.  Work is rounded up to 64 tokens times a power of four, so that texts of
about one size keep their order of arrival.  A step may end between layers; what is not done comes back with the work
that is left, and what is short and came meanwhile goes first.  A sequence's rank is

    rank = cost of its size class + ageing * (arrived + bulk_delay, for bulk work)

in seconds of device time, and the lowest goes first.  Two sequences age alike, so the rank is written once as a
constant: a sequence is overtaken only by those that arrive within ``class cost / ageing`` seconds after it, plus
``bulk_delay`` for bulk work.  So nothing starves.

Where a promise is about to break (``critical``), the earliest deadline goes first instead: that order keeps every
promise that any order can keep (Liu and Layland 1973), and admission promises no more.
"""

import heapq
import math
from collections.abc import Callable, Iterable, Iterator, Sequence as Seq
from dataclasses import dataclass, field

from ..types import ModelRef, Priority
from .pending import PendingSequence

LOOK_AHEAD = 64  # sequences too long for what is left of a budget that are passed over while it is filled
UNDERFILLED = 0.25  # a step of up to this share of its budget runs faster with more in it
SMALLEST_CLASS = 64.0  # tokens
Entry = Callable[[PendingSequence], tuple[float, int]]  # a sequence's place in a heap


@dataclass(frozen=True, slots=True)
class Policy:
    ageing: float = 0.05
    bulk_delay: float = 5.0  # seconds

    def rank(self, one: PendingSequence) -> float:
        late = self.bulk_delay if one.priority is Priority.BULK else 0.0
        return one.cost * size_class(one.work) / one.work + self.ageing * (one.arrived + late)


def size_class(work: float) -> float:
    """``work`` in tokens, rounded up to 64 times a power of four."""
    return SMALLEST_CLASS * 4.0 ** max(0, math.ceil(math.log(work / SMALLEST_CLASS, 4) - 1e-9))


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """What a step of a model may hold: ``tokens``, and padding in attention, the one place where there is any.

    Attention pads every row to the longest of its step.  ``padding``: so many squares of a token, for each token of
    the step, may be computed for nothing.
    """

    tokens: int
    padding: float = math.inf


@dataclass(slots=True)
class Scheduler:
    """Holds what waits for one device, over all its models.  Every sequence that is added leaves once: by
    ``next_batch``, ``expire`` or ``remove``.  One that left by a batch may be added again.
    """

    policy: Policy = field(default_factory=Policy)
    tokens: int = 0  # that wait
    _waiting: dict[int, PendingSequence] = field(default_factory=dict)
    _models: dict[ModelRef, int] = field(default_factory=dict)  # how many of each wait
    _queues: dict[tuple[ModelRef, int], list[tuple[float, int]]] = field(default_factory=dict)  # heaps of (rank, key)
    _deadlines: list[tuple[float, int]] = field(default_factory=list)  # a heap too

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, one: PendingSequence) -> None:
        """A new sequence, or one that left by a batch and is not done: its cost and work are what is left."""
        heapq.heappush(self._deadlines, (one.deadline, one.key))
        one.rank = self.policy.rank(one)
        self._waiting[one.key] = one
        self._models[one.model] = self._models.get(one.model, 0) + 1
        heapq.heappush(self._queues.setdefault((one.model, one.batch_key), []), (one.rank, one.key))
        self.tokens += one.tokens

    def remove(self, key: int) -> bool:
        """Forget a sequence that nobody waits for any more; False where it is not here.

        Its entries in the heaps go when they come up, or when they are more than those of all that waits.
        """
        one = self._waiting.pop(key, None)
        if one is None:
            return False
        self.tokens -= one.tokens
        self._models[one.model] -= 1
        if not self._models[one.model]:
            del self._models[one.model]
        self._compact((one.model, one.batch_key))
        return True

    def expire(self, now: float) -> list[PendingSequence]:
        """Take out and return what is past its deadline."""
        late = []
        while self._deadlines and (self._deadlines[0][0] <= now or self._deadlines[0][1] not in self._waiting):
            _, key = heapq.heappop(self._deadlines)
            if key in self._waiting:
                late.append(self._waiting[key])
                self.remove(key)
        return late

    def next_batch(self, limits: dict[ModelRef, BatchLimits], *, critical: bool = False) -> list[PendingSequence]:
        """The next batch, taken out: of one model and batch key, within its limits (one alone may exceed them).

        ``critical``: by deadline, and not by rank.
        """
        chosen = self._by_deadline(limits) if critical else self._by_rank(limits)
        for one in chosen:
            self.remove(one.key)
        return chosen

    def preempts(self, one: PendingSequence, running: Seq[PendingSequence], limits: BatchLimits) -> bool:
        """Is a step of ``running`` to end between two layers for ``one``?

        Where it goes first, or where they are few, gain from company, and it fits in beside them.
        """
        rank = self.policy.rank(one)
        if any(rank < self.policy.rank(other) for other in running):
            return True
        if one.model != running[0].model or sum(other.tokens for other in running) > limits.tokens * UNDERFILLED:
            return False
        return len(list(_fill([*running, one], limits))) == len(running) + 1

    def waiting(self, model: ModelRef) -> bool:
        return model in self._models

    def _by_rank(self, limits: dict[ModelRef, BatchLimits]) -> list[PendingSequence]:
        heads = [(queue[0], name) for name, queue in list(self._queues.items()) if self._clean(name, queue)]
        if not heads:
            return []
        _, name = min(heads)
        return self._take(self._queues[name], limits[name[0]], lambda one: (one.rank, one.key))

    def _by_deadline(self, limits: dict[ModelRef, BatchLimits]) -> list[PendingSequence]:
        while self._deadlines and self._deadlines[0][1] not in self._waiting:
            heapq.heappop(self._deadlines)
        if not self._deadlines:
            return []
        first = self._waiting[self._deadlines[0][1]]
        # Nothing is passed over: a later deadline must not take the time of the next one.
        return self._take(
            self._deadlines, limits[first.model], lambda one: (one.deadline, one.key),
            (first.model, first.batch_key), look_ahead=0,
        )  # fmt: skip

    def _take(
        self, heap: list[tuple[float, int]], limits: BatchLimits, entry: Entry,
        name: tuple[ModelRef, int] | None = None, look_ahead: int = LOOK_AHEAD,
    ) -> list[PendingSequence]:  # fmt: skip
        """A batch from the top of ``heap``; what was looked at and not chosen stays in it."""
        seen: dict[int, PendingSequence] = {}

        def candidates() -> Iterator[PendingSequence]:
            others = 0
            while heap and others <= LOOK_AHEAD:
                order, key = heapq.heappop(heap)
                one = self._waiting.get(key)
                if one is None or entry(one) != (order, key) or key in seen:
                    continue
                seen[key] = one
                if name is None or (one.model, one.batch_key) == name:
                    yield one
                else:
                    others += 1

        chosen = list(_fill(candidates(), limits, look_ahead))
        for key in seen.keys() - {one.key for one in chosen}:
            heapq.heappush(heap, entry(seen[key]))
        return chosen

    def _clean(self, name: tuple[ModelRef, int], queue: list[tuple[float, int]]) -> bool:
        """Is anything left in ``queue`` when what has gone is dropped from its top?"""
        while queue:
            rank, key = queue[0]
            one = self._waiting.get(key)
            if one is not None and one.rank == rank and (one.model, one.batch_key) == name:
                return True
            heapq.heappop(queue)
        del self._queues[name]
        return False

    def _compact(self, name: tuple[ModelRef, int]) -> None:
        queue = self._queues.get(name)
        if queue and len(queue) > 64 + 2 * len(self._waiting):
            queue[:] = {(rank, key) for rank, key in queue if key in self._waiting}
            heapq.heapify(queue)
        if len(self._deadlines) > 64 + 2 * len(self._waiting):
            self._deadlines = [(one.deadline, one.key) for one in self._waiting.values()]
            heapq.heapify(self._deadlines)


def _fill(
    queue: Iterable[PendingSequence], limits: BatchLimits, look_ahead: int = LOOK_AHEAD
) -> Iterator[PendingSequence]:
    key, rows, tokens, squares, longest, passed_over = None, 0, 0, 0, 0, 0
    for one in queue:
        length = one.tokens
        total, widest = tokens + length, max(longest, length)
        padding = (rows + 1) * widest**2 - (squares + length**2)
        fits = one.batch_key == key and total <= limits.tokens and padding <= limits.padding * total
        if rows and not fits:
            passed_over += 1
            if passed_over > look_ahead:
                return
            continue
        yield one
        key, rows, tokens, squares, longest = one.batch_key, rows + 1, total, squares + length**2, widest
        if tokens >= limits.tokens:
            return
