"""Who answers the examples of an evaluation: an engine in this process, or a running service over HTTP."""

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence as Seq
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar

from albert_client import Client, Failure, Refused, Unanswered
from albert_client.bodies import Text
from tqdm import tqdm

from ..errors import DataError, InvalidRequest
from ..runtime.packing import like_lengths
from ..serving.engine import Engine
from ..tasks.classification import Classification, EncodedText
from ..tasks.question_answering import EncodedQuestion, QuestionAnswering
from ..types import Floats, Sequence
from .datasets import Labelled, Question

T = TypeVar("T")
DEADLINE = 600.0  # seconds of a request: a measurement waits where a person would not
FIRST_DEADLINE = 5.0  # seconds to find out whether anyone is there


class _Encoded(Protocol):
    @property
    def sequences(self) -> list[Sequence]: ...


Encoded = TypeVar("Encoded", bound=_Encoded)


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

    client: Client
    model: str
    task: str

    @classmethod
    @contextlib.contextmanager
    def connected(cls, url: str, model: str, key: str | None = None) -> Iterator["Remote"]:
        """DataError where nobody answers there, or does not serve ``model``."""
        with _refusals(url), Client(url, api_key=key, deadline=DEADLINE) as client:
            tasks = {one.name: one.task for one in client.models(deadline=FIRST_DEADLINE)}
            if model not in tasks:
                raise DataError(f"{url}: there is no model {model!r}; it serves {', '.join(sorted(tasks)) or 'none'}")
            yield cls(client, model, tasks[model])

    def classify(self, rows: Seq[Labelled]) -> list[Scored]:
        texts: list[Text] = [(row.text, row.text_pair) if row.text_pair else row.text for row in rows]
        results = self.client.classify_many(texts, progress=True, model=self.model, long_text="windows")
        return [
            Scored([(one.label, one.score) for one in result.labels], result.tokens) for result in map(_read, results)
        ]

    def answer(self, questions: Seq[Question], *, no_answer: bool) -> list[Reply]:
        asked = [(item.question, item.context) for item in questions]
        found = self.client.ask_many(asked, progress=True, model=self.model, no_answer=no_answer)
        return [
            Reply(best.text if best else "", one.tokens, best.score if best else 0.0, one.no_answer_score)
            for one in map(_read, found)
            for best in (one.best,)
        ]


@contextlib.contextmanager
def _refusals(url: str) -> Iterator[None]:
    try:
        yield
    except Refused as error:
        raise DataError(f"{url}: {error}") from error
    except (Unanswered, ValueError) as error:
        raise DataError(f"{error} Give the service's address with --url.") from error


def _read(result: T | Failure) -> T:
    if isinstance(result, Failure):
        raise DataError(f"the service refused a text: {result.message}")
    return result


def check_fitted(engine: Engine) -> None:
    """DataError where the model's scores cannot be fitted: it is neither a classifier nor a reader."""
    if not isinstance(engine.task, Classification | QuestionAnswering):
        raise DataError(f"{engine.ref} does {engine.manifest.task}: this is for classifiers and readers")


def classification(engine: Engine) -> Classification:
    check_fitted(engine)
    if not isinstance(engine.task, Classification):
        raise DataError(f"{engine.ref} answers questions: give it questions in SQuAD's form (.json)")
    return engine.task


def reader(engine: Engine) -> QuestionAnswering:
    check_fitted(engine)
    if not isinstance(engine.task, QuestionAnswering):
        raise DataError(f"{engine.ref} is a classifier: give it labelled texts (.tsv, .csv, .jsonl)")
    return engine.task


def encode_texts(task: Classification, rows: Seq[Labelled]) -> list[EncodedText]:
    """DataError where a label is none of the model's, or a text cannot be served."""
    unknown = sorted({row.label for row in rows} - set(task.labels))
    if unknown:
        raise DataError(f"label {unknown[0]!r} is none of the model's: {', '.join(task.labels)}")
    return [_told("text", row.text, partial(task.encode, row.text, row.text_pair, "windows")) for row in rows]


def encode_questions(task: QuestionAnswering, questions: Seq[Question]) -> list[EncodedQuestion]:
    return [_told("question", one.question, partial(task.encode, one.question, [one.context])) for one in questions]


def _told(kind: str, text: str, encode: Callable[[], T]) -> T:
    try:
        return encode()
    except InvalidRequest as error:
        raise DataError(f"the {kind} {text[:60]!r} cannot be served: {error.message}") from error


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
        for step in like_lengths(rows, max(engine.budget, 128)):
            logits = engine.run([rows[index] for index in step], early_exit=early_exit)
            results |= dict(zip(step, logits, strict=True))
            bar.update(len(step))
    return [results[index] for index in range(len(rows))]
