"""Sequences that need not run: those that stand twice in a request, and those that were answered a while ago.

The logits of a sequence are those of its tokens, so that they may be kept by them: bounded in bytes, the oldest goes
first, and none is given after ``seconds``, nor kept once somebody has looked (``purge``).  Used in the event loop's
thread only.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence as Seq
from dataclasses import dataclass, field

import numpy as np

from ..errors import ServiceError
from ..metrics import Metrics
from ..types import Floats, Sequence
from .engine import Engine
from .pending import Outcome

Key = tuple[int, bool, bytes]
ENTRY_BYTES = 300  # of Python's own objects around an entry


@dataclass(frozen=True, slots=True)
class Plan:
    """What is left to run of the ``keys`` of a request: ``rows``, each once, at the places ``left`` of its key."""

    keys: list[Key]
    known: dict[Key, Floats]
    rows: list[Sequence]
    left: list[Key]

    def whole(self, outcomes: Seq[Outcome]) -> list[Outcome]:
        """The outcome of every row of the request, given those of the rows that ran."""
        found: dict[Key, Outcome] = dict(zip(self.left, outcomes, strict=True))
        return [self.known[key] if key in self.known else found[key] for key in self.keys]


@dataclass(slots=True)
class Reuse:
    """``most`` bytes are kept; 0 keeps nothing, and what stands twice in a request runs once all the same."""

    metrics: Metrics
    most: int = 0
    seconds: float = 60.0
    clock: Callable[[], float] = time.monotonic
    size: int = 0
    _kept: "OrderedDict[Key, tuple[float, Floats]]" = field(default_factory=OrderedDict)

    def plan(self, engine: Engine, rows: Seq[Sequence], *, early_exit: bool) -> Plan:
        keys = [_key(engine, row, early_exit=early_exit) for row in rows]
        once = dict(zip(keys, rows, strict=True))
        known = {key: logits for key in once if (logits := self._find(key)) is not None}
        left = [key for key in once if key not in known]
        return Plan(keys, known, [once[key] for key in left], left)

    def keep(self, plan: Plan, outcomes: Seq[Outcome]) -> None:
        """What ran, for those who ask the same again; failures are nobody's answer."""
        self.metrics.reused.labels("duplicate").inc(len(plan.keys) - len(plan.known) - len(plan.left))
        self.metrics.reused.labels("cache").inc(len(plan.known))
        for key, outcome in zip(plan.left, outcomes, strict=True):
            if self.most and not isinstance(outcome, ServiceError):
                self._add(key, outcome)

    def _find(self, key: Key) -> Floats | None:
        entry = self._kept.get(key)
        return None if entry is None or self.clock() - entry[0] > self.seconds else entry[1]

    def purge(self) -> None:
        """What is older than ``seconds`` goes.  The oldest stands first."""
        while self._kept and self.clock() - next(iter(self._kept.values()))[0] > self.seconds:
            self._drop(next(iter(self._kept)))
        self.metrics.cache_bytes.set(self.size)

    def _add(self, key: Key, logits: Floats) -> None:
        taken = _bytes(key, logits)
        if taken > self.most:
            return
        if key in self._kept:
            self._drop(key)
        # A copy: what the device gave is a part of the whole step's array, which it would keep alive.
        self._kept[key] = (self.clock(), np.array(logits))
        self.size += taken
        while self.size > self.most:
            self._drop(next(iter(self._kept)))
        self.metrics.cache_bytes.set(self.size)

    def _drop(self, key: Key) -> None:
        _, logits = self._kept.pop(key)
        self.size -= _bytes(key, logits)


def _key(engine: Engine, row: Sequence, *, early_exit: bool) -> Key:
    """Of another version another engine, also where it has the number of one before."""
    masks = b"" if row.masks is None else row.masks.tobytes()
    # The second text's place says all of ``types``.
    leaves = early_exit and engine.stepping.exits is not None
    return engine.serial, leaves, b"%d|%d|" % (row.second, len(masks)) + masks + row.ids.tobytes()


def _bytes(key: Key, logits: Floats) -> int:
    return len(key[2]) + logits.nbytes + ENTRY_BYTES
