"""When may a sequence leave before the last layer?  A rule over what the head says at each depth.

``confidence``: its answer is sure enough.  ``window``: it is, and the last depths agree on it, so that one lucky depth
settles nothing.  Sources: ELBERT (Xie et al. 2021) for the window, PABEE (Zhou et al. 2020) for agreement.
"""

from collections.abc import Sequence as Seq
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..types import Floats

Kind = Literal["confidence", "window"]


@dataclass(frozen=True, slots=True)
class ExitSignal:
    """What the head says at one depth: ``choice`` (a label, or a first and a last token) and how sure it is, 0 to 1."""

    choice: tuple[int, ...]
    confidence: float


@dataclass(frozen=True, slots=True)
class ExitPolicy:
    """Leave at the first depth, from ``first`` on, at which the last ``window`` depths agree, each sure enough."""

    kind: Kind
    threshold: float
    first: int = 1
    window: int = 1

    def leaves(self, exit_history: Seq[ExitSignal], depth: int) -> bool:
        """May a sequence leave at ``depth``?  ``exit_history`` holds the signals up to there, at least ``window``."""
        if depth < self.first or len(exit_history) < self.window:
            return False
        recent = exit_history[-self.window :]
        agreed = all(one.choice == recent[-1].choice for one in recent)
        return agreed and all(one.confidence >= self.threshold for one in recent)

    def depth(self, exit_signals: Seq[ExitSignal]) -> int:
        """The depth at which a sequence leaves, given those of all depths; the last one where it never may."""
        leaving = (depth for depth in range(1, len(exit_signals)) if self.leaves(exit_signals[:depth], depth))
        return next(leaving, len(exit_signals))


def exit_signals(logits: Seq[Floats], temperature: float = 1.0) -> list[ExitSignal]:
    """Of each row's logits; those of a classifier all at once."""
    if logits[0].ndim != 1:
        return [exit_signal(one, temperature) for one in logits]
    scaled = np.stack(logits).astype(np.float64) / temperature
    confidence = 1 / np.exp(scaled - scaled.max(axis=1, keepdims=True)).sum(axis=1)
    choices = scaled.argmax(axis=1).tolist()
    return [ExitSignal((choice,), sure) for choice, sure in zip(choices, confidence.tolist(), strict=True)]


def exit_signal(logits: Floats, temperature: float = 1.0) -> ExitSignal:
    """Of a classifier's logits (labels,), or a reader's (tokens, 2): its two choices are as sure as their product."""
    columns = [logits] if logits.ndim == 1 else [logits[:, 0], logits[:, 1]]
    choices, confidence = [], 1.0
    for column in columns:
        scaled = column.astype(np.float64) / temperature
        choices.append(int(scaled.argmax()))
        confidence /= float(np.exp(scaled - scaled.max()).sum())
    return ExitSignal(tuple(choices), confidence)
