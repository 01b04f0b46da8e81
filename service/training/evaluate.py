"""How good is a converted model?  Measured on a file of examples, through the code that serves."""

from collections.abc import Iterable, Sequence as Seq
from pathlib import Path
from typing import Any

from tqdm import tqdm

from service.serving.engine import Engine
from service.tasks.classification import Classification
from service.tasks.question_answering import QuestionAnswering
from service.training.datasets import read_labelled, read_questions
from service.training.scores import accuracy, exact_match, macro_f1, token_f1
from service.types import Floats, Sequence


def evaluate(engine: Engine, file: Path) -> dict[str, Any]:
    """Scores of ``engine`` on ``file``: labelled rows for a classifier, SQuAD's form for a reader."""
    if isinstance(engine.task, Classification):
        return _classifier(engine, engine.task, file)
    return _reader(engine, engine.task, file)


def _classifier(engine: Engine, task: Classification, file: Path) -> dict[str, Any]:
    """Long texts are read in windows, as ``long_text="windows"`` does."""
    rows = read_labelled(file)
    encoded = [task.encode(row.text, row.text_pair, "windows") for row in rows]
    logits = iter(_run(engine, [row for item in encoded for row in item.sequences]))
    given = [task.decode(item, [next(logits) for _ in item.sequences]).labels[0][0] for item in encoded]
    gold = [row.label for row in rows]
    scores = {"accuracy": accuracy(given, gold), "macro_f1": macro_f1(given, gold)}
    return {"data": file.name, "texts": len(rows)} | {name: round(value, 4) for name, value in scores.items()}


def _reader(engine: Engine, task: QuestionAnswering, file: Path) -> dict[str, Any]:
    questions = read_questions(file)
    unanswerable = any(not question.answers for question in questions)
    encoded = [task.encode(question.question, [question.context]) for question in questions]
    logits = iter(_run(engine, [row for item in encoded for row in item.sequences]))
    exact = overlap = 0.0
    for question, item in zip(questions, encoded, strict=True):
        done = task.decode(item, [next(logits) for _ in item.windows], no_answer=unanswerable)
        answer = done.answers[0].text if done.answers else ""
        golds = [text for text, _ in question.answers]
        exact += exact_match(answer, golds)
        overlap += token_f1(answer, golds)
    scores = {"exact_match": 100 * exact / len(questions), "f1": 100 * overlap / len(questions)}
    return {"data": file.name, "questions": len(questions)} | {name: round(value, 2) for name, value in scores.items()}


def _run(engine: Engine, rows: Seq[Sequence]) -> list[Floats]:
    """All rows, in steps of like length: the results do not depend on it, the time does."""
    order = sorted(range(len(rows)), key=lambda index: len(rows[index]))
    results: dict[int, Floats] = {}
    with tqdm(total=len(rows), desc="evaluating", unit=" rows", leave=False) as bar:
        for step in _steps(order, rows, max(engine.budget, 128)):
            results |= dict(zip(step, engine.run([rows[index] for index in step]), strict=True))
            bar.update(len(step))
    return [results[index] for index in range(len(rows))]


def _steps(order: Iterable[int], rows: Seq[Sequence], budget: int) -> Iterable[list[int]]:
    step: list[int] = []
    tokens = 0
    for index in order:
        if step and tokens + len(rows[index]) > budget:
            yield step
            step, tokens = [], 0
        step.append(index)
        tokens += len(rows[index])
    if step:
        yield step
