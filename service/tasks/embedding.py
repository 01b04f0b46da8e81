"""Sentence embeddings: one vector for a text, the mean of its tokens' last hidden states or that of ``[CLS]``.

Source: Reimers and Gurevych 2019, Sentence-BERT.
"""

from collections.abc import Sequence as Seq
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from ..errors import InvalidRequest, TextTooLong
from ..types import Floats, Sequence
from .text import Tokenizer

Pooling = Literal["mean", "cls"]
LongText = Literal["truncate", "windows", "error"]
Vector = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class EncodedVector:
    sequences: list[Sequence]
    tokens: int
    truncated: bool


@dataclass(frozen=True, slots=True)
class Embedding:
    """The task of one model of vectors.  Lengths in tokens, frame included."""

    tokenizer: Tokenizer
    max_length: int
    window: int
    pooling: Pooling = "mean"

    def encode(self, text: str, long_text: LongText = "truncate") -> EncodedVector:
        """InvalidRequest for a text without any token; TextTooLong where ``long_text`` is "error" and it is."""
        ids = self.tokenizer.ids(text)
        if not len(ids):
            raise InvalidRequest("the text is empty, or holds nothing that the model has a token for")
        tokens = len(ids) + 2
        if tokens <= self.max_length:
            return EncodedVector([self.tokenizer.frame(ids)], tokens, truncated=False)
        if long_text == "error":
            raise TextTooLong(
                f"the text has {tokens} tokens, the model sees {self.max_length}: shorten it, or ask for long_text "
                "'truncate' or 'windows'"
            )
        if long_text == "truncate":
            return EncodedVector([self.tokenizer.frame(ids[: self.max_length - 2])], self.max_length, truncated=True)
        parts = np.array_split(ids, -(-len(ids) // (self.window - 2)))
        rows = [self.tokenizer.frame(part) for part in parts]
        return EncodedVector(rows, sum(map(len, rows)), truncated=False)

    def decode(self, encoded: EncodedVector, states: Seq[Floats], *, normalize: bool = True) -> Vector:
        """(hidden,) in float32: of windows the mean weighted by their tokens.  ``states``: of each window (2, hidden),
        the mean and the first.  ``normalize``: of length 1."""
        rows = np.stack([row[1 if self.pooling == "cls" else 0] for row in states]).astype(np.float64)
        weights = np.array([len(row) for row in encoded.sequences], dtype=np.float64)
        vector = rows[0] if len(rows) == 1 else weights @ rows / weights.sum()
        if normalize:
            vector = vector / max(float(np.linalg.norm(vector)), 1e-12)
        return np.asarray(vector, dtype=np.float32)
