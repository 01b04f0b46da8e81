"""Text classification: texts or pairs to sequences, logits to labels with scores."""

from collections.abc import Sequence as Seq
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ..errors import InvalidRequest, TextTooLong
from ..types import Floats, Ints, Sequence
from .text import Tokenizer, cut_pair

Activation = Literal["softmax", "sigmoid", "none"]
LongText = Literal["truncate", "windows", "error"]
Doubles = npt.NDArray[np.float64]
ACTIVATIONS: dict[str, Activation] = {
    "single_label_classification": "softmax",
    "multi_label_classification": "sigmoid",
    "regression": "none",
}


@dataclass(frozen=True, slots=True)
class EncodedText:
    """One input as ``sequences``: one, or one a window.  ``tokens`` is what they cost together."""

    sequences: list[Sequence]
    tokens: int
    truncated: bool


@dataclass(frozen=True, slots=True)
class Classified:
    """``labels`` with scores, best first."""

    labels: list[tuple[str, float]]
    tokens: int
    truncated: bool
    windows: int


@dataclass(frozen=True, slots=True)
class Classification:
    """The task of one classifier.  Lengths are in tokens, frame included.

    ``window`` is the length of the windows of ``long_text="windows"``; ``temperature`` divides the logits.  How far a
    longer text is surer than a short one, ``evidence`` says: 0, not at all; 1, as if each token were a witness.
    """

    tokenizer: Tokenizer
    labels: Seq[str]
    problem_type: str
    max_length: int
    window: int
    temperature: float = 1.0
    evidence: float = 0.0

    def encode(self, text: str, text_pair: str | None = None, long_text: LongText = "truncate") -> EncodedText:
        """InvalidRequest for a text without any token; TextTooLong where ``long_text`` is "error" and it is."""
        first = self.tokenizer.ids(text)
        second = None if text_pair is None else self.tokenizer.ids(text_pair)
        if len(first) == 0 or (second is not None and len(second) == 0):
            raise InvalidRequest("the text is empty, or holds nothing that the model has a token for")
        frame = 2 if second is None else 3
        tokens = len(first) + (0 if second is None else len(second)) + frame
        if tokens <= self.max_length:
            return EncodedText([self.tokenizer.frame(first, second)], tokens, truncated=False)
        if long_text == "error":
            raise TextTooLong(
                f"the text has {tokens} tokens, the model sees {self.max_length}: shorten it, or ask for "
                "long_text 'truncate' or 'windows'"
            )
        if long_text == "windows":
            sequences = self._windows(first, second)
            return EncodedText(sequences, sum(len(row) for row in sequences), truncated=False)
        if second is None:
            cut = self.tokenizer.frame(first[: self.max_length - 2])
        else:
            cut = self.tokenizer.frame(*cut_pair(first, second, self.max_length - 3))
        return EncodedText([cut], len(cut), truncated=True)

    def _windows(self, first: Ints, second: Ints | None) -> list[Sequence]:
        """Windows of about equal length; of a pair the shorter text stays whole, beside each part of the longer one."""
        if second is None:
            return [self.tokenizer.frame(part) for part in _parts(first, self.window - 2)]
        room = self.max_length - 3 - min(len(first), len(second))
        if room < self.max_length // 4:
            raise TextTooLong(
                f"both texts of the pair are long ({len(first)} and {len(second)} tokens): shorten one of them, or "
                "ask for long_text 'truncate'"
            )
        if len(first) > len(second):
            return [self.tokenizer.frame(part, second) for part in _parts(first, room)]
        return [self.tokenizer.frame(first, part) for part in _parts(second, room)]

    def decode(
        self, encoded: EncodedText, logits: Seq[Floats], *, top_k: int | None = None,
        activation: Activation | None = None,
    ) -> Classified:  # fmt: skip
        """Windows are pooled by a mean weighted by their tokens: of logits for softmax and for none, which
        is neither scaled by temperature nor by length; else of scores."""
        kind = activation or self.activation
        if kind == "none":
            pooled = mean_of_windows(encoded, np.stack(logits))  # as the model gave them: raw is raw
        elif kind == "softmax":
            pooled = activate(self.tempered(mean_of_windows(encoded, np.stack(logits)), encoded.tokens), kind)
        else:
            pooled = mean_of_windows(encoded, activate(np.stack(logits).astype(np.float64) / self.temperature, kind))
        ranked = sorted(zip(self.labels, pooled.tolist(), strict=True), key=itemgetter(1), reverse=True)
        labels = ranked[: top_k or len(ranked)]
        return Classified(labels, encoded.tokens, encoded.truncated, len(encoded.sequences))

    @property
    def activation(self) -> Activation:
        """What scores are made with; one label alone has a yes and a no, which softmax would make a sure yes of."""
        kind = ACTIVATIONS[self.problem_type]
        return "sigmoid" if kind == "softmax" and len(self.labels) == 1 else kind

    def tempered(self, logits: Doubles, tokens: float | Doubles) -> Doubles:
        """Mean logits (..., labels) of texts with so many tokens (..., 1) to the logits that scores come from."""
        return logits * (tokens / self.window) ** self.evidence / self.temperature


def mean_of_windows(encoded: EncodedText, values: npt.NDArray[Any]) -> Doubles:
    """``values`` (windows, labels) to their mean (labels), each window weighted by its tokens."""
    if len(values) == 1:
        return np.asarray(values[0], dtype=np.float64)
    weights = np.array([len(row) for row in encoded.sequences], dtype=np.float64)
    return np.asarray(weights @ values.astype(np.float64) / weights.sum())


def activate(logits: Doubles, kind: Activation) -> Doubles:
    """``logits`` (..., labels) to scores of the same shape."""
    if kind == "softmax":
        # The true maximum goes first: nothing overflows then, whatever the gap.
        exp = np.exp(logits - logits.max(axis=-1, keepdims=True))
        return np.asarray(exp / exp.sum(axis=-1, keepdims=True))
    if kind == "sigmoid":
        # The same function with an exponent that is never positive.
        small = np.exp(-np.abs(logits))
        return np.where(logits >= 0, 1 / (1 + small), small / (1 + small))
    return logits


def _parts(ids: Ints, room: int) -> list[Ints]:
    return np.array_split(ids, -(-len(ids) // room))
