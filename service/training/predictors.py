"""Who answers the examples of an evaluation: an engine in this process, or a running service over HTTP."""

import contextlib
import itertools
from collections.abc import Iterable, Iterator, Sequence as Seq
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import httpx
from tqdm import tqdm

from service.errors import DataError, InvalidRequest
from service.serving.engine import Engine
from service.tasks.classification import Classification, EncodedText
from service.tasks.question_answering import EncodedQuestion, QuestionAnswering
from service.training.datasets import Labelled, Question
from service.types import Floats, Sequence

T = TypeVar("T")
Encoded = TypeVar("Encoded", EncodedText, EncodedQuestion)


@dataclass(frozen=True, slots=True)
class Scored:
    """A text's labels with scores, best first."""

    labels: list[tuple[str, float]]
    tokens: int


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer; ``text`` is empty where there is none.  Scores are those of the service."""

    text: str
    tokens: int
    score: float = 0.0
    no_answer_score: float = 0.0


class Predictor(Protocol):
    @property
    def task(self) -> str: ...

    def classify(self, rows: Seq[Labelled]) -> list[Scored]: ...

    def answer(self, questions: Seq[Question], *, no_answer: bool) -> list[Reply]: ...


@dataclass(frozen=True, slots=True)
class Local:
    """The serving code path without HTTP: encode, run in steps of like length, decode."""

    engine: Engine

    @property
    def task(self) -> str:
        return self.engine.manifest.task

    def classify(self, rows: Seq[Labelled]) -> list[Scored]:
        """Long texts are read in windows, as ``long_text="windows"`` does."""
        task = classification(self.engine)
        done = [
            task.decode(item, logits)
            for item, logits in run_each(self.engine, encode_texts(task, rows), early_exit=True)
        ]
        return [Scored(one.labels, one.tokens) for one in done]

    def answer(self, questions: Seq[Question], *, no_answer: bool) -> list[Reply]:
        task = reader(self.engine)
        replies = []
        for item, logits in run_each(self.engine, encode_questions(task, questions), early_exit=True):
            done = task.decode(item, logits, no_answer=no_answer)
            text, score = next(((best.text, best.score) for best in done.answers), ("", 0.0))
            replies.append(Reply(text, done.tokens, score, done.no_answer_score))
        return replies


@dataclass(frozen=True, slots=True)
class Remote:
    """A running service.  ``model`` is the name to ask for."""

    client: httpx.Client
    model: str
    task: str
    batch: int = 32

    @classmethod
    @contextlib.contextmanager
    def connected(cls, url: str, model: str, key: str | None = None) -> Iterator["Remote"]:
        """DataError where nobody answers there, or does not serve ``model``."""
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        with httpx.Client(base_url=url, timeout=120, headers=headers) as client:
            yield cls(client, model, str(_json(client, "GET", f"/models/{model}")["versions"][0]["task"]))

    def classify(self, rows: Seq[Labelled]) -> list[Scored]:
        results: list[Scored] = []
        with tqdm(total=len(rows), desc="asking", unit=" texts", leave=False) as bar:
            for start in range(0, len(rows), self.batch):
                part = rows[start : start + self.batch]
                inputs = [{"text": row.text} | ({"text_pair": row.text_pair} if row.text_pair else {}) for row in part]
                body = {"model": self.model, "inputs": inputs, "long_text": "windows", "priority": "bulk"}
                results += [_scored(result) for result in _json(self.client, "POST", "/classify", body)["results"]]
                bar.update(len(part))
        return results

    def answer(self, questions: Seq[Question], *, no_answer: bool) -> list[Reply]:
        replies = []
        for item in tqdm(questions, desc="asking", unit=" questions", leave=False):
            body = {"model": self.model, "question": item.question, "context": item.context, "no_answer": no_answer}
            done = _json(self.client, "POST", "/qa", body)
            text, score = next(((best["text"], best["score"]) for best in done["answers"]), ("", 0.0))
            replies.append(Reply(text, done["tokens"], score, done["no_answer_score"]))
        return replies


def _scored(result: dict[str, Any]) -> Scored:
    if "error" in result:
        raise DataError(f"the service refused a text: {result['error']['message']}")
    return Scored([(one["label"], one["score"]) for one in result["labels"]], result["tokens"])


def _json(client: httpx.Client, method: str, path: str, body: Any = None) -> dict[str, Any]:
    try:
        response = client.request(method, path, json=body)
        found: dict[str, Any] = response.json()
    except (httpx.HTTPError, ValueError) as error:
        raise DataError(
            f"{client.base_url}: no albert-serve answers there ({error}). Start one, and give its address with --url."
        ) from error
    if response.is_error:
        raise DataError(f"{client.base_url}{path.lstrip('/')}: {found.get('error', {}).get('message', found)}")
    return found


def classification(engine: Engine) -> Classification:
    if not isinstance(engine.task, Classification):
        raise DataError(f"{engine.ref} answers questions: give it questions in SQuAD's form (.json)")
    return engine.task


def reader(engine: Engine) -> QuestionAnswering:
    if not isinstance(engine.task, QuestionAnswering):
        raise DataError(f"{engine.ref} is a classifier: give it labelled texts (.tsv, .csv, .jsonl)")
    return engine.task


def encode_texts(task: Classification, rows: Seq[Labelled]) -> list[EncodedText]:
    """DataError where a label is none of the model's, or a text cannot be served."""
    unknown = sorted({row.label for row in rows} - set(task.labels))
    if unknown:
        raise DataError(f"label {unknown[0]!r} is none of the model's: {', '.join(task.labels)}")
    with _told("text"):
        return [task.encode(row.text, row.text_pair, "windows") for row in rows]


def encode_questions(task: QuestionAnswering, questions: Seq[Question]) -> list[EncodedQuestion]:
    with _told("question"):
        return [task.encode(question.question, [question.context]) for question in questions]


@contextlib.contextmanager
def _told(kind: str) -> Iterator[None]:
    try:
        yield
    except InvalidRequest as error:
        raise DataError(f"a {kind} of the file cannot be served: {error.message}") from error


def take(values: Iterator[T], count: int) -> list[T]:
    return list(itertools.islice(values, count))


def run_each(engine: Engine, encoded: Seq[Encoded], *, early_exit: bool = False) -> list[tuple[Encoded, list[Floats]]]:
    """Each text or question with the logits of its sequences."""
    logits = iter(run_all(engine, [row for item in encoded for row in item.sequences], early_exit=early_exit))
    return [(item, take(logits, len(item.sequences))) for item in encoded]


def run_all(engine: Engine, rows: Seq[Sequence], *, early_exit: bool = False) -> list[Floats]:
    """All rows, in steps of like length: the results do not depend on it, the time does."""
    results: dict[int, Floats] = {}
    with tqdm(total=len(rows), desc="evaluating", unit=" rows", leave=False) as bar:
        for step in steps(rows, max(engine.budget, 128)):
            logits = engine.run([rows[index] for index in step], early_exit=early_exit)
            results |= dict(zip(step, logits, strict=True))
            bar.update(len(step))
    return [results[index] for index in range(len(rows))]


def steps(rows: Seq[Sequence], budget: int) -> Iterable[list[int]]:
    """Indices of ``rows`` in order of length, ``budget`` tokens a step."""
    step: list[int] = []
    tokens = 0
    for index in sorted(range(len(rows)), key=lambda index: len(rows[index])):
        if step and tokens + len(rows[index]) > budget:
            yield step
            step, tokens = [], 0
        step.append(index)
        tokens += len(rows[index])
    if step:
        yield step
