"""Scores that mean what they say: temperature and evidence of a classifier, and when a reader says "no answer"."""

import math
from collections.abc import Callable, Sequence as Seq
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from service.errors import DataError
from service.serving.engine import Engine
from service.tasks.classification import Classification, Doubles, activate, mean_of_windows
from service.tasks.question_answering import QuestionAnswering
from service.training import splits
from service.training.datasets import Labelled
from service.training.predictors import (
    classification,
    encode_questions,
    encode_texts,
    reader,
    run_each,
)
from service.training.scores import calibration_error, reliability, token_f1

LEAST, MOST = 0.2, 10.0  # temperatures looked at
GOLDEN = (math.sqrt(5) - 1) / 2


def calibrate(engine: Engine, sources: Seq[str]) -> dict[str, Any]:
    """What the manifest is to hold: ``temperature`` and ``evidence``, or ``no_answer_threshold``, and the facts.

    ``sources`` are taken together.  DataError where they cannot decide it.
    """
    if isinstance(engine.task, Classification):
        return _classifier(engine, classification(engine), sources)
    return _reader(engine, reader(engine), sources)


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
        return math.exp(_least(lambda log: loss(math.exp(log), evidence), math.log(LEAST), math.log(MOST)))

    evidence = _least(lambda value: loss(temperature(value), value), 0, 1)
    return temperature(evidence), evidence


def _least(value: Callable[[float], float], low: float, high: float, rounds: int = 24) -> float:
    """Where ``value`` is least, by golden section; it has one valley between the two."""
    for _ in range(rounds):
        left, right = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
        if value(left) < value(right):
            high = right
        else:
            low = left
    return (low + high) / 2


def _reader(engine: Engine, task: QuestionAnswering, sources: Seq[str]) -> dict[str, Any]:
    questions = [question for source in sources for question in splits.questions(source)]
    if all(question.answers for question in questions):
        raise DataError(f"{', '.join(sources)}: a threshold takes questions without an answer too, as in SQuAD 2.0")
    outcomes = run_each(engine, encode_questions(task, questions))
    leads, answered, silent = [], [], []
    for question, (item, logits) in zip(questions, outcomes, strict=True):
        done = task.decode(item, logits)
        golds = [text for text, _ in question.answers]
        answer = done.answers[0]
        leads.append(task.temperature * (math.log(done.no_answer_score) - math.log(answer.score)))
        answered.append(token_f1(answer.text, golds))
        silent.append(token_f1("", golds))
    threshold, score = best_threshold(leads, answered, silent)
    facts = {"data": [splits.name(source) for source in sources], "f1": round(100 * score, 2)}
    return {"no_answer_threshold": round(threshold, 4), "calibration": facts}


def best_threshold(leads: Seq[float], answered: Seq[float], silent: Seq[float]) -> tuple[float, float]:
    """The lead above which "no answer" is said, and the mean score that it gives.

    ``leads``, ``answered`` and ``silent`` are by question: how far "no answer" is ahead, and the score of the answer
    and of silence.  The threshold lies in the middle between two leads.
    """
    order = np.argsort(leads)
    ahead = np.asarray(leads, dtype=np.float64)[order]
    gain = np.asarray(answered, dtype=np.float64)[order]
    loss = np.asarray(silent, dtype=np.float64)[order]
    # With the threshold after the first k questions, those are answered and the rest are not.
    scores = np.concatenate(([0.0], np.cumsum(gain))) + np.concatenate((np.cumsum(loss[::-1])[::-1], [0.0]))
    best = int(scores.argmax())
    edges = np.concatenate(([ahead[0] - 1], (ahead[1:] + ahead[:-1]) / 2, [ahead[-1] + 1]))
    return float(edges[best]), float(scores[best] / len(order))
