"""Through the one shared layer in batch steps: how far each sequence has come, when it may leave.

ALBERT runs the same layer at every depth, so sequences of different depths share a batch step, and each may leave or
join between layers.  This is continuous batching (Orca, Yu et al. 2022) with layers in the place of tokens.
"""

from collections.abc import Callable, Sequence as Seq
from dataclasses import dataclass, replace
from typing import Any

from ..runtime.packing import Pack
from ..runtime.session import Hidden, Model
from ..tasks.exits import ExitPolicy, ExitSignal, exit_signals
from ..types import Floats, Sequence

Stop = Callable[[], bool]


def never() -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Progress:
    """How far one sequence has come.

    ``hidden`` (tokens, hidden) is its state between layers, None before the first; ``exit_history`` holds the signals
    of the head so far; ``logits`` are there once it has left.
    """

    sequence: Sequence
    early_exit: bool = True
    depth: int = 0
    hidden: Any = None
    exit_history: tuple[ExitSignal, ...] = ()
    logits: Floats | None = None

    def __len__(self) -> int:
        return len(self.sequence)


@dataclass(frozen=True, slots=True)
class Stepping:
    """How a model of ``layers`` layers is run.

    ``mixes``: all layers are one, so that sequences of different depths share a batch step.  ``layers_per_check``:
    after how few layers of a full budget the queue may be looked at without being slower by much; 0, after all.
    ``mean_depth``: where ``exits`` are expected on average.  ``regrouping``: what it costs to take those that leave out
    of a step, in layers of the step.
    """

    layers: int
    mixes: bool = True
    layers_per_check: int = 0
    exits: ExitPolicy | None = None
    mean_depth: float = 0.0
    temperature: float = 1.0
    regrouping: float = 0.0

    def batch_key(self, one: Progress) -> int:
        """Only sequences of one key share a batch step."""
        return 0 if self.mixes else one.depth

    def remaining(self, one: Progress) -> float:
        """The share of all layers that a sequence is expected to have before it: more than zero."""
        end = self.mean_depth if self.exits and one.early_exit else self.layers
        return max(1.0, end - one.depth) / self.layers

    def check_interval(self, group: Seq[Progress], budget: int) -> int:
        """After how many layers of ``group`` the queue is looked at: the fewer the more tokens it has.

        It is about the work of ``budget`` tokens through ``layers_per_check`` layers, which bounds how long a sequence
        of lower rank waits.
        """
        if not self.layers_per_check:
            return self.layers
        return max(1, budget * self.layers_per_check // sum(map(len, group)))

    def end(self, group: Seq[Progress]) -> int:
        """How many layers ``group`` may run until the first of them may leave."""
        return min(self._next_exit(one) - one.depth for one in group if one.logits is None)

    def together(self, group: Seq[Progress]) -> list[int] | None:
        """Which of ``group`` are not done, where all of them have come as far; else None."""
        going = [index for index, one in enumerate(group) if one.logits is None]
        return going if len({group[index].depth for index in going}) == 1 else None

    def worth_ending(self, group: Seq[Progress]) -> bool:
        """Is a step over because some of ``group`` are done?  Where the layers that it would run for nothing cost more
        than to go on without them."""
        going = [one for one in group if one.logits is None]
        if not going or len(going) == len(group):
            return not going
        left = self.layers - min(one.depth for one in going)
        done = sum(len(one) for one in group if one.logits is not None)
        return done * left >= self.regrouping * sum(map(len, group))

    def without_early_exit(self) -> "Stepping":
        """The same with no sequence confident enough to leave; the head still runs at every depth."""
        return replace(self, exits=self.exits and replace(self.exits, threshold=2.0))

    def needs_head(self, one: Progress) -> bool:
        """Is the head to be run on ``one`` at its depth?"""
        return one.depth == self.layers or one.depth >= self._first_asked(one)

    def leaves(self, one: Progress) -> bool:
        if one.depth == self.layers:
            return True
        return self.exits is not None and one.early_exit and self.exits.leaves(one.exit_history, one.depth)

    def _next_exit(self, one: Progress) -> int:
        """The next depth at which the head is run on ``one``."""
        return min(self.layers, max(self._first_asked(one), one.depth + 1))

    def _first_asked(self, one: Progress) -> int:
        """A window of signals begins before the first depth at which a sequence may leave."""
        if self.exits is None or not one.early_exit:
            return self.layers
        return self.exits.first - self.exits.window + 1


def advance(
    model: Model, stepping: Stepping, group: Seq[Progress], check_interval: int, stop: Stop = never
) -> list[Progress]:
    """One batch step: ``group``, in its order, once enough of it have left or ``stop`` is true after some layers.

    ``stop`` is asked every ``check_interval`` layers.  Runs on the device, in the device's thread.
    """
    order = sorted(range(len(group)), key=lambda index: group[index].hidden is not None)  # those that begin, first
    going = [group[index] for index in order]
    pack = model.pack([one.sequence for one in going])
    hidden = _entered(model, going, pack)
    while True:
        # Of those that go on: who is done may have been deeper, and is carried along for nothing.
        hidden = replace(hidden, depth=min(one.depth for one in going if one.logits is None))
        before = hidden.depth
        hidden = _run(model, hidden, pack, stepping.end(going), check_interval, stop, stepping.together(going))
        layers = hidden.depth - before
        going = [
            one if one.logits is not None else replace(one, depth=one.depth + layers, hidden=None) for one in going
        ]
        going = _ask_head(model, stepping, going, hidden, pack)
        if stepping.worth_ending(going) or stop():
            break
    if stay := [index for index, one in enumerate(going) if one.logits is None]:
        for index, state in zip(stay, model.keep(hidden, pack, stay), strict=True):
            going[index] = replace(going[index], hidden=state)
    placed = dict(zip(order, going, strict=True))
    return [placed[index] for index in range(len(group))]


def _run(
    model: Model, hidden: Hidden, pack: Pack, layers: int, check_interval: int, stop: Stop, together: Seq[int] | None
) -> Hidden:
    """Through ``layers`` layers, or fewer where ``stop`` is true in between.  ``together``: those who end with the last
    layer, if all do."""
    end = hidden.depth + layers
    while True:
        hidden = model.advance(hidden, pack, min(check_interval, end - hidden.depth), together)
        if hidden.depth == end or stop():
            return hidden


def _ask_head(model: Model, stepping: Stepping, going: Seq[Progress], hidden: Hidden, pack: Pack) -> list[Progress]:
    """Run the head on those that need it at their depth; those that leave have logits then."""
    moved = list(going)
    asked = [index for index, one in enumerate(moved) if one.logits is None and stepping.needs_head(one)]
    if asked:
        logits = model.head(hidden, pack, asked)
        signals = exit_signals(logits, stepping.temperature) if stepping.exits else [None] * len(asked)
        for index, values, signal in zip(asked, logits, signals, strict=True):
            moved[index] = _answered(moved[index], stepping, values, signal)
    return moved


def _entered(model: Model, begun: Seq[Progress], pack: Pack) -> Hidden:
    """The hidden state of all, the new ones embedded first."""
    new = [one.sequence for one in begun if one.hidden is None]
    if len(new) == len(begun):
        return model.embed(pack)
    kept = begun[len(new) :]
    return model.resume(pack, new, [one.hidden for one in kept], begun[0].depth)


def _answered(one: Progress, stepping: Stepping, logits: Floats, signal: ExitSignal | None) -> Progress:
    if signal is not None:
        one = replace(one, exit_history=(*one.exit_history, signal))
    return replace(one, logits=logits) if stepping.leaves(one) else one
