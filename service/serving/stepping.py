"""Through the one shared layer in steps: who has come how far, how many layers a step runs, who may leave.

ALBERT runs the same layer at every depth, so sequences of different depths share a step, and each may leave or join
between layers.  In other encoders a batch waits for its last member; here nobody waits.
"""

from collections.abc import Callable, Sequence as Seq
from dataclasses import dataclass, replace
from typing import Any

from service.runtime.packing import Pack
from service.runtime.session import Hidden, Model
from service.tasks.exits import ExitPolicy, Opinion, opinions
from service.types import Floats, Sequence

Stop = Callable[[], bool]


def never() -> bool:
    return False


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

    ``mixes``: all layers are one, so that sequences of different depths share a step.  ``layers_per_step``: after how
    few layers of a full budget one may look at what came meanwhile without being slower by much; 0, after all.
    ``mean_depth``: where ``exits`` are expected on average.
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

    def piece(self, group: Seq[Progress], budget: int) -> int:
        """After how many layers of ``group`` one looks at what came meanwhile: the fewer the more tokens it has.

        It is about the work of ``budget`` tokens through ``layers_per_step`` layers: nobody who may pass waits longer.
        """
        if not self.layers_per_step:
            return self.layers
        return max(1, budget * self.layers_per_step // sum(map(len, group)))

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


def advance(model: Model, stepping: Stepping, group: Seq[Progress], piece: int, stop: Stop = never) -> list[Progress]:
    """``group``, in its order, once one of it has left or ``stop`` said so after a piece of ``piece`` layers.

    Runs on the device, in the device's thread.
    """
    order = sorted(range(len(group)), key=lambda index: group[index].hidden is not None)  # those that begin, first
    going = [group[index] for index in order]
    pack = model.pack([one.sequence for one in going])
    hidden = _entered(model, going, pack)
    while True:
        before, hidden = hidden.depth, _run(model, hidden, pack, stepping.end(going), piece, stop)
        going = [replace(one, depth=one.depth + hidden.depth - before, hidden=None) for one in going]
        going = _heard(model, stepping, going, hidden, pack)
        if any(one.logits is not None for one in going) or stop():
            break
    if any(one.logits is None for one in going):
        states = model.states(hidden, pack)
        going = [replace(one, hidden=states[i].copy()) if one.logits is None else one for i, one in enumerate(going)]
    placed = dict(zip(order, going, strict=True))
    return [placed[index] for index in range(len(group))]


def _run(model: Model, hidden: Hidden, pack: Pack, layers: int, piece: int, stop: Stop) -> Hidden:
    """Through ``layers`` layers, or fewer where ``stop`` says so between two pieces."""
    end = hidden.depth + layers
    while True:
        hidden = model.advance(hidden, pack, min(piece, end - hidden.depth))
        if hidden.depth == end or stop():
            return hidden


def _heard(model: Model, stepping: Stepping, going: Seq[Progress], hidden: Hidden, pack: Pack) -> list[Progress]:
    """What the head says of those about whom it is to be asked at their depth; who is sure enough has logits then."""
    moved = list(going)
    asked = [index for index, one in enumerate(moved) if stepping.listens(one)]
    if asked:
        logits = model.finish(hidden, pack, asked)
        said = opinions(logits, stepping.temperature) if stepping.exits else [None] * len(asked)
        for index, values, one_said in zip(asked, logits, said, strict=True):
            moved[index] = _answered(moved[index], stepping, values, one_said)
    return moved


def _entered(model: Model, begun: Seq[Progress], pack: Pack) -> Hidden:
    """The hidden state of all, the new ones embedded first."""
    new = [one.sequence for one in begun if one.hidden is None]
    if len(new) == len(begun):
        return model.begin(pack)
    states = [one.hidden for one in begun[len(new) :]]
    if new:
        entering = model.pack(new)
        states = [*model.states(model.begin(entering), entering), *states]
    return Hidden(pack.join(states), begun[0].depth)


def _answered(one: Progress, stepping: Stepping, logits: Floats, said: Opinion | None) -> Progress:
    if said is not None:
        one = replace(one, heard=(*one.heard, said))
    return replace(one, logits=logits) if stepping.leaves(one) else one
