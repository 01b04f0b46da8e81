"""Which windows to read: those that have most in common with the question, by BM25 over the request's own windows.

    score = sum over the question's tokens of  idf * tf / (tf + k1 (1 - b + b length / mean length))

with idf = ln(1 + (n - df + 0.5) / (df + 0.5)) over the n windows (Robertson and Zaragoza 2009; Lucene's form of it).
Tokens are the model's own word pieces, so it serves every language that the model does, and what is everywhere in the
request counts little without a list of stop words.  Nothing is indexed: only the question's tokens are counted.
"""

from collections.abc import Sequence as Seq

import numpy as np

from ..types import Floats, Ints

K1, B = 1.5, 0.75


def bm25(question: Ints, windows: Seq[Ints]) -> Floats:
    """A score for each of ``windows``, token ids as ``question`` is; zero where they share no token."""
    asked = np.unique(question)
    lengths = np.array([len(window) for window in windows])
    tokens, window_of = np.concatenate(windows), np.repeat(np.arange(len(windows)), lengths)
    column = np.minimum(np.searchsorted(asked, tokens), len(asked) - 1)
    shared = asked[column] == tokens
    places = window_of[shared] * len(asked) + column[shared]
    counts = np.bincount(places, minlength=len(windows) * len(asked)).reshape(len(windows), len(asked))
    frequency = (counts > 0).sum(axis=0)
    rarity = np.log(1 + (len(windows) - frequency + 0.5) / (frequency + 0.5))
    length = K1 * (1 - B + B * lengths / lengths.mean())
    return np.asarray((rarity * counts / (counts + length[:, None])).sum(axis=1), dtype=np.float32)


def best(scores: Floats, count: int) -> list[int]:
    """The indices of the ``count`` highest, in their own order; of equals those that come first."""
    return sorted(np.argsort(-scores, kind="stable")[:count].tolist())
