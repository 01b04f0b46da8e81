"""Rows laid end to end: what the graphs read instead of a padded batch."""

from collections.abc import Sequence as Seq
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from service.types import Floats, Ints, Sequence


@dataclass(frozen=True)
class Pack:
    """``ids``, ``positions``, ``types`` (tokens,); ``lengths`` and ``starts`` (rows,): where each row begins."""

    ids: Ints
    positions: Ints
    types: Ints
    lengths: Ints
    starts: Ints

    @classmethod
    def of(cls, rows: Seq[Sequence]) -> "Pack":
        lengths = np.fromiter((len(row) for row in rows), dtype=np.int32, count=len(rows))
        ends = np.cumsum(lengths, dtype=np.int32)
        starts = ends - lengths
        ids = np.concatenate([row.ids for row in rows])
        positions = np.arange(len(ids), dtype=np.int32) - np.repeat(starts, lengths)
        return cls(ids, positions, np.concatenate([row.types for row in rows]), lengths, starts)

    @property
    def tokens(self) -> int:
        return len(self.ids)

    @property
    def longest(self) -> int:
        return int(self.lengths.max())

    @property
    def padding_avoided(self) -> int:
        """The tokens that a padded batch of the same rows would have computed for nothing."""
        return len(self.lengths) * self.longest - self.tokens

    @cached_property
    def slots(self) -> Ints:
        """(rows, longest): which token stands there; where padding would stand, some token that attention masks."""
        columns = np.arange(self.longest, dtype=np.int32)
        # Past its end a row repeats its last token: in range, and never looked at.
        return self.starts[:, None] + np.minimum(columns, self.lengths[:, None] - 1)

    @cached_property
    def tokens_at(self) -> Ints:
        """(tokens,): where each token stands in the flattened (rows * longest)."""
        rows = np.repeat(np.arange(len(self.lengths), dtype=np.int32), self.lengths)
        return rows * np.int32(self.longest) + self.positions

    @cached_property
    def token_offset(self) -> Ints:
        """(rows, longest): the places of the tokens, then those of the padding; for PackedMultiHeadAttention."""
        everywhere = np.arange(len(self.lengths) * self.longest, dtype=np.int32)
        padding = np.setdiff1d(everywhere, self.tokens_at, assume_unique=True)
        return np.concatenate((self.tokens_at, padding)).reshape(len(self.lengths), self.longest)

    @cached_property
    def cumulative(self) -> Ints:
        """(rows + 1,): the lengths summed up, from zero."""
        return np.concatenate(([0], np.cumsum(self.lengths))).astype(np.int32)

    def split(self, values: Floats) -> list[Floats]:
        """An array with one entry a token (tokens, ...), cut into one piece a row: views, not copies."""
        return np.split(values, self.cumulative[1:-1])
