"""Who is let in: what is admitted is answered in time, an idle device is always tried, and who comes back gets in."""

import heapq
import itertools
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence as Seq
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from service.errors import DeadlineExceeded, QueueFull
from service.serving.admission import LONGEST_RETRY, Admission, Reservation
from service.serving.pending import PendingRequest, PendingSequence
from service.serving.queue import Queue, estimate
from service.serving.stepping import Stepping
from service.types import Priority
from tests.fakes import FakeRunner, ManualClock, row

PER_TOKEN = 0.001  # seconds
MANY = settings(deadline=None, max_examples=50)


def priced_runner(per_step: float = 0.0, **changes: Any) -> FakeRunner:
    """A step of 64 tokens takes 64 ms and ``per_step``; between its four layers others may go first."""
    runner = FakeRunner(**{"stepping": Stepping(4, layers_per_check=1)} | changes)
    runner.cost.coefficients = (per_step, PER_TOKEN)
    return runner


@dataclass
class Device:
    """One device that serves what is admitted, in the queue's order and at exact costs, on a clock of its own."""

    runner: FakeRunner = field(default_factory=priced_runner)
    clock: ManualClock = field(default_factory=lambda: ManualClock(0.0))
    busy: float = 0.0
    missed: list[PendingRequest] = field(default_factory=list)
    answered: list[PendingRequest] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)
    _events: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    _number: "itertools.count[int]" = field(default_factory=itertools.count)
    _answers: dict[int, Callable[[], None]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.admission = Admission(self.clock)
        self.queue = Queue(self.admission)

    def at(self, when: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when, next(self._number), action))

    def ask(
        self, client: str, lengths: Seq[int], patience: float = 10.0, priority: Priority = Priority.INTERACTIVE,
        answer: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        """QueueFull or DeadlineExceeded where it is not admitted; ``answer`` is called with its answer."""
        now, rows = self.clock(), [row(length) for length in lengths]
        try:
            reservation = self.admission.reserve(client, estimate(self.runner, rows, True), now + patience)
        except (QueueFull, DeadlineExceeded):
            self.refused[client] += 1
            raise
        future: Any = None
        request = PendingRequest(self.runner, future, [None] * len(rows), reservation, client, now)
        self._answers[id(request)] = answer
        self.queue.add(request, enumerate(rows), now=now, priority=priority, early_exit=True)

    def run(self, until: float) -> None:
        while self.clock() < until:
            self._events_until(self.clock())
            late, batch = self.queue.next_batch(self.clock())
            for one in late:
                self._close(one, self.missed)
            if batch:
                self._step(batch)
            elif not late:
                if not self._events:
                    return
                self._events_until(self._events[0][0])

    def _events_until(self, end: float) -> None:
        while self._events and self._events[0][0] <= end:
            when, _, action = heapq.heappop(self._events)
            self.clock.now = when
            action()
        self.clock.now = end

    def _step(self, batch: Seq[PendingSequence]) -> None:
        group = [one.progress for one in batch if one.progress is not None]
        stepping, tokens, began = self.runner.stepping, sum(map(len, group)), self.clock()
        interval, end, layers = stepping.check_interval(group, self.runner.budget), stepping.end(group), 0
        per_step, per_token = self.runner.cost.coefficients
        while layers < end and not (layers and self.queue.preemption_requested):
            part = min(interval, end - layers)
            layers += part
            took = per_token * tokens * part / stepping.layers + (per_step if layers == part else 0.0)
            self._events_until(self.clock() + took)
        self.busy += self.clock() - began
        after = [replace(one, depth=one.depth + layers) for one in group]
        costs = [one.cost for one in batch]
        moved = [(one, now) for one, now in zip(batch, after, strict=True) if now.depth < stepping.layers]
        self.queue.requeue(moved)
        gone_on = {one.key for one, _ in moved}
        for one, cost in zip(batch, costs, strict=True):
            assert one.request is not None
            assert one.request.reservation is not None
            self.admission.spend(one.request.reservation, cost - one.cost if one.key in gone_on else cost)
            if one.key not in gone_on:
                self._close(one, self.answered if self.clock() <= one.deadline else self.missed)

    def _close(self, one: PendingSequence, into: list[PendingRequest]) -> None:
        request = one.request
        if self.queue.close(one.key) is None or request is None or request.reservation is None:
            return
        request.open -= 1
        if request not in self.missed and (into is self.missed or not request.open):
            into.append(request)
        if not request.open:
            request.finished = self.clock()
            self.admission.release(request.reservation)
            self._answers.pop(id(request))()


def ignoring_refusals(action: Callable[[], None]) -> Callable[[], None]:
    def tried() -> None:
        try:
            action()
        except (QueueFull, DeadlineExceeded):
            pass

    return tried
