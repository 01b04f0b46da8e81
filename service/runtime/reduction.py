"""What is kept of a head's output where all of it would be large: done in the device's thread, a step at a time.

A row over a vocabulary is 120 KB a mask, the states of a text 400 KB and more: a request has a thousand texts.
"""

import numpy as np

from ..types import Floats

KEPT = 100  # words of a mask
SLICE = 64  # masks whose rows over the vocabulary exist at once


def best_words(logits: Floats) -> Floats:
    """(masks, vocabulary) to (masks, 2 kept + 1): the highest logits, falling; their ids; the log of the sum of exp of
    all.  ``kept`` is KEPT, or the vocabulary where that is less.  Ids are exact: there are fewer than 2 ** 24."""
    kept = min(KEPT, logits.shape[1])
    ids = np.argpartition(-logits, kept - 1, axis=1)[:, :kept]
    values = np.take_along_axis(logits, ids, axis=1)
    order = np.lexsort((ids, -values), axis=1)
    values, ids = np.take_along_axis(values, order, axis=1), np.take_along_axis(ids, order, axis=1)
    highest = values[:, :1].astype(np.float64)
    total = highest + np.log(np.exp(logits - highest).sum(axis=1, keepdims=True))
    return np.concatenate([values, ids, total], axis=1).astype(np.float32)


def mean_and_first(states: Floats) -> Floats:
    """(tokens, hidden) to (2, hidden): the mean of all, and that of the first, [CLS]."""
    return np.stack([states.mean(axis=0, dtype=np.float64), states[0]]).astype(np.float32)
