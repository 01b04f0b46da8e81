"""Stand-ins that are plain classes: a clock held in the hand, a model that needs no graph."""

import threading
from collections.abc import Callable, Sequence as Seq
from dataclasses import dataclass, field

import numpy as np

from service.serving.admission import CostModel
from service.types import Floats, ModelRef, Sequence


def row(length: int, first: int = 5) -> Sequence:
    """A sequence of ``length`` tokens, the first of which is ``first``."""
    ids = np.full(length, 7, dtype=np.int32)
    ids[0] = first
    return Sequence(ids, np.zeros_like(ids), length)


@dataclass
class ManualClock:
    """Time in seconds that passes only when told."""

    now: float = 100.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


@dataclass
class FakeRunner:
    """Answers each row with its first id, as logits (1,); keeps what it ran.

    ``fails`` says of a batch what to raise; ``gate``, where set, holds each step until it is opened.
    """

    ref: ModelRef = field(default_factory=lambda: ModelRef("fake", 1))
    budget: int = 64
    cost: CostModel = field(default_factory=CostModel)
    fails: Callable[[Seq[Sequence]], Exception | None] = lambda rows: None
    gate: threading.Event | None = None
    steps: list[list[int]] = field(default_factory=list)

    def run(self, rows: Seq[Sequence]) -> list[Floats]:
        self.steps.append([int(r.ids[0]) for r in rows])
        if self.gate is not None:
            assert self.gate.wait(10)
        error = self.fails(rows)
        if error is not None:
            raise error
        return [np.array([r.ids[0]], dtype=np.float32) for r in rows]
