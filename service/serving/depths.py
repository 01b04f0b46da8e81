"""What the head would answer after each turn of the layers: how a decision forms.

An ALBERT with one shared layer can be asked so plainly: at each depth the head reads a state of the same making.  A
head that was taught at the last depth alone says little before it; ``train --exits`` teaches it at every depth.
"""

from collections.abc import Callable, Sequence as Seq
from typing import Any, Protocol

from ..runtime.session import Hidden, Model
from ..types import Floats, Sequence


class InDeviceThread(Protocol):
    """Runs a piece of work there, in its turn, and waits for it: ``DeviceLoop.between_steps``."""

    def __call__(self, work: Callable[[], Any], /) -> Any: ...


def logits_by_depth(model: Model, rows: Seq[Sequence], run: InDeviceThread) -> list[list[Floats]]:
    """The head's logits (depths, rows), from depth 1 on; a piece of work is one layer of one row, or of its windows."""
    pack = model.pack(rows)
    hidden: Hidden = run(lambda: model.embed(pack))

    def turn(before: Hidden) -> tuple[Hidden, list[Floats]]:
        after = model.advance(before, pack, 1)
        return after, model.head(after, pack)

    found: list[list[Floats]] = []
    while hidden.depth < model.depth:
        hidden, logits = run(lambda before=hidden: turn(before))  # type: ignore[misc]
        found.append(logits)
    return found
