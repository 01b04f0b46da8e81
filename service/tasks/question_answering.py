"""Extractive question answering: a question and documents to windows, logits to spans of the caller's own text.

Of many windows only the best by BM25 need be read (``ranking.py``).

How spans are scored.  In a window, the span from token i to token j has the logit ``start[i] + end[j]``, and "no
answer" has that of the first token, ``start[0] + end[0]`` (Devlin et al. 2018, section 4.3).  Windows of one document
overlap, so a span may be seen by several: its best logit counts.  "No answer" is as sure as the window that believes
in it least, for one window with an answer is enough.  All spans of all documents of a request then share one softmax,
so their scores compare, and sum to at most one; ``confidence.py`` makes them the chance of being right.
"""

import math
from collections.abc import Sequence as Seq
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from ..errors import InvalidRequest, TextTooLong
from ..types import Floats, Sequence
from .confidence import Confidence
from .ranking import best, bm25
from .text import Tokenizer, Tokens

# One document's logits by (tokens in the span - 1, first token).  Single precision: nothing in a request is larger.
Spans = npt.NDArray[np.float32]
NEVER = -np.inf


@dataclass(frozen=True, slots=True)
class Window:
    """A part of a document as the model sees it: which, where it begins there (in tokens), and where in the row."""

    document: int
    start: int
    length: int
    sequence: Sequence


@dataclass(frozen=True, slots=True)
class EncodedQuestion:
    """``places`` says which of the caller's documents each of ``documents`` is, or is a part of; ``blank`` ones are
    left out.

    ``unread``: how many windows are not here, because they have least in common with the question.
    """

    texts: list[str]
    documents: list[Tokens]
    windows: list[Window]
    places: list[int]
    blank: list[int]
    unread: int = 0

    def reading(self, most: int) -> "EncodedQuestion":
        """With at most ``most`` windows: those that have most in common with the question.

        What they cover of a document, where they touch or overlap, is a document of its own from then on: decoding
        costs what was read, and not what stands between.
        """
        if len(self.windows) <= most:
            return self
        asked = self.windows[0].sequence.ids[1 : self.windows[0].sequence.second - 1]
        inside = [one.sequence.ids[one.sequence.second : one.sequence.second + one.length] for one in self.windows]
        pieces = _together([self.windows[index] for index in best(bm25(asked, inside), most)])
        windows = [
            replace(window, document=number, start=window.start - piece[0].start)
            for number, piece in enumerate(pieces)
            for window in piece
        ]
        whole = [piece[0].document for piece in pieces]
        documents = [
            self.documents[document].part(piece[0].start, piece[-1].start + piece[-1].length)
            for document, piece in zip(whole, pieces, strict=True)
        ]
        return EncodedQuestion(
            [self.texts[one] for one in whole], documents, windows, [self.places[one] for one in whole], self.blank,
            len(self.windows) - len(windows),
        )  # fmt: skip

    @property
    def sequences(self) -> list[Sequence]:
        return [window.sequence for window in self.windows]

    @property
    def tokens(self) -> int:
        return sum(len(window.sequence) for window in self.windows)


@dataclass(frozen=True, slots=True)
class Answer:
    """``start`` and ``end`` are code points, half open: ``text == documents[document][start:end]``."""

    text: str
    score: float
    start: int
    end: int
    document: int


@dataclass(frozen=True, slots=True)
class Weighed:
    """All spans of a request by their logits, the best of them, and the ``null`` logit of "no answer"."""

    spans: list[Spans]
    best: float
    null: float

    @property
    def lead(self) -> float:
        """How far "no answer" is ahead of the best span, in logits."""
        return self.null - self.best


@dataclass(frozen=True, slots=True)
class Answered:
    """``no_answer_score`` is the chance that the documents hold no answer."""

    answers: list[Answer]
    no_answer_score: float
    tokens: int
    windows: int
    unread: int = 0


