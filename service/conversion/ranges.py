"""How far each channel of what the layer's matrices read goes, seen on real rows: with it eight bits need not look.

    ranges:  hidden, a packing plan  -> for each matrix of the layer the largest magnitude of each channel (channels,)

All layers are written out in one graph, in float32 on the CPU; a matrix that several layers share has the largest of
all.  A range that is fixed saves a product in eight bits most of what surrounds it (``builder.py``); what goes beyond
is cut off, which the gate of the conversion judges.

Source: post-training static quantization, Jacob et al. 2018; channels with a range each, Xiao et al. 2023.
"""

from collections.abc import Mapping, Sequence as Seq
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper

from ..errors import CheckpointError
from ..runtime.packing import Pack, like_lengths
from ..serving.engine import Engine
from ..types import Sequence
from .builder import CPU, Graph
from .graph import Network, group_ranges, hidden_info, ints, model_of, one_layer

HEADROOM = 1.2  # of what was seen: other texts go a little further
LEAST = 0.1  # of a matrix' median channel: one that was silent on these rows may speak on others
STEP = 1024  # tokens
Ranges = Mapping[str, npt.NDArray[np.float32]]


class Watching(Graph):
    """Notes what its matrices read.  ``seen``: by matrix, the names of the largest magnitudes, one a layer."""

    seen: dict[str, list[str]]

    def matmul(self, x: str, name: str) -> str:
        axis = self.constant("ranges.axis", [0])
        self.seen.setdefault(name, []).append(self.add("ReduceMax", self.add("Abs", x), axis, keepdims=0))
        return super().matmul(x, name)

    def dense(self, x: str, name: str) -> str:
        return self.add("Add", self.matmul(x, name), self.weight(f"{name}.bias"))


def build_ranges(network: Network) -> onnx.ModelProto:
    graph, shape, x = Watching(network.weights, CPU), network.shape, "hidden"
    graph.seen = {}
    for group, (start, end) in enumerate(group_ranges(shape)):
        for _ in range(start, end):
            for inner in range(shape.inner_group_num):
                x = one_layer(graph, shape, f"layer.{group}.{inner}", x)
    outputs = []
    for name, seen in graph.seen.items():
        graph.add("Max", *seen, out=f"{name}.range")
        outputs.append(helper.make_tensor_value_info(f"{name}.range", TensorProto.FLOAT, [None]))
    plan = [ints("slots", "rows", "longest"), ints("tokens_at", "tokens"), ints("lengths", "rows")]
    return model_of(graph.graph("ranges", [hidden_info("hidden", graph, network), *plan], outputs))


def measured(folder: Path, network: Network, engine: Engine, rows: Seq[Sequence]) -> Ranges:
    """The ranges by matrix, with headroom, on ``rows``.  ``engine`` embeds them; the weights lie in ``folder``.

    CheckpointError where there are no rows.
    """
    if not rows:
        raise CheckpointError("no rows to measure ranges on: give --ranges a file with texts")
    path = folder / "ranges.onnx"
    path.write_bytes(build_ranges(network).SerializeToString())
    try:
        session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    finally:
        path.unlink()
    names = [one.name for one in session.get_outputs()]
    found: dict[str, npt.NDArray[np.float32]] = {}
    for step in like_lengths(rows, STEP):
        pack = Pack.of([rows[index] for index in step])
        feeds = {"slots": pack.gather_index, "tokens_at": pack.scatter_index, "lengths": pack.lengths}
        values = session.run(names, feeds | {"hidden": engine.model.embed(pack).value})
        for name, value in zip(names, values, strict=True):
            found[name] = np.maximum(found[name], value) if name in found else value
    return {name.removesuffix(".range"): _with_headroom(value) for name, value in found.items()}


def _with_headroom(seen: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    least = max(LEAST * float(np.median(seen)), 1e-6)
    return (HEADROOM * np.maximum(seen, least)).astype(np.float32)
