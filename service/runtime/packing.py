"""Rows laid end to end: what the graphs read instead of a padded batch."""

from collections.abc import Iterable, Iterator, Sequence as Seq
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from ..types import Ints, Sequence

FIRST = np.zeros(1, dtype=np.int32)
Values = npt.NDArray[Any]


@dataclass(frozen=True)
class Pack:
    """``ids``, ``positions``, ``types`` (tokens,); ``lengths`` and ``starts`` (rows,): where each row begins.

    After the ``real`` rows there may be others, of any token, that only make up a round number of tokens.
    """

    ids: Ints
    positions: Ints
    types: Ints
    lengths: Ints
    starts: Ints
    real: int
    marked: tuple[Ints | None, ...] = ()  # of each real row: its masks

    @classmethod
    def of(cls, rows: Seq[Sequence], *, rounded: bool = False) -> "Pack":
        """``rounded``: to one of few sizes, so that a device's memory is asked for the same pieces again and again."""
        lengths = np.array([len(row) for row in rows], dtype=np.int32)
        ids, types = [row.ids for row in rows], [row.types for row in rows]
        if rounded:
            tokens = int(lengths.sum())
            filler = np.zeros(round_up(tokens) - tokens, dtype=np.int32)
            lengths = np.concatenate((lengths, _cut(len(filler), int(lengths.max()))))
            ids, types = [*ids, filler], [*types, filler]
        starts = np.cumsum(lengths, dtype=np.int32) - lengths
        positions = np.arange(lengths.sum(), dtype=np.int32) - np.repeat(starts, lengths)
        marked = tuple(row.masks for row in rows)
        return cls(np.concatenate(ids), positions, np.concatenate(types), lengths, starts, len(rows), marked)

    @property
    def tokens(self) -> int:
        return len(self.ids)

    @property
    def longest(self) -> int:
        return int(self.lengths.max())

    @cached_property
    def gather_index(self) -> Ints:
        """(rows, longest): which token stands there; where padding would stand, some token that attention masks."""
        columns = np.arange(self.longest, dtype=np.int32)
        # Past its end a row repeats its last token: in range, and never looked at.
        return self.starts[:, None] + np.minimum(columns, self.lengths[:, None] - 1)

    @cached_property
    def scatter_index(self) -> Ints:
        """(tokens,): where each token stands in the flattened (rows * longest)."""
        rows = np.repeat(np.arange(len(self.lengths), dtype=np.int32), self.lengths)
        return rows * np.int32(self.longest) + self.positions

    @cached_property
    def every_token(self) -> Ints:
        """(tokens,): the place of each."""
        return np.arange(self.tokens, dtype=np.int32)

    @cached_property
    def token_offset(self) -> Ints:
        """(rows, longest): the places of the tokens, then those of the padding; for PackedMultiHeadAttention."""
        padding = np.ones(len(self.lengths) * self.longest, dtype=bool)
        padding[self.scatter_index] = False
        everywhere = np.concatenate((self.scatter_index, np.flatnonzero(padding).astype(np.int32)))
        return everywhere.reshape(len(self.lengths), self.longest)

    @cached_property
    def cu_seqlens(self) -> Ints:
        """(rows + 1,): the lengths summed up, from zero."""
        return np.concatenate(([0], np.cumsum(self.lengths))).astype(np.int32)

    def masks(self, rows: Iterable[int]) -> list[Ints]:
        """Where the masks of each of ``rows`` lie in the pack; its first token where it has none."""
        return [self.starts[row] + (FIRST if self.marked[row] is None else self.marked[row]) for row in rows]

    def split(self, values: Values) -> list[Values]:
        """An array with one entry a token (tokens, ...), cut into one piece a real row: views, not copies."""
        return np.split(values, self.cu_seqlens[1:-1])[: self.real]

    def join(self, pieces: Seq[Values]) -> Values:
        """The other way round: one piece a real row to (tokens, ...)."""
        filler = self.tokens - sum(map(len, pieces))
        return np.concatenate([*pieces, np.zeros((filler, *pieces[0].shape[1:]), pieces[0].dtype)])


def round_up(tokens: int) -> int:
    """One of eight sizes for each doubling: at most an eighth more, for more than 64 tokens."""
    unit = max(8, 1 << max(0, tokens.bit_length() - 4))
    return -(-tokens // unit) * unit


def _cut(tokens: int, longest: int) -> Ints:
    whole, rest = divmod(tokens, longest)
    return np.array([longest] * whole + [rest] * (rest > 0), dtype=np.int32)


def like_lengths(rows: Seq[Sequence], budget: int) -> Iterator[list[int]]:
    """Indices of ``rows`` in order of length, ``budget`` tokens a step."""
    step: list[int] = []
    tokens = 0
    for index in sorted(range(len(rows)), key=lambda index: len(rows[index])):
        if step and tokens + len(rows[index]) > budget:
            yield step
            step, tokens = [], 0
        step.append(index)
        tokens += len(rows[index])
    if step:
        yield step