@dataclass(frozen=True, slots=True)
class QuestionAnswering:
    """The task of one reader.  ``window`` and ``overlap`` are in tokens, a window with its frame and the question."""

    tokenizer: Tokenizer
    max_length: int
    window: int
    overlap: int
    confidence: Confidence = field(default_factory=Confidence)

    def encode(self, question: str, documents: Seq[str]) -> EncodedQuestion:
        """InvalidRequest for a question, or documents, without any token; TextTooLong for a question that leaves
        documents no room.  A blank document among others is left out."""
        asked = self.tokenizer.ids(question)
        if not len(asked):
            raise InvalidRequest("the question is empty, or holds nothing that the model has a token for")
        # A long question may use the model's full length, as long as half of it is left for the document.
        room = max(self.window - 3 - len(asked), min(self.max_length - 3 - len(asked), self.window // 2))
        if room < self.window // 4:
            raise TextTooLong(
                f"the question has {len(asked)} tokens, which leaves no room for a document in the "
                f"{self.max_length} tokens that the model sees: shorten it"
            )
        every = [self.tokenizer.encode(document) for document in documents]
        places = [index for index, document in enumerate(every) if len(document)]
        if not places:
            raise InvalidRequest("the documents are empty, or hold nothing that the model has a token for")
        tokens = [every[index] for index in places]
        step = room - min(self.overlap, room // 2)
        windows = [
            Window(index, start, len(part := document.part(start, start + room)), self.tokenizer.frame(asked, part.ids))
            for index, document in enumerate(tokens)
            for start in _starts(len(document), room, step)
        ]
        blank = [index for index, document in enumerate(every) if not len(document)]
        return EncodedQuestion([documents[index] for index in places], tokens, windows, places, blank)

    def decode(
        self, encoded: EncodedQuestion, logits: Seq[Floats], *, top_k: int = 1, max_answer_tokens: int = 30,
        no_answer: bool = False, no_answer_threshold: float = 0.5,
    ) -> Answered:  # fmt: skip
        """The best ``top_k`` spans that do not overlap.

        With ``no_answer`` there may be none: where its score is above the threshold no span is given, and the scores
        of those that are leave room for it.  Without it scores are those of documents that hold an answer.
        """
        weighed = self.weigh(encoded, logits, max_answer_tokens)
        doubt = self.confidence.no_answer(weighed.lead)
        if weighed.best == NEVER or (no_answer and doubt > no_answer_threshold):
            return Answered([], doubt, encoded.tokens, len(encoded.windows), encoded.unread)
        temperature = self.confidence.temperature
        total = sum(_mass(table, weighed.best, temperature) for table in weighed.spans)
        chosen = _best_apart(weighed.spans, encoded.documents, top_k)
        scores = self.confidence.scores(math.exp((logit - weighed.best) / temperature) / total for *_, logit in chosen)
        believed = 1 - doubt if no_answer else 1.0
        answers = [
            _answer(encoded, document, first, last, believed * score)
            for (document, first, last, _), score in zip(chosen, scores, strict=True)
        ]
        return Answered(answers, doubt, encoded.tokens, len(encoded.windows), encoded.unread)

    def span_score(self, encoded: EncodedQuestion, logits: Seq[Floats], start: int, end: int) -> float:
        """The score of the span at these code points of the first document, were it the best; 0 where none is."""
        offsets = encoded.documents[0].offsets
        first = int(np.searchsorted(offsets[:, 1], start, side="right"))
        last = int(np.searchsorted(offsets[:, 0], end, side="left")) - 1
        weighed = self.weigh(encoded, logits, max(30, last - first + 1))
        if not 0 <= first <= last < len(offsets) or weighed.best == NEVER:
            return 0.0
        temperature = self.confidence.temperature
        total = sum(_mass(table, weighed.best, temperature) for table in weighed.spans)
        logit = float(weighed.spans[0][last - first, first])
        (score,) = self.confidence.scores([math.exp((logit - weighed.best) / temperature) / total])
        return score

    def weigh(self, encoded: EncodedQuestion, logits: Seq[Floats], max_answer_tokens: int = 30) -> Weighed:
        """The logits of each document's spans, and of "no answer"."""
        longest = max_answer_tokens
        spans = [
            np.full((min(longest, len(tokens)), len(tokens)), NEVER, dtype=np.float32) for tokens in encoded.documents
        ]
        null = np.inf
        for window, values in zip(encoded.windows, logits, strict=True):
            null = min(null, float(values[0].sum()))
            inside = values[window.sequence.second : window.sequence.second + window.length]  # without the last [SEP]
            start, end = inside[:, 0], inside[:, 1]
            table = spans[window.document][:, window.start : window.start + window.length]
            for extra in range(min(len(table), window.length)):
                row = table[extra, : window.length - extra]
                np.maximum(row, start[: window.length - extra] + end[extra:], out=row)
        for table, text, tokens in zip(spans, encoded.texts, encoded.documents, strict=True):
            _forbid_blank(table, text, tokens)
        return Weighed(spans, max(float(table.max()) for table in spans), null)


def _starts(tokens: int, room: int, step: int) -> range:
    """Where windows begin: each ``step`` after the last, until one reaches the end."""
    return range(0, max(1, tokens - room + step), step)


def _together(windows: Seq[Window]) -> list[list[Window]]:
    """In their order, those of a document that touch or overlap together."""
    pieces: list[list[Window]] = []
    for window in windows:
        last = pieces[-1][-1] if pieces else None
        if last is not None and last.document == window.document and window.start <= last.start + last.length:
            pieces[-1].append(window)
        else:
            pieces.append([window])
    return pieces


def _forbid_blank(table: Spans, text: str, tokens: Tokens) -> None:
    """A single token can be nothing but white space (SentencePiece's lone mark); a span of only such is no answer."""
    blank = np.array([not text[start:end].strip() for start, end in tokens.offsets])
    if not blank.any():
        return
    upto = np.concatenate(([0], np.cumsum(blank)))
    for extra in range(len(table)):
        firsts = np.arange(len(tokens) - extra)
        only_blank = upto[firsts + extra + 1] - upto[firsts] == extra + 1
        table[extra, : len(firsts)][only_blank] = NEVER


def _best_apart(spans: list[Spans], documents: Seq[Tokens], top_k: int) -> list[tuple[int, int, int, float]]:
    """(document, first token, last token, logit), best first.

    Each chosen span rules out those that touch it: their logits are overwritten.
    """
    bests = [_best(table) for table in spans]
    chosen: list[tuple[int, int, int, float]] = []
    while len(chosen) < top_k:
        document = max(range(len(spans)), key=lambda index: bests[index][2])
        first, last, logit = bests[document]
        if logit == NEVER:
            break
        chosen.append((document, first, last, logit))
        if len(chosen) == top_k:
            break
        first, last = _touching(documents[document], first, last)
        for extra, row in enumerate(spans[document]):
            row[max(0, first - extra) : last + 1] = NEVER
        bests[document] = _best(spans[document])
    return chosen


def _touching(tokens: Tokens, first: int, last: int) -> tuple[int, int]:
    """The span and the neighbours that share a code point with it: SentencePiece may make two tokens of one emoji."""
    starts, ends = tokens.offsets[:, 0], tokens.offsets[:, 1]
    start, end = starts[first], ends[last]
    while first > 0 and ends[first - 1] > start:
        first -= 1
    while last + 1 < len(tokens) and starts[last + 1] < end:
        last += 1
    return first, last


def _mass(table: Spans, best: float, temperature: float) -> float:
    """The sum of exp((logit - best) / temperature), so that nothing overflows; a row at a time: the table is large."""
    cooler = np.float32(1 / temperature)
    return sum(float(np.exp((row - np.float32(best)) * cooler).sum(dtype=np.float64)) for row in table)


def _best(table: Spans) -> tuple[int, int, float]:
    extra, first = np.unravel_index(int(table.argmax()), table.shape)
    return int(first), int(first + extra), float(table[extra, first])


def _answer(encoded: EncodedQuestion, document: int, first: int, last: int, score: float) -> Answer:
    text, offsets = encoded.texts[document], encoded.documents[document].offsets
    start, end = int(offsets[first, 0]), int(offsets[last, 1])
    # SentencePiece counts the space before a word to the word.
    start += len(text[start:end]) - len(text[start:end].lstrip())
    end -= len(text[start:end]) - len(text[start:end].rstrip())
    return Answer(text[start:end], score, start, end, encoded.places[document])
