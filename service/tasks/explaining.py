"""One question to a model, put again and again with words left out: what to run, and what its answers say."""

from collections.abc import Callable, Mapping, Sequence as Seq
from dataclasses import dataclass, field
from typing import Protocol

from ..errors import InvalidRequest, ServiceError
from ..types import Floats, Sequence
from .classification import Classification, EncodedText
from .occlusion import Part, neighbours, shifted, touches, without, words
from .question_answering import Answer, EncodedQuestion, QuestionAnswering

Encoded = EncodedText | EncodedQuestion


class Subject(Protocol):
    """What is explained: texts by field, how they are encoded, and the score that is looked at."""

    texts: Mapping[str, str]

    def encode(self, texts: Mapping[str, str]) -> Encoded: ...

    def settle(self, encoded: Encoded, logits: Seq[Floats]) -> float:
        """Choose what is explained by the whole text; its score."""

    def score(self, encoded: Encoded, logits: Seq[Floats], cut: Seq[Part]) -> float: ...

    def explains(self, part: Part) -> bool:
        """False of what is explained itself."""


@dataclass(slots=True)
class Labelled:
    """A label's score; ``label`` None takes the best of the whole text."""

    task: Classification
    texts: Mapping[str, str]
    label: str | None = None

    def encode(self, texts: Mapping[str, str]) -> EncodedText:
        return self.task.encode(texts["text"], texts.get("text_pair"), "windows")

    def settle(self, encoded: Encoded, logits: Seq[Floats]) -> float:
        assert isinstance(encoded, EncodedText)
        scores = dict(self.task.decode(encoded, logits).labels)
        self.label = self.label if self.label is not None else next(iter(scores))
        return scores[self.label]

    def score(self, encoded: Encoded, logits: Seq[Floats], cut: Seq[Part]) -> float:
        assert isinstance(encoded, EncodedText)
        assert self.label is not None
        return dict(self.task.decode(encoded, logits).labels)[self.label]

    def explains(self, part: Part) -> bool:
        return True


@dataclass(slots=True)
class Asked:
    """The score of the best answer to ``question`` in ``context``."""

    task: QuestionAnswering
    texts: Mapping[str, str]
    answer: Answer | None = None

    def encode(self, texts: Mapping[str, str]) -> EncodedQuestion:
        return self.task.encode(texts["question"], [texts["context"]])

    def settle(self, encoded: Encoded, logits: Seq[Floats]) -> float:
        assert isinstance(encoded, EncodedQuestion)
        self.answer = next(iter(self.task.decode(encoded, logits).answers), None)
        if self.answer is None:
            raise InvalidRequest("there is no answer to explain: the context holds nothing but white space")
        return self.answer.score

    def score(self, encoded: Encoded, logits: Seq[Floats], cut: Seq[Part]) -> float:
        assert isinstance(encoded, EncodedQuestion)
        place = shifted(self._span, cut, self.texts)
        return self.task.span_score(encoded, logits, place.start, place.end)

    def explains(self, part: Part) -> bool:
        return not touches(part, self._span)

    @property
    def _span(self) -> Part:
        assert self.answer is not None
        return Part("context", self.answer.start, self.answer.end)


@dataclass(slots=True)
class Variants:
    """The whole text, each without one word, and with ``phrases`` each without two neighbours."""

    subject: Subject
    parts: list[Part]
    cuts: list[tuple[int, ...]]
    encoded: list[Encoded | None] = field(default_factory=list)

    @classmethod
    def of(cls, subject: Subject, most: int, *, phrases: bool) -> "Variants":
        """At most ``most`` texts, encoded.  InvalidRequest or TextTooLong where the whole text cannot be."""
        return cls.planned(subject, most, phrases=phrases).encode_all(subject.encode(subject.texts))

    @classmethod
    def planned(cls, subject: Subject, most: int, *, phrases: bool) -> "Variants":
        """At most ``most`` texts, none of them encoded yet."""
        share = 2 if phrases else 1
        parts = words(subject.texts, max(1, (most - 1) // share))
        pairs = neighbours(parts) if phrases else []
        cuts: list[tuple[int, ...]] = [(), *((index,) for index in range(len(parts))), *pairs]
        return cls(subject, parts, cuts)

    def encode_all(self, whole: Encoded, check: Callable[[], None] = lambda: None) -> "Variants":
        """Each of them, the ``whole`` text being so already.  ``check`` is asked before each, and may raise."""
        self.encoded = [whole]
        for cut in self.cuts[1:]:
            check()
            self.encoded.append(self._encode(cut))
        return self

    def _encode(self, cut: tuple[int, ...]) -> Encoded | None:
        """None where nothing is left."""
        try:
            return self.subject.encode(without(self.subject.texts, [self.parts[index] for index in cut]))
        except ServiceError:
            return None

    @property
    def sequences(self) -> list[Sequence]:
        return [row for one in self.encoded if one for row in one.sequences]

    def worth(self, logits: Seq[Floats]) -> tuple[float, dict[tuple[int, ...], float | None]]:
        """The whole text's score, and by how much each cut lowers it; ``logits`` are of ``sequences``."""
        left = iter(logits)
        taken = [[next(left) for _ in one.sequences] if one else [] for one in self.encoded]
        whole = self.encoded[0]
        assert whole is not None
        score = self.subject.settle(whole, taken[0])
        return score, {
            cut: self._worth(score, cut, one, rows)
            for cut, one, rows in zip(self.cuts[1:], self.encoded[1:], taken[1:], strict=True)
        }

    def _worth(self, score: float, cut: tuple[int, ...], one: Encoded | None, rows: Seq[Floats]) -> float | None:
        parts = [self.parts[index] for index in cut]
        if one is None or not all(map(self.subject.explains, parts)):
            return None
        return score - self.subject.score(one, rows, parts)
