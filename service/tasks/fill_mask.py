"""Masked language modelling: the words that fit where a text has ``[MASK]``.

Source: Devlin et al. 2018, the masked LM of BERT; ALBERT's head is its own (Lan et al. 2019).
"""

import re
from collections.abc import Sequence as Seq
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ..errors import InvalidRequest, TextTooLong
from ..types import Floats, Ints, Sequence
from .text import Tokenizer

MOST_MASKS = 16  # of one text: each is a row of scores over the whole vocabulary
CONTINUES, BEGINS = "##", "\u2581"  # how word pieces and SentencePiece mark a piece inside a word, and one at its start


@dataclass(frozen=True, slots=True)
class EncodedMasks:
    text: str
    sequences: list[Sequence]
    places: list[tuple[int, int]]  # of the masks in ``text``, in code points

    @property
    def tokens(self) -> int:
        return len(self.sequences[0])


@dataclass(frozen=True, slots=True)
class Filled:
    """A word for one mask; ``text`` is the whole text with it, other masks as they were."""

    word: str
    token: int
    score: float
    text: str


@dataclass(frozen=True, slots=True)
class FillMask:
    """The task of one masked language model.  ``max_length`` in tokens, frame included."""

    tokenizer: Tokenizer
    max_length: int

    @property
    def mask_token(self) -> str:
        assert self.tokenizer.mask is not None
        return self.tokenizer.piece(self.tokenizer.mask)

    def encode(self, text: str) -> EncodedMasks:
        """InvalidRequest where ``text`` has no mask, or too many; TextTooLong where it does not fit."""
        places = [match.span() for match in re.finditer(re.escape(self.mask_token), text)]
        ids = self._joined(text, self.tokenizer.ids(text), places)
        masks = np.flatnonzero(ids == self.tokenizer.mask).astype(np.int32) + 1  # after [CLS]
        if not len(masks):
            raise InvalidRequest(f"the text has no {self.mask_token}: write it where a word is to be found")
        if len(masks) != len(places):
            raise InvalidRequest(
                f"the text's {self.mask_token} cannot be told from its other words: put spaces around it"
            )
        if len(masks) > MOST_MASKS:
            raise InvalidRequest(f"the text has {len(masks)} masks; at most {MOST_MASKS} are filled at once")
        if len(ids) + 2 > self.max_length:
            raise TextTooLong(f"the text has {len(ids) + 2} tokens, the model sees {self.max_length}: shorten it")
        return EncodedMasks(text, [replace(self.tokenizer.frame(ids), masks=masks)], places)

    def _joined(self, text: str, ids: Ints, places: Seq[tuple[int, int]]) -> Ints:
        """Without the piece that only says that a word begins, where text goes on directly after a mask: SentencePiece
        begins anew there, and in what the model learnt from no piece stood between a word and its full stop."""
        masks = np.flatnonzero(ids == self.tokenizer.mask)
        if len(masks) != len(places):
            return ids
        glued = [at + 1 for at, (_, end) in zip(masks, places, strict=True) if not text[end : end + 1].isspace()]
        return np.delete(ids, [at for at in glued if at < len(ids) and self.tokenizer.piece(int(ids[at])) == BEGINS])

    def decode(self, encoded: EncodedMasks, logits: Seq[Floats], *, top_k: int = 5) -> list[list[Filled]]:
        """For each mask in its order the ``top_k`` words, best first.  ``logits``: as ``best_words`` has them."""
        (values,) = logits
        kept = values.shape[1] // 2
        scores = np.exp(values[:, :kept].astype(np.float64) - values[:, -1:])
        tokens = values[:, kept:-1].astype(np.int64)
        return [
            [
                self._filled(encoded.text, place, int(tokens[mask, at]), float(scores[mask, at]))
                for at in self._pieces(tokens[mask], min(top_k, kept))
            ]
            for mask, place in enumerate(encoded.places)
        ]

    def _pieces(self, tokens: npt.NDArray[np.int64], most: int) -> list[int]:
        """Places of the first ``most`` that the vocabulary has."""
        return [at for at, token in enumerate(tokens.tolist()) if self.tokenizer.piece(token)][:most]

    def _filled(self, text: str, place: tuple[int, int], token: int, score: float) -> Filled:
        piece, (start, end) = self.tokenizer.piece(token), place
        word = piece.removeprefix(CONTINUES).replace(BEGINS, " ").strip()
        before = text[:start]
        if self.continues(piece):
            before = before.rstrip(" ")  # a piece that goes on belongs to the word before it
        return Filled(word, token, score, before + word + text[end:])

    def continues(self, piece: str) -> bool:
        """Does ``piece`` go on with the word before it?"""
        if self.tokenizer.marks_beginnings:
            return piece[:1].isalnum()  # SentencePiece: no mark of a beginning; punctuation stands by itself
        return piece.startswith(CONTINUES)
