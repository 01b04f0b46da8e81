"""The graphs that belong to no model: the probe of a device, and the two by which rows are regrouped on a card.

    probe:  x, w, a packing plan   -> a product in float16, and attention over it
    take:   x (m, hidden), rows    -> those rows
    join:   left, right            -> one after the other

They lie in ``runtime/small_graphs``, where serving reads them; ``python -m service.conversion.small_graphs`` writes
them.
"""

from pathlib import Path

import onnx
from onnx import TensorProto, helper

from ..runtime.probe import HEADS
from ..runtime.small import FOLDER
from .builder import MICROSOFT

TYPES = {"float16": TensorProto.FLOAT16, "float32": TensorProto.FLOAT}


def small_graphs() -> dict[str, bytes]:
    """By file name."""
    made = {"probe.onnx": _probe()}
    for name, kind in TYPES.items():
        made |= {f"take.{name}.onnx": _take(kind), f"join.{name}.onnx": _join(kind)}
    return made


def _probe() -> bytes:
    half, whole = TensorProto.FLOAT16, TensorProto.INT32
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["product"]),
        helper.make_node("Split", ["product"], ["q", "k", "v"], axis=1, num_outputs=3),
        helper.make_node(
            "PackedMultiHeadAttention", ["q", "k", "v", "", "token_offset", "cumulative"], ["out"],
            domain=MICROSOFT, num_heads=HEADS,
        ),
    ]  # fmt: skip
    inputs = [_info("x", half, "tokens", "hidden"), _info("w", half, "hidden", "three")]
    inputs += [_info("token_offset", whole, "rows", "longest"), _info("cumulative", whole, "rows_and_one")]
    return _model("probe", nodes, inputs, _info("out", half, "tokens", "hidden"))


def _take(kind: int) -> bytes:
    inputs = [_info("x", kind, "m", "hidden"), _info("rows", TensorProto.INT32, "n")]
    return _model(
        "take", [helper.make_node("Gather", ["x", "rows"], ["out"])], inputs, _info("out", kind, "n", "hidden")
    )


def _join(kind: int) -> bytes:
    nodes = [helper.make_node("Concat", ["left", "right"], ["out"], axis=0)]
    inputs = [_info("left", kind, "m", "hidden"), _info("right", kind, "n", "hidden")]
    return _model("join", nodes, inputs, _info("out", kind, "both", "hidden"))


def _info(name: str, kind: int, *dims: str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, dims)


def _model(
    name: str, nodes: list[onnx.NodeProto], inputs: list[onnx.ValueInfoProto], output: onnx.ValueInfoProto
) -> bytes:
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid(MICROSOFT, 1)]
    model = helper.make_model(helper.make_graph(nodes, name, inputs, [output]), opset_imports=opsets)
    model.ir_version = 10
    return bytes(model.SerializeToString())


def write(folder: Path = FOLDER) -> None:
    folder.mkdir(exist_ok=True)
    for name, content in small_graphs().items():
        (folder / name).write_bytes(content)


if __name__ == "__main__":
    write()
