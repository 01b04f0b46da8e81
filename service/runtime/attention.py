"""The graph that gives attention out, run a layer at a time over one text; on the CPU, in float32, on every device."""

from collections.abc import Mapping

import numpy as np

from ..types import Floats
from .providers import Device
from .session import open_session, translated


class AttentionModel:
    """``graph`` and the files of ``weights`` that it names, as bytes; ``threads`` as in ``Device``.

    Safe to call from several threads.
    """

    def __init__(self, graph: bytes, weights: Mapping[str, bytes], threads: int = 0) -> None:
        self._session = open_session("attention", graph, weights, Device("cpu", threads=threads))

    def layer(self, hidden: Floats, index: int) -> tuple[Floats, Floats]:
        """Layer ``index``, from 0, of ``hidden`` (tokens, hidden): what leaves it, and who looked at whom.

        The second is (inner layers, heads, tokens, tokens); the row of a token says where it looked, and sums to one.
        """
        try:
            out, weights = self._session.run(None, {"hidden": hidden, "index": np.array(index, dtype=np.int64)})
        except Exception as error:  # ONNX Runtime's own kinds share no base but this
            raise translated("attention", str(error)) from error
        return out, weights
