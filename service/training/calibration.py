"""Scores that mean what they say: a classifier's temperature, and the lead at which a reader says "no answer"."""

import math
from collections.abc import Callable, Sequence as Seq
from dataclasses import replace
from typing import Any

import numpy as np

from service.errors import DataError
from service.serving.engine import Engine
from service.tasks.classification import Classification, EncodedText
from service.tasks.question_answering import QuestionAnswering
from service.training import splits
from service.training.predictors import (
    classification,
    encode_questions,
    encode_texts,
    reader,
    run_each,
)
from service.training.scores import calibration_error, reliability, token_f1
from service.types import Floats

LEAST, MOST = 0.2, 10.0  # temperatures looked at
GOLDEN = (math.sqrt(5) - 1) / 2


def calibrate(engine: Engine, sources: Seq[str]) -> dict[str, Any]:
    """What the manifest is to hold: ``temperature`` or ``no_answer_threshold``, and how they were found.

    ``sources`` are taken together.  DataError where they cannot decide it.
    """
    if isinstance(engine.task, Classification):
        return _classifier(engine, classification(engine), sources)
    return _reader(engine, reader(engine), sources)


def _classifier(engine: Engine, task: Classification, sources: Seq[str]) -> dict[str, Any]:
    """Of several files each counts the same, whatever its size."""
    if task.problem_type != "single_label_classification":
        raise DataError(f"{engine.ref}: a temperature is fitted where each text has one label")
    parts = []
    for source in sources:
        rows = splits.labelled(source)
        parts.append((run_each(engine, encode_texts(task, rows)), [row.label for row in rows]))

    def likelihood(temperature: float) -> float:
        cooled = replace(task, temperature=temperature)
        return sum(_log_loss(cooled, outcomes, gold) for outcomes, gold in parts) / len(parts)

    best = _least(likelihood, LEAST, MOST)
    errors = {}
    for name, temperature in (("before", 1.0), ("after", best)):
        values = [_error(replace(task, temperature=temperature), *part) for part in parts]
        errors[f"calibration_error_{name}"] = round(sum(values) / len(values), 4)
    facts = {"data": [splits.name(source) for source in sources]} | errors
    return {"temperature": round(best, 4), "calibration": facts}


Outcome = tuple[EncodedText, list[Floats]]


def _log_loss(task: Classification, outcomes: Seq[Outcome], gold: Seq[str]) -> float:
    total = 0.0
    for (item, logits), label in zip(outcomes, gold, strict=True):
        total -= math.log(max(1e-9, dict(task.decode(item, logits).labels).get(label, 0.0)))
    return total / len(gold)


def _error(task: Classification, outcomes: Seq[Outcome], gold: Seq[str]) -> float:
    best = [task.decode(item, logits).labels[0] for item, logits in outcomes]
    right = [label == wanted for (label, _), wanted in zip(best, gold, strict=True)]
    return calibration_error(reliability([score for _, score in best], right))


def _least(value: Callable[[float], float], low: float, high: float, rounds: int = 24) -> float:
    """Where ``value`` is least, by golden section on a logarithmic scale; it has one valley between the two."""
    a, b = math.log(low), math.log(high)
    for _ in range(rounds):
        left, right = b - GOLDEN * (b - a), a + GOLDEN * (b - a)
        if value(math.exp(left)) < value(math.exp(right)):
            b = right
        else:
            a = left
    return math.exp((a + b) / 2)


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
