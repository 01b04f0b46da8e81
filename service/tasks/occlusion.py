"""What each word is worth to an answer: how much its score falls without it (Zeiler and Fergus 2014; Li et al. 2016).

A word is a run of letters and digits, a character of Chinese or Japanese, or a run of other signs.  Two words may say
together what neither says alone: the interaction of neighbours is what both are worth beyond the sum of each.
"""

import math
import re
from collections.abc import Mapping, Sequence as Seq
from dataclasses import dataclass
from itertools import pairwise

from .text import EASTERN, LETTERS

WORD = re.compile(rf"{EASTERN}|{LETTERS}(?:['\u2019-]{LETTERS})*|[^\w\s]+")


@dataclass(frozen=True, slots=True)
class Part:
    """A word of the text that the request has under ``field``, or several; ``start`` and ``end`` in code points."""

    field: str
    start: int
    end: int


def words(texts: Mapping[str, str], most: int) -> list[Part]:
    """The words of all ``texts``, by field; neighbours are taken together where there are more than ``most``."""
    found = [parts for field, text in texts.items() if (parts := [Part(field, *m.span()) for m in WORD.finditer(text)])]
    size = max(1, math.ceil(sum(map(len, found)) / most))
    while sum(math.ceil(len(parts) / size) for parts in found) > max(most, len(found)):
        size += 1
    return [joined for parts in found for joined in _joined(parts, size)]


def _joined(parts: Seq[Part], size: int) -> list[Part]:
    groups = [parts[start : start + size] for start in range(0, len(parts), size)]
    return [Part(group[0].field, group[0].start, group[-1].end) for group in groups]


def neighbours(parts: Seq[Part]) -> list[tuple[int, int]]:
    """Indices of parts that follow each other in one text."""
    return [(a, b) for a, b in pairwise(range(len(parts))) if parts[a].field == parts[b].field]


def without(texts: Mapping[str, str], cut: Seq[Part]) -> dict[str, str]:
    """``texts`` without the parts ``cut``, each with one of the spaces around it."""
    left = dict(texts)
    for part in sorted(cut, key=lambda part: part.start, reverse=True):
        text = left[part.field]
        before, after = text[: part.start], text[part.end :]
        if before[-1:].isspace() and (after[:1].isspace() or not after):
            before = before[:-1]
        left[part.field] = before + after
    return left


def shifted(span: Part, cut: Seq[Part], texts: Mapping[str, str]) -> Part:
    """Where ``span`` lies once the parts ``cut``, which do not touch it, are gone."""
    gone = [part for part in cut if part.field == span.field and part.end <= span.start]
    text = texts[span.field]
    removed = len(text) - len(without({span.field: text}, gone)[span.field])
    return Part(span.field, span.start - removed, span.end - removed)


def touches(one: Part, other: Part) -> bool:
    return one.field == other.field and one.start < other.end and other.start < one.end
