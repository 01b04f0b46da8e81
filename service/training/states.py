"""Where a run is, and all that it needs to go on, in one file that is replaced whole."""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from ..errors import TrainingError

State = dict[str, Any]


@dataclass(slots=True)
class Progress:
    """``epoch`` and ``batch``: what the stream gives next.  ``history`` has one entry an evaluation."""

    step: int = 0
    epoch: int = 0
    batch: int = 0
    seconds: float = 0.0
    best: float = -1.0
    best_step: int = 0
    worse: int = 0  # evaluations since the best one
    evaluated: int = 0
    smooth: float | None = None  # the loss, averaged over about the last fifty steps
    history: list[dict[str, float]] = field(default_factory=list)

    def learn(self, loss: float) -> None:
        self.smooth = loss if self.smooth is None else 0.98 * self.smooth + 0.02 * loss

    def judge(self, score: float, loss: float, figures: Mapping[str, float]) -> bool:
        """Note an evaluation with what else was measured; True where it is the best so far."""
        shown = round(loss if self.smooth is None else self.smooth, 4)
        entry = {"step": self.step, "seconds": round(self.seconds, 1), "loss": shown, "score": round(score, 4)}
        self.history.append(entry | dict(figures))
        if score > self.best:
            self.best, self.best_step, self.worse = score, self.step, 0
            return True
        self.worse += 1
        return False


def save(
    path: Path, learner: Any, optimizer: torch.optim.Optimizer, progress: Progress, best: State, identity: str
) -> None:  # fmt: skip
    """TrainingError where the disk does not take it; the state saved before is whole then."""
    aside = path.with_suffix(".part")
    parts = {"learner": learner.state_dict(), "optimizer": optimizer.state_dict()}
    try:
        torch.save(parts | {"progress": asdict(progress), "best": best, "identity": identity}, aside)
        os.replace(aside, path)  # a kill in the middle of a save leaves the save before it
    except (OSError, RuntimeError) as error:  # torch's writer knows only RuntimeError
        aside.unlink(missing_ok=True)
        raise TrainingError(
            f"{path}: the state cannot be saved ({error}). Free some of the disk; the same command then goes on from "
            "the last state that was saved."
        ) from error


def restore(path: Path, learner: Any, optimizer: torch.optim.Optimizer, identity: str) -> tuple[Progress, State]:
    """TrainingError where the file is damaged, or is that of a run with another ``identity``."""
    try:
        state = torch.load(path, map_location=next(learner.parameters()).device, weights_only=True)
        if state["identity"] != identity:
            raise ValueError("the data or the settings are others")
        learner.load_state_dict(state["learner"])
        optimizer.load_state_dict(state["optimizer"])
        return Progress(**state["progress"]), state["best"]
    except Exception as error:  # a damaged archive raises whatever its parts raise
        raise TrainingError(
            f"{path} is not a state of this run ({error}). Delete it to begin again, or give another --out."
        ) from error
