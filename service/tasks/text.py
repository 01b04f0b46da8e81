"""Text to tokens: ids, and for each the code points of the caller's text that it came from.

A thin layer over the ``tokenizers`` library, which knows SentencePiece, word pieces and their normalisation.
What it adds is what the tasks share: the frame ``[CLS] a [SEP] b [SEP]`` with its segment ids, and offsets that
stay with the tokens through cutting and windowing.
"""

import contextlib
import json
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers

from ..errors import InvalidRequest
from ..types import Ints, Sequence

Definition = dict[str, Any]  # tokenizer.json
AT_ONCE = 4_096  # tokens
# Of a regular expression: Han, Hiragana and Katakana, which are written without spaces between words.
EAST = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
# A letter with its accents, vowel signs and joiners, which belong to the letter before them and are no letters to re.
_JOINERS = "\u200c\u200d"
MARKS = _JOINERS + "".join(
    chr(code) for code in range(0x300, 0xE01F0) if unicodedata.category(chr(code)) in ("Mn", "Mc", "Me")
)
LETTERS = rf"(?:[^\W{EAST}]++[{MARKS}]*+)++"  # without those of EAST
EASTERN = rf"[{EAST}][{MARKS}]*+"


@dataclass(frozen=True, slots=True)
class Tokens:
    """One text: ``ids`` (n,) and ``offsets`` (n, 2), half open, in code points of the text as it was given."""

    ids: Ints
    offsets: Ints

    def __len__(self) -> int:
        return len(self.ids)

    def part(self, start: int, end: int) -> "Tokens":
        return Tokens(self.ids[start:end], self.offsets[start:end])


class Tokenizer:
    """Tokenizes and frames.  Safe to call from several threads: nothing in ``engine`` is ever changed.

    ``cls`` and ``sep`` are the ids of the two tokens that frame a text; ``mask`` is that of a word to be found, where
    texts may hold it.
    """

    def __init__(self, engine: tokenizers.Tokenizer, *, cls: int, sep: int, mask: int | None = None) -> None:
        self._engine = engine
        self._cls = cls
        self._sep = sep
        self.mask = mask
        self.marks_beginnings = any(piece.startswith("\u2581") for piece in engine.get_vocab())

    @classmethod
    def from_file(cls, path: Path, *, cls_token: str = "[CLS]", sep_token: str = "[SEP]") -> "Tokenizer":
        """Read ``tokenizer.json``.  ValueError if it is not one or lacks the framing tokens."""
        return cls.from_bytes(path.read_bytes(), path.name, cls_token=cls_token, sep_token=sep_token)

    @classmethod
    def from_bytes(
        cls, content: bytes, name: str, *, cls_token: str = "[CLS]", sep_token: str = "[SEP]",
        mask_token: str | None = None,
    ) -> "Tokenizer":  # fmt: skip
        """The same of the ``content`` of a file that was called ``name``.  ``mask_token`` in a text is that token;
        without one it is ordinary text."""
        definition = json.loads(content.decode("utf-8"))
        given = tokenizers.Tokenizer.from_str(json.dumps(definition))
        cls_id, sep_id = given.token_to_id(cls_token), given.token_to_id(sep_token)
        if cls_id is None or sep_id is None:
            raise ValueError(f"{name} has no {cls_token} or no {sep_token} token, which ALBERT frames texts with")
        mask_id = given.token_to_id(mask_token) if mask_token is not None else None
        if mask_token is not None and mask_id is None:
            raise ValueError(f"{name} has no {mask_token} token, which stands for a word to be found")
        ordinary = _without_special(_without_cutting(definition), {cls_token, sep_token}, mask_token)
        return cls(tokenizers.Tokenizer.from_str(json.dumps(ordinary)), cls=cls_id, sep=sep_id, mask=mask_id)

    def encode(self, text: str) -> Tokens:
        """The tokens of ``text`` without a frame.  InvalidRequest where it is not valid Unicode."""
        with _well_formed():
            # In a batch of one, for alone it would keep the interpreter for itself.
            (encoding,) = self._engine.encode_batch([text], add_special_tokens=False)
        return _arrays(encoding)

    def ids(self, text: str) -> Ints:
        """The ids alone, which costs a third less.  InvalidRequest as ``encode``."""
        with _well_formed():
            (encoding,) = self._engine.encode_batch_fast([text], add_special_tokens=False)
        return np.array(encoding.ids, dtype=np.int32)

    def piece(self, token: int) -> str:
        """As the vocabulary writes it, with its mark of a word's beginning or going on; empty where it has none of this
        number, for a model may have more rows than pieces."""
        return str(self._engine.id_to_token(token) or "")

    def frame(self, first: Ints, second: Ints | None = None) -> Sequence:
        """``[CLS] first [SEP]`` or ``[CLS] first [SEP] second [SEP]``; the second text and its end are of type 1."""
        head = np.concatenate(([self._cls], first, [self._sep])).astype(np.int32)
        if second is None:
            return Sequence(head, np.zeros_like(head), len(head))
        ids = np.concatenate((head, second, [self._sep])).astype(np.int32)
        types = np.zeros_like(ids)
        types[len(head) :] = 1
        return Sequence(ids, types, len(head))


