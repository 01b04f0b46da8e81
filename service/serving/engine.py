"""One loaded version of a model: what it knows, and how the device runs a step of it."""

import contextlib
import itertools
import math
import threading
from collections.abc import Callable, Sequence as Seq
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from ..errors import ServiceError
from ..repository.manifest import Manifest
from ..runtime.attention import AttentionModel
from ..runtime.providers import Device
from ..runtime.session import Model
from ..tasks.attention import Attention, collect
from ..tasks.text import Tokenizer
from ..types import Floats, ModelRef, Sequence
from .attention import attention_by_layer
from .cost import CostModel
from .depths import InDeviceThread, logits_by_depth
from .stepping import Progress, Stepping, Stop, advance, never


class Task(Protocol):
    """What all of ``tasks/`` have: ``encode`` to sequences and ``decode`` from logits are each one's own."""

    @property
    def tokenizer(self) -> Tokenizer: ...

    @property
    def encode(self) -> Callable[..., Any]: ...

    @property
    def decode(self) -> Callable[..., Any]: ...


PROBE_TOKENS = 8


@dataclass(slots=True)
class Engine:
    """A model that answers, with its facts.  ``budget`` is in tokens a step, ``precision`` the one that really runs.

    ``run``, ``step``, the runs for timing and ``probe`` belong to the device's thread.  ``remake`` makes its model
    anew, ``open_attention`` the graph that gives attention out: nothing of it is loaded before somebody asks.
    """

    manifest: Manifest
    task: Task
    model: Model
    budget: int
    stepping: Stepping
    precision: str = "float32"
    padding: float = math.inf  # see scheduler.BatchLimits
    cost: CostModel = field(default_factory=CostModel)
    remake: Callable[[], Model] | None = None
    open_attention: Callable[[], AttentionModel] | None = None
    full_budget: int = 0
    clean_steps: int = 0
    serial: int = field(default_factory=itertools.count().__next__)  # no two engines of a process have one
    _attention: AttentionModel | None = None
    _opening: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.full_budget = self.full_budget or self.budget

    @property
    def ref(self) -> ModelRef:
        return ModelRef(self.manifest.name, self.manifest.version)

    @property
    def max_length(self) -> int:
        return self.manifest.max_length

    @property
    def available(self) -> bool:
        """Can it answer?  False for one that another process lost."""
        return True

    @property
    def device(self) -> Device:
        return self.model.device

    def set_budget(self, tokens: int) -> None:
        self.budget = self.full_budget = tokens

    def run(self, rows: Seq[Sequence], *, early_exit: bool = False) -> list[Floats]:
        """Logits of each row, through all layers or as far as the policy asks."""
        if not (early_exit and self.stepping.exits):
            return self.model.run(rows)
        return [_logits(one) for one in self.finish(rows, early_exit=True)]

    def finish(self, rows: Seq[Sequence], *, early_exit: bool = False) -> list[Progress]:
        """The same with the depth at which each row left."""
        stepping = self.stepping if early_exit else replace(self.stepping, exits=None)
        return self._through(stepping, rows, stepping.layers)

    def step(self, group: Seq[Progress], stop: Stop) -> list[Progress]:
        return advance(self.model, self.stepping, group, self.stepping.check_interval(group, self.budget), stop)

    def profile_run(self, rows: Seq[Sequence], depth: int, check_interval: int) -> None:
        """Through the first ``depth`` layers and the head, none leaving early; for timing."""
        self._through(replace(self.stepping.without_early_exit(), layers=depth), rows, check_interval)

    def regroup_run(self, rows: Seq[Sequence], *, regrouped: bool) -> None:
        """Into the first layer; where ``regrouped``, half of them then go on without the others.  For timing."""
        pack = self.model.pack(rows)
        hidden = self.model.embed(pack)
        if regrouped:
            half = range(0, len(rows), 2)
            stayed = [rows[index] for index in half]
            self.model.resume(self.model.pack(stayed), [], self.model.keep(hidden, pack, half), 0)

    def probe(self) -> None:
        """Run a sequence that cannot fail on a device that works; raises where it fails."""
        ids = np.ones(min(PROBE_TOKENS, self.max_length), dtype=np.int32)
        one = Progress(Sequence(ids, np.zeros_like(ids), len(ids)), early_exit=False)
        advance(self.model, self.stepping, [one], self.stepping.layers, never)

    def rebuild(self) -> None:
        if self.remake is not None:
            with contextlib.suppress(ServiceError):  # the device may be the reason
                self.model.give_back()
            self.model = self.remake()

    def logits_by_depth(self, rows: Seq[Sequence], deadline: float, piece: InDeviceThread) -> list[list[Floats]]:
        """The head's logits (depths, rows).  Blocks until the last ``piece`` is done, which ends at ``deadline``."""
        return logits_by_depth(self.model, rows, piece)

    def attention_of(
        self, row: Sequence, layers: Seq[int] | None, heads: Seq[int] | None, deadline: float, piece: InDeviceThread
    ) -> Attention:
        """Where ``row`` looked.  Blocks as ``logits_by_depth``; InvalidRequest where the version has no such graph."""
        return collect(attention_by_layer(self.model, self.attention(), row, piece), layers, heads)

    def attention(self) -> AttentionModel:
        """Blocks where it is the first to ask.  InvalidRequest where the version has none."""
        with self._opening:
            if self._attention is None:
                assert self.open_attention is not None
                self._attention = self.open_attention()
            return self._attention

    def _through(self, stepping: Stepping, rows: Seq[Sequence], check_interval: int) -> list[Progress]:
        """Each row, going on until it leaves."""
        done: dict[int, Progress] = {}
        waiting = dict(enumerate(map(Progress, rows)))
        while waiting:
            moved = advance(self.model, stepping, list(waiting.values()), check_interval)
            at = dict(zip(waiting, moved, strict=True))
            done |= {index: one for index, one in at.items() if one.logits is not None}
            waiting = {index: one for index, one in at.items() if one.logits is None}
        return [done[index] for index in range(len(rows))]

    def close(self) -> None:
        """Nothing of it is asked any more."""
        self._attention = None


def _logits(one: Progress) -> Floats:
    assert one.logits is not None
    return one.logits
