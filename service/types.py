"""What crosses layers: plain frozen values, no behaviour beyond what they hold."""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Sequence:
    """One row for the model: token ``ids`` and segment ``types``, both (n,), framed and ready.

    ``second`` is where the second text begins in it; n where there is none.  ``masks`` (m,) are the places that a head
    for masks reads.
    """

    ids: Ints
    types: Ints
    second: int
    masks: Ints | None = None

    def __len__(self) -> int:
        return len(self.ids)


class Priority(IntEnum):
    """Lower goes first.  Neither ever starves: see ``serving/scheduler.py``."""

    INTERACTIVE = 0
    BULK = 1


@dataclass(frozen=True, slots=True)
class ModelRef:
    name: str
    version: int

    def __str__(self) -> str:
        return f"{self.name}/{self.version}"


@dataclass(frozen=True, slots=True)
class StepRun:
    """One batch step that a request was in: when, on the device's clock, how much it held, between which depths."""

    began: float
    ended: float
    tokens: int
    sequences: int
    before: int
    after: int


@dataclass(frozen=True, slots=True)
class Timings:
    """Where one request's time went, in seconds: queued and run are those of its slowest sequence."""

    encode: float = 0.0
    queue: float = 0.0
    run: float = 0.0
    decode: float = 0.0