def _arrays(encoding: tokenizers.Encoding) -> Tokens:
    """The same in arrays, part by part: made in one go, those of a book keep the interpreter for 0.3 seconds."""
    encoding.truncate(AT_ONCE)  # what is cut off becomes more encodings, of as many tokens
    parts = [encoding, *encoding.overflowing]
    ids = [np.array(part.ids, dtype=np.int32) for part in parts]
    offsets = [np.array(part.offsets, dtype=np.int32).reshape(-1, 2) for part in parts]
    return Tokens(np.concatenate(ids), np.concatenate(offsets))


@contextlib.contextmanager
def _well_formed() -> Iterator[None]:
    try:
        yield
    except (TypeError, UnicodeEncodeError) as error:
        raise InvalidRequest(
            "the text holds a lone surrogate, which is half a character: send well-formed Unicode"
        ) from error


def _without_cutting(definition: Definition) -> Definition:
    """A saved tokenizer may cut and pad by itself; ours must not, for a cut that nobody reports is a wrong answer."""
    return definition | {"truncation": None, "padding": None}


def _without_special(definition: Definition, framing: set[str], kept: str | None = None) -> Definition:
    """The same with control tokens that no text can write: "[SEP]" typed by a user is five ordinary characters.

    They are no added tokens any more, which are cut out of a text before all else; and in the vocabulary they get a
    name with a space in it, which no piece of a text has.  But ``kept`` is a token that a text may hold.
    """
    added = definition.get("added_tokens") or []
    special = (framing | {token["content"] for token in added if token.get("special")}) - {kept}
    model = dict(definition["model"])
    vocabulary = model["vocab"]
    if isinstance(vocabulary, dict):
        model["vocab"] = {_hidden(piece, special): number for piece, number in vocabulary.items()}
    else:
        model["vocab"] = [[_hidden(piece, special), score] for piece, score in vocabulary]
    if model.get("unk_token"):
        model["unk_token"] = _hidden(model["unk_token"], special)
    left = [token for token in added if token["content"] not in special]
    return definition | {"added_tokens": left, "model": model, "post_processor": None}


def _hidden(piece: str, special: set[str]) -> str:
    return f" {piece}" if piece in special else piece


def cut_pair(first: Ints, second: Ints, room: int) -> tuple[Ints, Ints]:
    """Both texts cut at their ends to ``room`` tokens together, as transformers' ``longest_first`` cuts them.

    The longer one loses first; where both lose, an odd token stays with the longer, the second of two as long.
    """
    half = room // 2 if len(first) <= len(second) else room - room // 2
    keep_second = min(len(second), max(room - half, room - len(first)))
    return first[: room - keep_second], second[:keep_second]
