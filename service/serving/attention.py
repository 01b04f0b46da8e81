"""One text through the graph that gives attention out, a layer at a time: nobody waits for more than a layer."""

from collections.abc import Iterator

import numpy as np

from ..runtime.attention import AttentionModel
from ..runtime.session import Model
from ..types import Floats, Sequence
from .depths import InDeviceThread


def attention_by_layer(model: Model, attention: AttentionModel, row: Sequence, run: InDeviceThread) -> Iterator[Floats]:
    """Each layer's weights, (heads, tokens, tokens).  ``run`` is for the model's device; a GPU's is not kept by it."""
    pack = model.pack([row])
    hidden: Floats = run(lambda: np.asarray(model.states(model.embed(pack), pack)[0], dtype=np.float32))
    for index in range(model.depth):

        def one(before: Floats = hidden, index: int = index) -> tuple[Floats, Floats]:
            return attention.layer(before, index)

        hidden, weights = run(one) if model.device.kind == "cpu" else one()
        yield from weights
