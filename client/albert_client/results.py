"""What the service answers, as plain values.  Offsets count code points, as Python's strings do."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Model:
    """A version that is loaded.  ``precision`` is the one that it computes in."""

    name: str
    version: int
    task: str = ""
    labels: tuple[str, ...] = ()
    precision: str = ""


@dataclass(frozen=True, slots=True)
class Label:
    label: str
    score: float


@dataclass(frozen=True, slots=True)
class Classification:
    """``labels``, best first.  ``truncated``: the text was longer than the model sees, and was cut."""

    labels: tuple[Label, ...]
    tokens: int
    truncated: bool
    windows: int

    @property
    def label(self) -> str:
        """The best one."""
        return self.labels[0].label

    @property
    def score(self) -> float:
        """Of the best label."""
        return self.labels[0].score

    @property
    def scores(self) -> dict[str, float]:
        return {one.label: one.score for one in self.labels}


@dataclass(frozen=True, slots=True)
class Failure:
    """One text of a list that could not be answered; the others were."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Answer:
    """``document`` is the document's id, or its index where it has none; ``text`` is its ``[start:end]``.

    Of a file with pages: the ``page``, from 1, and where the answer stands there, one box a line: left, top, right and
    bottom as shares of the page.
    """

    text: str
    score: float
    start: int
    end: int
    document: str | int
    page: int | None = None
    boxes: tuple[tuple[float, float, float, float], ...] = ()


@dataclass(frozen=True, slots=True)
class PagePicture:
    """``picture`` is a data URL of a PNG."""

    document: str | int
    page: int
    picture: str


@dataclass(frozen=True, slots=True)
class Skipped:
    """A document that was left out, and why."""

    document: str | int
    failure: Failure


@dataclass(frozen=True, slots=True)
class Answers(Sequence[Answer]):
    """The answers to one question, best first; empty where the documents hold none and the question allowed it."""

    model: Model
    answers: tuple[Answer, ...]
    no_answer_score: float
    tokens: int
    windows: int
    skipped: tuple[Skipped, ...] = ()
    texts: Mapping[str | int, str] = field(default_factory=dict)  # of files, where ``texts`` asked for them
    pages: tuple[PagePicture, ...] = ()
    unread: int = 0  # windows that were left out: they have less in common with the question (``read``)

    @property
    def best(self) -> Answer | None:
        return self.answers[0] if self.answers else None

    def __getitem__(self, index: Any) -> Any:
        return self.answers[index]

    def __len__(self) -> int:
        return len(self.answers)


@dataclass(frozen=True, slots=True)
class Span:
    """A labelled part of a text, which is its ``[start:end]``."""

    label: str
    text: str
    start: int
    end: int
    score: float


@dataclass(frozen=True, slots=True)
class Spans(Sequence[Span]):
    """In the order of the text; they never overlap."""

    spans: tuple[Span, ...]
    tokens: int
    windows: int

    def __getitem__(self, index: Any) -> Any:
        return self.spans[index]

    def __len__(self) -> int:
        return len(self.spans)


@dataclass(frozen=True, slots=True)
class FilledWord:
    """``text`` is the whole text with the ``word`` in its place; ``token`` its id."""

    word: str
    token: int
    score: float
    text: str


@dataclass(frozen=True, slots=True)
class FilledMask:
    """One ``[MASK]``, the text's ``[start:end]``, and what may stand there, best first."""

    start: int
    end: int
    words: tuple[FilledWord, ...]


@dataclass(frozen=True, slots=True)
class FilledMasks(Sequence[FilledMask]):
    """In the order of the text."""

    masks: tuple[FilledMask, ...]
    tokens: int

    def __getitem__(self, index: Any) -> Any:
        return self.masks[index]

    def __len__(self) -> int:
        return len(self.masks)


@dataclass(frozen=True, slots=True)
class Embedding:
    """The vector of a text.  ``truncated``: the text was longer than the model sees, and was cut."""

    embedding: tuple[float, ...]
    tokens: int
    truncated: bool


@dataclass(frozen=True, slots=True)
class Choice:
    """``index`` is that of the choice in the call, ``score`` its chance among the choices."""

    index: int
    text: str
    score: float


@dataclass(frozen=True, slots=True)
class Choices(Sequence[Choice]):
    """Best first.  ``truncated``: the prompt was cut."""

    model: Model
    choices: tuple[Choice, ...]
    tokens: int
    truncated: bool

    @property
    def best(self) -> Choice:
        return self.choices[0]

    def __getitem__(self, index: Any) -> Any:
        return self.choices[index]

    def __len__(self) -> int:
        return len(self.choices)


@dataclass(frozen=True, slots=True)
class Sentence:
    """One of a text, which is its ``[start:end]``; ``score`` says how near it is to the whole."""

    text: str
    start: int
    end: int
    score: float


@dataclass(frozen=True, slots=True)
class Summary:
    """The ``sentences`` that carry a text, in its order, of so many; ``summary`` has them one after the other."""

    model: Model
    summary: str
    sentences: tuple[Sentence, ...]
    of: int
    tokens: int
    truncated: bool


@dataclass(frozen=True, slots=True)
class Word:
    """A word, or with ``interaction`` two neighbours, of the request's ``field``; see docs/explain.md for scores."""

    field: str
    text: str
    start: int
    end: int
    score: float | None
    interaction: float | None = None


@dataclass(frozen=True, slots=True)
class Depth:
    """What would be answered after ``depth`` turns of the layers."""

    depth: int
    labels: tuple[Label, ...] = ()
    answers: tuple[Answer, ...] = ()
    no_answer_score: float | None = None


@dataclass(frozen=True, slots=True)
class Piece:
    """A token; ``field``, ``start`` and ``end`` are None for those that frame the texts."""

    text: str
    field: str | None
    start: int | None
    end: int | None
    rollout: float


@dataclass(frozen=True, slots=True)
class LayerAttention:
    """``weights`` is (heads, tokens, tokens): a row says where its token looked."""

    layer: int
    heads: tuple[int, ...]
    weights: tuple[tuple[tuple[float, ...], ...], ...]


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a model answered so, by one ``method``; what another method gives is empty or None."""

    model: Model
    method: str
    tokens: int
    label: str | None = None
    answer: Answer | None = None
    score: float | None = None
    variants: int | None = None
    words: tuple[Word, ...] = ()
    phrases: tuple[Word, ...] = ()
    depths: tuple[Depth, ...] = ()
    leaves_at: int | None = None
    pieces: tuple[Piece, ...] = ()
    attention: tuple[LayerAttention, ...] = ()
