"""A file that was read: its text, and where on which page each code point of it stands."""

from collections.abc import Sequence as Seq
from dataclasses import dataclass

import numpy as np

from ..types import Floats

# A box is left, top, right, bottom, as shares of the page from its upper left corner, as the page is shown.
Box = tuple[float, float, float, float]
NEAR = 3.0  # times a letter's height: wider than a space, narrower than what lies between columns


@dataclass(frozen=True, slots=True)
class PagePlace:
    """``page`` counts from 1; ``boxes`` has one for each line."""

    page: int
    boxes: list[Box]


@dataclass(frozen=True, slots=True)
class ReadDocument:
    """``boxes`` (code points, 4), NaN where one has no place; ``starts``: the first code point of each page.

    A file without pages, such as plain text, has no starts.
    """

    text: str
    boxes: Floats
    starts: list[int]

    def place(self, start: int, end: int) -> PagePlace | None:
        """Where the code points ``start`` to ``end`` stand, on the page where they begin.  None without pages."""
        if not self.starts:
            return None
        page = int(np.searchsorted(self.starts, start, side="right"))
        following = self.starts[page] if page < len(self.starts) else len(self.text)
        return PagePlace(page, _lines(self.boxes[start : min(end, following)]))


def _lines(boxes: Floats) -> list[Box]:
    """One box for each run of code points that stand beside each other, or below each other on a turned page."""
    lines, last = list[Floats](), None
    for box in boxes[~np.isnan(boxes).any(axis=1)]:
        if last is not None and (_beside(last, box, across=0) or _beside(last, box, across=1)):
            lines[-1] = np.concatenate((np.minimum(lines[-1][:2], box[:2]), np.maximum(lines[-1][2:], box[2:])))
        else:
            lines.append(box)
        last = box
    return [_rounded(line.tolist()) for line in lines]


def _beside(one: Floats, other: Floats, *, across: int) -> bool:
    """In the direction ``across`` (0: of a line) they are near; in the other half of the smaller is shared."""
    along = 1 - across
    shared = min(one[along + 2], other[along + 2]) - max(one[along], other[along])
    size = min(one[along + 2] - one[along], other[along + 2] - other[along])
    gap = max(one[across], other[across]) - min(one[across + 2], other[across + 2])
    larger = max(one[along + 2] - one[along], other[along + 2] - other[along])
    return bool(2 * shared > size and gap <= NEAR * larger)


def _rounded(box: Seq[float]) -> Box:
    left, top, right, bottom = (round(min(1.0, max(0.0, side)), 5) for side in box)
    return left, top, right, bottom
