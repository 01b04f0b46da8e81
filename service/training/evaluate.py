"""How good is a model?  Scores of its answers on a file of examples, and their tables and pictures."""

import json
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError
from . import pictures, splits
from .augment import with_typos
from .datasets import Labelled, Question
from .evaluate_heads import EVALUATORS, evaluate_head
from .predictors import Local, Predictor, Reply, Scored
from .scores import (
    Bin,
    accuracy,
    calibration_error,
    exact_match,
    interval,
    label_f1,
    macro_f1,
    reliability,
    token_f1,
)

LENGTHS = (16, 32, 64, 128, 256, 512)  # tokens, upper ends
NEGATION = re.compile(r"\b(not|no|never|nothing|nor|neither|without|hardly|cannot|\w+n't|\w+ n't)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Request:
    """``source``: ``FILE`` or ``FILE:1/2``.  ``typos``: share of the longer words that are mistyped first."""

    source: str
    typos: float = 0.0
    pictures: Path | None = None

    @property
    def name(self) -> str:
        typed = f", {self.typos:.0%} of words mistyped" if self.typos else ""
        return splits.name(self.source) + typed


def evaluate(predictor: Predictor, request: Request) -> dict[str, Any]:
    """Scores on ``request.source``: labelled rows for a classifier, SQuAD's form for a reader, others as
    ``evaluate_heads.py`` has it.

    DataError where the file is of another kind.
    """
    if predictor.task in EVALUATORS:
        if not isinstance(predictor, Local):
            raise DataError(f"{predictor.task} is measured on a version's folder, not over --url")
        if request.typos or splits.name(request.source) != splits.path_of(request.source).name:
            raise DataError(f"{predictor.task} is measured on whole files as they are: no part of one, no --typos")
        return {"data": request.name} | evaluate_head(predictor.engine, splits.path_of(request.source))
    draw = random.Random(7)
    if predictor.task == "question-answering":
        if not splits.is_questions(request.source):
            raise DataError(f"{request.source}: a reader is measured on questions in SQuAD's form (.json)")
        asked = splits.questions(request.source)
        if request.typos:
            asked = [replace(item, question=with_typos(item.question, request.typos, draw)) for item in asked]
        return _reader(asked, predictor, request)
    if splits.is_questions(request.source):
        raise DataError(f"{request.source}: a classifier is measured on labelled texts (.tsv, .csv, .jsonl)")
    rows = splits.labelled(request.source)
    if request.typos:
        rows = [replace(row, text=with_typos(row.text, request.typos, draw)) for row in rows]
    return _classifier(rows, predictor.classify(rows), request)


def _classifier(rows: Sequence[Labelled], scored: Sequence[Scored], request: Request) -> dict[str, Any]:
    gold = [row.label for row in rows]
    unknown = sorted({*gold} - {label for label, _ in scored[0].labels})
    if unknown:
        raise DataError(f"{request.source}: label {unknown[0]!r} is none of the model's")
    given = [one.labels[0][0] for one in scored]
    right = [a == b for a, b in zip(given, gold, strict=True)]
    bins = reliability([one.labels[0][1] for one in scored], right)
    error = calibration_error(bins)
    if request.pictures:
        labels = sorted(set(gold) | {label for label, _ in scored[0].labels})
        stem = _stem(request)
        pictures.draw_confusion(_confusion(gold, given, labels), labels, request.pictures / f"{stem}-confusion.png")
        pictures.draw_reliability(bins, error, request.pictures / f"{stem}-reliability.png")
    values = {"accuracy": accuracy(given, gold), "macro_f1": macro_f1(given, gold), "calibration_error": error}
    found: dict[str, Any] = {"data": request.name, "texts": len(rows)} | _rounded(values)
    found["interval"] = interval([float(value) for value in right])
    found["f1"] = _rounded(label_f1(given, gold))
    negated = [bool(NEGATION.search(row.text)) for row in rows]
    shares = [float(value) for value in right]
    found["accuracy_by_tokens"] = _by_length([one.tokens for one in scored], shares)
    return found | {"accuracy_by_negation": _by_group(["with" if one else "without" for one in negated], shares)}


def _reader(questions: Sequence[Question], predictor: Predictor, request: Request) -> dict[str, Any]:
    """A file with questions that have no answer is measured as SQuAD 2.0 is: saying so is then the right answer."""
    unanswerable = [not question.answers for question in questions]
    replies = predictor.answer(questions, no_answer=any(unanswerable))
    golds = [[text for text, _ in question.answers] for question in questions]
    exact = [100 * exact_match(reply.text, gold) for reply, gold in zip(replies, golds, strict=True)]
    bins = _reliability_of_answers(replies, exact)
    error = calibration_error(bins)
    if request.pictures:
        pictures.draw_reliability(bins, error, request.pictures / f"{_stem(request)}-reliability.png")
    overlap = [100 * token_f1(reply.text, gold) for reply, gold in zip(replies, golds, strict=True)]
    found: dict[str, Any] = {"data": request.name, "questions": len(questions)}
    found |= {"exact_match": _mean(exact), "f1": _mean(overlap), "calibration_error": round(error, 4)}
    found["interval"] = interval(overlap)
    groups = ["has none" if one else "has an answer" for one in unanswerable]
    if any(unanswerable):
        found["f1_by_answer"] = _by_group(groups, overlap, digits=2)
        found["said_no_answer"] = round(sum(reply.text == "" for reply in replies) / len(replies), 4)
    # What no_answer: true would leave without an answer, whether it was asked for here or not.
    found["no_answer_by_answer"] = _by_group(groups, [float(reply.no_answer_score > 0.5) for reply in replies])
    return found | {"f1_by_tokens": _by_length([reply.tokens for reply in replies], overlap, digits=2)}


def _reliability_of_answers(replies: Sequence[Reply], exact: Sequence[float]) -> list[Bin]:
    """Of the answers that are given: is their score the share that matches exactly?"""
    given = [(reply.score, right > 0) for reply, right in zip(replies, exact, strict=True) if reply.text]
    return reliability([score for score, _ in given], [right for _, right in given])


def _confusion(gold: Sequence[str], given: Sequence[str], labels: Sequence[str]) -> Any:
    table = np.zeros((len(labels), len(labels)), dtype=np.int64)
    for a, b in zip(gold, given, strict=True):
        table[labels.index(a), labels.index(b)] += 1
    return table


def _by_length(tokens: Sequence[int], values: Sequence[float], digits: int = 4) -> dict[str, Any]:
    names = [next((f"up to {end}" for end in LENGTHS if count <= end), "longer") for count in tokens]
    order = [f"up to {end}" for end in LENGTHS] + ["longer"]
    found = _by_group(names, values, digits)
    return {name: found[name] for name in order if name in found}


def _by_group(names: Sequence[str], values: Sequence[float], digits: int = 4) -> dict[str, Any]:
    groups: dict[str, list[float]] = {}
    for name, value in zip(names, values, strict=True):
        groups.setdefault(name, []).append(value)
    return {name: {"examples": len(group), "score": _mean(group, digits)} for name, group in sorted(groups.items())}


def _mean(values: Sequence[float], digits: int = 2) -> float:
    return round(sum(values) / len(values), digits)


def _rounded(values: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in values.items()}


def _stem(request: Request) -> str:
    return re.sub(r"[^A-Za-z0-9.]+", "-", request.name).strip("-")


def table(report: Mapping[str, Any]) -> str:
    """A report for people: a line a figure, and under it those of its groups."""
    lines = []
    for name, value in report.items():
        if isinstance(value, Mapping):
            lines.append(f"{name}:")
            lines += [f"  {group:<16}{_shown(one)}" for group, one in value.items()]
        else:
            lines.append(f"{name:<20}{value}")
    return "\n".join(lines)


def _shown(value: Any) -> str:
    return f"{value['score']:<10}({value['examples']} examples)" if isinstance(value, Mapping) else str(value)


def write_json(report: Mapping[str, Any], request: Request) -> None:
    if request.pictures:
        (request.pictures / f"{_stem(request)}.json").write_text(json.dumps(report, indent=1), encoding="utf-8")
