"""Scores that mean what they say: the temperature and the evidence of a classifier."""

from collections.abc import Callable, Sequence as Seq
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import DataError
from ..serving.engine import Engine
from ..tasks.classification import Classification, Doubles, activate, mean_of_windows
from . import splits
from .datasets import Labelled
from .golden_section import least, least_scale
from .predictors import classification, encode_texts, reader, run_each
from .reader_calibration import calibrate_reader
from .scores import calibration_error, reliability

LEAST, MOST = 0.2, 10.0  # temperatures looked at


def calibrate(engine: Engine, sources: Seq[str]) -> dict[str, Any]:
    """What the manifest is to hold of the model's confidence, and the facts of how it was fitted.

    ``sources`` are taken together.  DataError where they cannot decide it.
    """
    if isinstance(engine.task, Classification):
        return _classifier(engine, classification(engine), sources)
    return calibrate_reader(engine, reader(engine), sources)


@dataclass(frozen=True, slots=True)
class Judged:
    """Texts of one file: ``logits`` (texts, labels), their ``tokens`` (texts, 1), and the labels that are true."""

    logits: Doubles
    tokens: Doubles
    gold: npt.NDArray[np.intp]

    def log_loss(self, task: Classification) -> float:
        scaled = task.tempered(self.logits, self.tokens)
        shifted = scaled - scaled.max(axis=1, keepdims=True)
        true = shifted[np.arange(len(self.gold)), self.gold]
        return float(np.mean(np.log(np.exp(shifted).sum(axis=1)) - true))

    def error(self, task: Classification) -> float:
        scores = activate(task.tempered(self.logits, self.tokens), "softmax")
        right = scores.argmax(axis=1) == self.gold
        return calibration_error(reliability(scores.max(axis=1).tolist(), right.tolist()))


def _classifier(engine: Engine, task: Classification, sources: Seq[str]) -> dict[str, Any]:
    """Of several files each counts the same, whatever its size."""
    if task.activation != "softmax":
        raise DataError(f"{engine.ref}: a temperature is fitted where each text has one label")
    parts = [_judged(engine, task, splits.labelled(source)) for source in sources]

    def fitted(temperature: float, evidence: float) -> Classification:
        return replace(task, temperature=temperature, evidence=evidence)

    best = fitted(*fit_scale(lambda *scale: sum(part.log_loss(fitted(*scale)) for part in parts)))
    errors = {}
    for name, one in (("before", fitted(1.0, 0.0)), ("after", best)):
        errors[f"calibration_error_{name}"] = round(sum(part.error(one) for part in parts) / len(parts), 4)
    facts = {"data": [splits.name(source) for source in sources]} | errors
    scale = {"temperature": round(best.temperature, 4), "evidence": round(best.evidence, 4)}
    return scale | {"calibration": facts}


def _judged(engine: Engine, task: Classification, rows: Seq[Labelled]) -> Judged:
    done = run_each(engine, encode_texts(task, rows))
    return Judged(
        np.stack([mean_of_windows(item, np.stack(logits)) for item, logits in done]),
        np.array([[item.tokens] for item, _ in done], dtype=np.float64),
        np.array([task.labels.index(row.label) for row in rows]),
    )


def fit_scale(loss: Callable[[float, float], float]) -> tuple[float, float]:
    """The temperature and the evidence with the least ``loss``."""

    def temperature(evidence: float) -> float:
        return least_scale(lambda value: loss(value, evidence), LEAST, MOST)

    evidence = least(lambda value: loss(temperature(value), value), 0, 1)
    return temperature(evidence), evidence
