"""Token classification: the spans of a text that have a label, such as names of people and places.

A word has the label of its first token, which is the one that is taught.  Words join to spans by the prefixes of their
labels (B, I, E, L, S, U before "-"), leniently: an I that continues nothing begins a span.  Where no label has a
prefix, neighbours of one label join if there is a label for "none", and every word is a span if there is not.

Source: Ramshaw and Marcus 1995 (BIO); the scoring script of CoNLL-2000.
"""

import re
from collections.abc import Iterable, Sequence as Seq
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from ..errors import InvalidRequest
from ..types import Floats, Ints, Sequence
from .classification import activate
from .text import EASTERN, LETTERS, Tokenizer, Tokens

# A word as those who tag texts have it: U.S., Inc., 1,000.50, AT&T and well-known are one; other full stops their own.
_SHORT = r"(?:Mr|Mrs|Ms|Dr|Prof|Gen|Sen|Rep|Gov|St|Mt|Sr|Jr|Inc|Ltd|Co|Corp)\.(?!\w)"
WORD = re.compile(
    rf"(?:[^\W\d_]\.){{2,}}|{_SHORT}|\d+(?:[.,]\d+)+|{EASTERN}|{LETTERS}(?:['\u2019&/-]{LETTERS})*|[^\w\s]+"
)
SPACES = [code for code in range(0x3001) if chr(code).isspace()]  # all that Unicode has
OUTSIDE = ("O", "o", "NONE", "none")
BEGIN, INSIDE = frozenset("BSU"), frozenset("IEL")
ENDS = frozenset("ESLU")


@dataclass(frozen=True, slots=True)
class EncodedTokens:
    """``starts``: at which token of ``tokens`` each window begins."""

    text: str
    parts: Tokens
    sequences: list[Sequence]
    starts: list[int]

    @property
    def tokens(self) -> int:
        return sum(map(len, self.sequences))


@dataclass(frozen=True, slots=True)
class Span:
    """``text`` is the caller's from ``start`` to ``end``, in code points; ``score`` the mean of its words'."""

    label: str
    text: str
    start: int
    end: int
    score: float


@dataclass(slots=True)
class _Open:
    """A span while its words come; ``total`` of their scores."""

    label: str
    start: int
    end: int
    total: float
    words: int = 1

    def add(self, end: int, score: float) -> None:
        self.end, self.total, self.words = end, self.total + score, self.words + 1


@dataclass(frozen=True, slots=True)
class TokenClassification:
    """The task of one tagger.  ``window`` and ``overlap`` in tokens."""

    tokenizer: Tokenizer
    labels: Seq[str]
    window: int
    overlap: int
    temperature: float = 1.0

    def encode(self, text: str) -> EncodedTokens:
        """A long text in windows that overlap.  InvalidRequest for a text without any token."""
        parts = self.tokenizer.encode(text)
        if not len(parts):
            raise InvalidRequest("the text is empty, or holds nothing that the model has a token for")
        room = self.window - 2
        step = room - min(self.overlap, room // 2)
        starts = list(range(0, max(1, len(parts) - room + step), step))
        return EncodedTokens(text, parts, [self.tokenizer.frame(parts.part(s, s + room).ids) for s in starts], starts)

    def decode(
        self, encoded: EncodedTokens, logits: Seq[Floats], words: Seq[tuple[int, int]] | None = None
    ) -> list[Span]:
        """The spans in their order.  A token in two windows is read in the one that shows more of what is around it.

        ``words``: where each begins and ends, in code points, where that is known; else they are found.
        """
        scores = activate(self.merged(encoded, logits).astype(np.float64) / self.temperature, "softmax")
        best, worth = scores.argmax(axis=1).tolist(), scores.max(axis=1).tolist()
        return self.joined(
            encoded.text,
            ((start, end, self.labels[best[token]], worth[token]) for token, start, end in _words(encoded, words)),
        )

    def joined(self, text: str, words: Iterable[tuple[int, int, str, float]]) -> list[Span]:
        """Spans of words with (start, end, label, score)."""
        found: list[_Open] = []
        open_kind, prefixed = "", self._prefixed
        read = cache(lambda label: self._read(label, prefixed=prefixed))
        for start, end, label, score in words:
            prefix, kind = read(label)
            if not kind:
                open_kind = ""
                continue
            if prefix in INSIDE and kind == open_kind:
                found[-1].add(end, score)
            else:
                found.append(_Open(kind, start, end, score))
            open_kind = "" if prefix in ENDS else kind
        return [Span(one.label, text[one.start : one.end], one.start, one.end, one.total / one.words) for one in found]

    def merged(self, encoded: EncodedTokens, logits: Seq[Floats]) -> Floats:
        """(tokens, labels) of the whole text."""
        count = len(encoded.parts)
        found = np.zeros((count, len(self.labels)), dtype=np.float32)
        seen = np.full(count, -1, dtype=np.int64)  # how far the nearest end of the window is
        for start, row, values in zip(encoded.starts, encoded.sequences, logits, strict=True):
            length = len(row) - 2
            places = np.arange(length)
            left = np.where(start == 0, length, places)
            right = np.where(start + length == count, length, length - 1 - places)
            around = np.minimum(left, right)
            better = around > seen[start : start + length]
            seen[start : start + length][better] = around[better]
            found[start : start + length][better] = values[1:-1][better]
        return found

    @property
    def kinds(self) -> set[str]:
        """What a span may be."""
        return {kind for label in self.labels if (kind := self._read(label, prefixed=self._prefixed)[1])}

    @property
    def _prefixed(self) -> bool:
        """Have all labels but that for none a prefix?  Else a dash is a part of a name, as in B-cell and T-cell."""
        named = [label for label in self.labels if label not in OUTSIDE]
        return bool(named) and all(label[:1] in BEGIN | INSIDE and label[1:2] == "-" and label[2:] for label in named)

    def _read(self, label: str, *, prefixed: bool) -> tuple[str, str]:
        """The prefix of a word's label and what it says; an empty kind is none."""
        if label in OUTSIDE:
            return "", ""
        if prefixed:
            prefix, _, kind = label.partition("-")
            return prefix, kind
        joins = any(one in OUTSIDE for one in self.labels)
        return ("I" if joins else "B"), label


def _words(encoded: EncodedTokens, words: Seq[tuple[int, int]] | None = None) -> list[tuple[int, int, int]]:
    """(first token, start, end) of each word, in code points."""
    first = _first_visible(encoded.text, encoded.parts.offsets)
    words = [match.span() for match in WORD.finditer(encoded.text)] if words is None else words
    tokens = np.searchsorted(first, np.array([start for start, _ in words], dtype=np.int64)).tolist()
    begins = [*first.tolist(), len(encoded.text)]  # one more, for a word behind the last token
    return [(token, *word) for token, word in zip(tokens, words, strict=True) if begins[token] < word[1]]


def _first_visible(text: str, offsets: Ints) -> npt.NDArray[np.int64]:
    """Where each token begins but for white space: SentencePiece counts the space before a word to it."""
    codes = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
    visible = np.where(np.isin(codes, SPACES), len(text), np.arange(len(text)))
    following = np.minimum.accumulate(np.append(visible, len(text))[::-1])[::-1]  # the first visible one from here on
    return np.minimum(following[offsets[:, 0]], offsets[:, 1]).astype(np.int64)
