"""Does a device compute what it should?  A product in float16 and attention over it, against the same in float64."""

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from ..types import Sequence
from .packing import Pack

HEADS, SIZE = 2, 128  # 64 a head: a width that every kernel of attention takes
LENGTHS = (5, 11)  # tokens of two rows, which must not see each other
TOLERANCE = 5e-3  # float16 has eleven bits, and the values are about one

Array = npt.NDArray[np.float64]


def difference(session: ort.InferenceSession) -> float:
    """The largest difference of what ``session``, of the probe's graph, computes; NaN where that is no number."""
    draw = np.random.default_rng(0)
    x = draw.standard_normal((sum(LENGTHS), SIZE)).astype(np.float16)
    w = (draw.standard_normal((SIZE, 3 * SIZE)) / SIZE**0.5).astype(np.float16)
    ids = [np.zeros(length, dtype=np.int32) for length in LENGTHS]
    pack = Pack.of([Sequence(row, row, len(row)) for row in ids])
    given = {"x": x, "w": w, "token_offset": pack.token_offset, "cumulative": pack.cu_seqlens}
    found = session.run(None, given)[0].astype(np.float64)
    return float(np.abs(found - _expected(x.astype(np.float64), w.astype(np.float64))).max())


def _expected(x: Array, w: Array) -> Array:
    rows = np.split(x @ w, np.cumsum(LENGTHS)[:-1])
    return np.concatenate([_attention(row) for row in rows])


def _attention(qkv: Array) -> Array:
    """(tokens, 3 SIZE) to (tokens, SIZE)."""
    q, k, v = (part.reshape(len(qkv), HEADS, -1).transpose(1, 0, 2) for part in np.split(qkv, 3, axis=1))
    scores = q @ k.transpose(0, 2, 1) / q.shape[-1] ** 0.5
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    mixed = (weights / weights.sum(axis=-1, keepdims=True)) @ v
    return np.asarray(mixed.transpose(1, 0, 2).reshape(len(qkv), -1))
