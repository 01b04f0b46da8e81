"""Text to tokens: ids, and for each the code points of the caller's text that it came from.

A thin layer over the ``tokenizers`` library, which knows SentencePiece, word pieces and their normalisation.
What it adds is what the tasks share: the frame ``[CLS] a [SEP] b [SEP]`` with its segment ids, and offsets that
stay with the tokens through cutting and windowing.
"""

import contextlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tokenizers

from service.errors import InvalidRequest
from service.types import Ints, Sequence


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
    """Tokenizes and frames.  Safe to call from several threads: each gets a copy of its own.

    ``cls`` and ``sep`` are the ids of the two tokens that frame a text.
    """

    def __init__(self, definition: str, *, cls: int, sep: int) -> None:
        self._definition = definition
        self._local = threading.local()
        # Made here, where loading blocks nobody: one for the event loop and one for the thread of long texts.
        self._spare = [tokenizers.Tokenizer.from_str(definition) for _ in range(2)]
        self._cls = cls
        self._sep = sep

    @classmethod
    def from_file(cls, path: Path, *, cls_token: str = "[CLS]", sep_token: str = "[SEP]") -> "Tokenizer":
        """Read ``tokenizer.json``.  ValueError if it is not one or lacks the framing tokens."""
        definition = _without_cutting(path.read_text(encoding="utf-8"))
        engine = tokenizers.Tokenizer.from_str(definition)
        cls_id, sep_id = engine.token_to_id(cls_token), engine.token_to_id(sep_token)
        if cls_id is None or sep_id is None:
            raise ValueError(f"{path.name} has no {cls_token} or no {sep_token} token, which ALBERT frames texts with")
        return cls(definition, cls=cls_id, sep=sep_id)

    @property
    def _engine(self) -> tokenizers.Tokenizer:
        # One object a thread: the Rust side refuses to be borrowed twice (tokenizers issue 537).
        if not hasattr(self._local, "engine"):
            spare = self._spare.pop() if self._spare else tokenizers.Tokenizer.from_str(self._definition)
            self._local.engine = spare
        engine: tokenizers.Tokenizer = self._local.engine
        return engine

    def encode(self, text: str) -> Tokens:
        """The tokens of ``text`` without a frame.  InvalidRequest where it is not valid Unicode."""
        with _well_formed():
            encoding = self._engine.encode(text, add_special_tokens=False)
        offsets = np.array(encoding.offsets, dtype=np.int32).reshape(-1, 2)
        return Tokens(np.array(encoding.ids, dtype=np.int32), offsets)

    def ids(self, text: str) -> Ints:
        """The ids alone, which costs a third less.  InvalidRequest as ``encode``."""
        with _well_formed():
            (encoding,) = self._engine.encode_batch_fast([text], add_special_tokens=False)
        return np.array(encoding.ids, dtype=np.int32)

    def frame(self, first: Ints, second: Ints | None = None) -> Sequence:
        """``[CLS] first [SEP]`` or ``[CLS] first [SEP] second [SEP]``; the second text and its end are of type 1."""
        head = np.concatenate(([self._cls], first, [self._sep])).astype(np.int32)
        if second is None:
            return Sequence(head, np.zeros_like(head), len(head))
        ids = np.concatenate((head, second, [self._sep])).astype(np.int32)
        types = np.zeros_like(ids)
        types[len(head) :] = 1
        return Sequence(ids, types, len(head))


@contextlib.contextmanager
def _well_formed() -> Iterator[None]:
    try:
        yield
    except (TypeError, UnicodeEncodeError) as error:
        raise InvalidRequest(
            "the text holds a lone surrogate, which is half a character: send well-formed Unicode"
        ) from error


def _without_cutting(definition: str) -> str:
    """A saved tokenizer may cut and pad by itself; ours must not, for a cut that nobody reports is a wrong answer."""
    parsed = json.loads(definition)
    parsed["truncation"] = None
    parsed["padding"] = None
    return json.dumps(parsed, ensure_ascii=False)


def cut_pair(first: Ints, second: Ints, room: int) -> tuple[Ints, Ints]:
    """Both texts cut at their ends to ``room`` tokens together: the longer one loses first."""
    half = room // 2
    keep_second = min(len(second), max(room - half, room - len(first)))
    return first[: room - keep_second], second[:keep_second]
