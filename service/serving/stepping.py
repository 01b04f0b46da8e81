"""Through the one shared layer in steps: who has come how far, how many layers a step runs, who may leave.

ALBERT runs the same layer at every depth, so sequences of different depths share a step, and each may leave or join
between layers.  In other encoders a batch waits for its last member; here nobody waits.
"""

from collections.abc import Sequence as Seq
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from service.runtime.packing import Pack
from service.runtime.session import Hidden, Model
from service.tasks.exits import ExitPolicy, Opinion, opinions
from service.types import Floats, Sequence


@dataclass(frozen=True, slots=True)
class Progress:
    """How far one sequence has come.

    ``hidden`` (tokens, hidden) is its state between layers, None before the first; ``heard`` what the head said so
    far; ``logits`` are there once it has left.
    """

    sequence: Sequence
    early_exit: bool = True
    depth: int = 0
    hidden: Any = None
    heard: tuple[Opinion, ...] = ()
    logits: Floats | None = None

    def __len__(self) -> int:
        return len(self.sequence)


@dataclass(frozen=True, slots=True)
class Stepping:
    """The way through a model of ``layers`` layers.

    ``mixes``: all layers are one, so that sequences of different depths share a step.  ``layers_per_step``: how few
    layers a step of a full budget may run without being slower by much; 0, all that there are.  ``mean_depth``: where
    ``exits`` are expected on average.
    """

    layers: int
    mixes: bool = True
    layers_per_step: int = 0
    exits: ExitPolicy | None = None
    mean_depth: float = 0.0
    temperature: float = 1.0

    def lane(self, one: Progress) -> int:
        """Only sequences of one lane share a step."""
        return 0 if self.mixes else one.depth

    def left(self, one: Progress) -> float:
        """The share of a whole pass that is expected to lie before it: more than zero."""
        end = self.mean_depth if self.exits and one.early_exit else self.layers
        return max(1.0, end - one.depth) / self.layers

    @property
    def share_of_a_step(self) -> float:
        """Of a whole pass, in a full step."""
        return (self.layers_per_step or self.layers) / self.layers

    def step(self, group: Seq[Progress], budget: int) -> int:
        """How many layers ``group`` runs next: up to where the first may leave, and the fewer the more tokens it has.

        Every step is about the work of ``budget`` tokens through ``layers_per_step`` layers: what comes meanwhile waits
        for no more than that.  A single short text goes through all layers at once, a long one layer by layer.
        """
        if not self.layers_per_step:
            return self.end(group)
        return min(self.end(group), max(1, budget * self.layers_per_step // sum(map(len, group))))

    def end(self, group: Seq[Progress]) -> int:
        """How many layers ``group`` may run until the first of them may leave."""
        return min(self._next_exit(one) - one.depth for one in group)

    def patient(self) -> "Stepping":
        """The same with nobody sure enough to leave early: what the head costs at every depth is still paid."""
        return replace(self, exits=self.exits and replace(self.exits, threshold=2.0))

    def listens(self, one: Progress) -> bool:
        """Is the head to be asked about ``one`` at its depth?"""
        return one.depth == self.layers or one.depth >= self._first_heard(one)

    def leaves(self, one: Progress) -> bool:
        if one.depth == self.layers:
            return True
        return self.exits is not None and one.early_exit and self.exits.leaves(one.heard, one.depth)

    def _next_exit(self, one: Progress) -> int:
        """The next depth at which the head is asked about ``one``."""
        return min(self.layers, max(self._first_heard(one), one.depth + 1))

    def _first_heard(self, one: Progress) -> int:
        """A window of opinions begins before the first depth at which it may be left."""
        if self.exits is None or not one.early_exit:
            return self.layers
        return self.exits.first - self.exits.window + 1


def advance(model: Model, stepping: Stepping, group: Seq[Progress], layers: int) -> list[Progress]:
    """``group`` after ``layers`` more layers, in its order.  Runs on the device, in the device's thread."""
    order = sorted(range(len(group)), key=lambda index: group[index].hidden is not None)  # those that begin, first
    begun = [group[index] for index in order]
    pack = Pack.of([one.sequence for one in begun])
    hidden = model.advance(_entered(model, begun, pack), pack, layers)
    moved = [replace(one, depth=one.depth + layers, hidden=None) for one in begun]
    asked = [index for index, one in enumerate(moved) if stepping.listens(one)]
    if asked:
        logits = model.finish(hidden, pack, asked)
        said = opinions(logits, stepping.temperature) if stepping.exits else [None] * len(asked)
        for index, values, one_said in zip(asked, logits, said, strict=True):
            moved[index] = _answered(moved[index], stepping, values, one_said)
    if any(one.logits is None for one in moved):
        states = model.states(hidden, pack)
        moved = [replace(one, hidden=states[i].copy()) if one.logits is None else one for i, one in enumerate(moved)]
    placed = dict(zip(order, moved, strict=True))
    return [placed[index] for index in range(len(group))]


def _entered(model: Model, begun: Seq[Progress], pack: Pack) -> Hidden:
    """The hidden state of all, the new ones embedded first."""
    new = [one.sequence for one in begun if one.hidden is None]
    if len(new) == len(begun):
        return model.begin(pack)
    states = [one.hidden for one in begun[len(new) :]]
    if new:
        entering = Pack.of(new)
        states = [*model.states(model.begin(entering), entering), *states]
    return Hidden(np.concatenate(states), begun[0].depth)


def _answered(one: Progress, stepping: Stepping, logits: Floats, said: Opinion | None) -> Progress:
    if said is not None:
        one = replace(one, heard=(*one.heard, said))
    return replace(one, logits=logits) if stepping.leaves(one) else one
