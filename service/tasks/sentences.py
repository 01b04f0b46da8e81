"""The sentences that carry a text, chosen by their vectors.

Centrality: the cosine of a sentence with the mean of all (Radev et al. 2004).  Little redundancy: a sentence loses by
being like one that is chosen already (Carbonell and Goldstein 1998, maximal marginal relevance).
"""

import re
from collections.abc import Sequence as Seq
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

# A sentence ends at . ! or ?, or Arabic's, Urdu's and Hindi's, before a space and what no sentence goes on with (a
# small letter), at the signs that Chinese and Japanese end it with, or at an empty line.
END = re.compile(r"(?<=[.!?…؟۔।॥])[\"'”’)\]]*(?=\s+[^\sa-zà-ÿ])|(?<=[。！？])[”’」』）]*|\n\s*\n")
ABBREVIATIONS = re.compile(r"(?:\b(?:Mr|Mrs|Ms|Dr|Prof|St|Sr|Jr|vs|etc|e\.g|i\.e|Inc|Ltd|Co|Corp)|\b[A-Z])\.$")
BEFORE_NUMBERS = re.compile(r"\b(?:No|Fig|Vol|p|pp)\.$")
LONGEST = 8  # characters of an abbreviation and what is before it


@dataclass(frozen=True, slots=True)
class SentenceSpan:
    """``text[start:end]``, in code points."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Central:
    """A sentence by its index, with its cosine with the mean of all."""

    index: int
    score: float


def sentences(text: str) -> list[SentenceSpan]:
    """The sentences of ``text``, without the white space around them."""
    found, start = [], 0
    for match in END.finditer(text):
        if _abbreviated(text, start, match):
            continue
        found.append(_trimmed(text, start, match.end()))
        start = match.end()
    found.append(_trimmed(text, start, len(text)))
    return [span for span in found if span.start < span.end]


def _abbreviated(text: str, start: int, match: re.Match[str]) -> bool:
    """Does what looks like an end belong to an abbreviation?  An empty line always ends."""
    if "\n" in match[0]:
        return False
    before = text[max(start, match.start() - LONGEST) : match.start()]
    if ABBREVIATIONS.search(before):
        return True
    return bool(BEFORE_NUMBERS.search(before)) and text[match.end() : match.end() + 4].lstrip()[:1].isdigit()


def _trimmed(text: str, start: int, end: int) -> SentenceSpan:
    part = text[start:end]
    return SentenceSpan(start + len(part) - len(part.lstrip()), start + len(part.rstrip()))


def choose(
    vectors: npt.NDArray[np.float32], lengths: Seq[int], *, count: int | None = None, share: float | None = None,
    redundancy: float = 0.3,
) -> list[Central]:  # fmt: skip
    """The best ``count`` sentences, or of the best as many as have at most ``share`` of the characters and one at
    least, in the order of the text.  ``vectors`` (sentences, hidden) of length 1, ``lengths`` in characters."""
    mean = vectors.mean(axis=0)
    central = np.clip(vectors @ (mean / max(float(np.linalg.norm(mean)), 1e-12)), -1.0, 1.0)
    room = float("inf") if share is None else share * sum(lengths)
    most = len(lengths) if count is None else min(count, len(lengths))
    chosen: list[int] = []
    alike = np.zeros(len(lengths))  # each sentence's cosine with the chosen one that it is most like
    while len(chosen) < most:
        worth = (1 - redundancy) * central - redundancy * alike
        fits = np.array([n <= room for n in lengths]) if chosen else np.ones(len(lengths), dtype=bool)
        fits[chosen] = False
        if not fits.any():
            break
        best = int(np.where(fits, worth, -np.inf).argmax())
        chosen.append(best)
        room -= lengths[best]
        alike = np.maximum(alike, vectors @ vectors[best])
    return [Central(index, float(central[index])) for index in sorted(chosen)]
