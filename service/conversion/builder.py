"""The pieces that the graphs are built of: nodes, weights in the right precision, products in float or in eight bits.

In eight bits, weights are rounded by column and activations by row, so that a token's result does not depend on what
else is in the step.  Where the ranges of the channels were measured (``ranges.py``) activations are rounded by channel:
nothing is looked at, which is faster, and the channels' steps are a part of the weights.

The weights' integers are made from the stored floats when the graph is loaded (ONNX Runtime folds what depends on
initializers alone), so the file holds no second copy.

Weights have seven bits where that keeps the score.  Processors without VNNI add two products of uint8 and int8 in
sixteen bits: 2 x 255 x 127 overflows them, 2 x 255 x 63 does not, so one set of integers is right on all of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from .weights import WeightFile

MICROSOFT = "com.microsoft"
Device = Literal["cpu", "cuda"]
Precision = Literal["float32", "float16", "int8"]
WeightBits = Literal[7, 8]
LAYER_MATRICES = frozenset({"qkv", "out", "up", "down"})


@dataclass(frozen=True, slots=True)
class Target:
    """What a graph is made for.  ``int8`` names the matrices of the layer that are multiplied in eight bits.

    ``weight_bits``: with 7, a weight is -63 to 63, and the product is exact on every processor; with 8 it is -127 to
    127, and the product exact only where there is VNNI.

    ``ranges``: how far each channel goes that a matrix in eight bits reads, by matrix, of all of them; empty where
    activations are rounded by row.

    ``rounded``: computes in float32, and rounds weights and what each kernel of CUDA would give out to float16, as a
    card does that adds up in float32.  ONNX Runtime's own float16 on the CPU leaves kernels together in float32.
    """

    device: Device
    precision: Precision
    int8: frozenset[str] = frozenset()
    weight_bits: WeightBits = 7
    rounded: bool = False
    ranges: Mapping[str, npt.NDArray[np.float32]] = field(default_factory=dict, compare=False)

    @property
    def by_row(self) -> bool:
        """Are there matrices in eight bits whose rows are looked at?"""
        return bool(self.int8) and not self.ranges


CPU = Target("cpu", "float32")
CUDA = Target("cuda", "float16")
ROUNDED = Target("cpu", "float16", rounded=True)


class Graph:
    """Collects nodes and the initializers that they name, in the precision of its target."""

    def __init__(self, weights: WeightFile, target: Target) -> None:
        self.target = target
        self.device = target.device
        half = target.precision == "float16" and not target.rounded
        self.float = TensorProto.FLOAT16 if half else TensorProto.FLOAT
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, onnx.TensorProto] = {}
        self.zero_points = ""  # of the rows that are multiplied in eight bits: one value, a code, for each
        self._weights = weights
        self._casts: list[onnx.NodeProto] = []  # on initializers alone: folded away when the graph is loaded
        self._cast: set[str] = set()
        self._count = 0

    def add(self, op: str, *inputs: str, domain: str = "", out: str | None = None, **attributes: object) -> str:
        """One node with one output, whose name it returns."""
        self._count += 1
        out = out or f"{op.lower()}_{self._count}"
        self.nodes.append(helper.make_node(op, list(inputs), [out], domain=domain, **attributes))
        return out

    def weight(self, name: str, *, cast: bool = True) -> str:
        """The initializer ``name`` in the precision of the device; the cast is folded away when the graph is loaded."""
        if name not in self.initializers:
            self.initializers[name] = self._weights.tensor(name)
        stored = self.initializers[name].data_type
        if not cast or (stored == self.float and not self.target.rounded):
            return name
        if f"{name}.cast" not in self._cast:
            half = name
            if self.target.rounded and stored != TensorProto.FLOAT16:
                half = f"{name}.half"
                self._casts.append(helper.make_node("Cast", [name], [half], to=TensorProto.FLOAT16))
            self._casts.append(helper.make_node("Cast", [half], [f"{name}.cast"], to=self.float))
            self._cast.add(f"{name}.cast")
        return f"{name}.cast"

    def kernel(self, x: str) -> str:
        """``x``, which a kernel of CUDA gives out: rounded to float16 where the target does so."""
        if not self.target.rounded:
            return x
        return self.add("Cast", self.add("Cast", x, to=TensorProto.FLOAT16), to=self.float)

    def constant(self, name: str, value: list[int]) -> str:
        return self._constant(name, TensorProto.INT64, [len(value)], value)

    def scalar(self, name: str, value: int) -> str:
        return self._constant(name, TensorProto.INT64, [], [value])

    def number(self, name: str, value: float) -> str:
        """A scalar in the precision of the target."""
        return self._constant(name, self.float, [], [value])

    def dense(self, x: str, name: str) -> str:
        """``x`` times a matrix, plus its bias."""
        if self._in_eight_bits(name):
            if self.target.ranges:
                return self._in_its_range(x, name, self.weight(f"{name}.bias"))
            return self.add("Add", self.matmul(x, name), self.weight(f"{name}.bias"))
        return self.add("Gemm", x, self.weight(f"{name}.weight"), self.weight(f"{name}.bias"))

    def matmul(self, x: str, name: str) -> str:
        """``x`` times a matrix, in float or in eight bits."""
        if not self._in_eight_bits(name):
            return self.add("MatMul", x, self.weight(f"{name}.weight"))
        if self.target.ranges:
            return self._in_its_range(x, name)
        matrix, scale = self.quantized_weight(f"{name}.weight")
        step = self._constant("int8.step", TensorProto.FLOAT, [], [1 / 127])
        one = self._constant("int8.one", TensorProto.FLOAT, [], [1.0])
        middle = self._constant("int8.middle", TensorProto.UINT8, [], [128])
        columns = self.initializers[f"{name}.weight"].dims[0]
        row = self.add("Mul", self.row_absmax(x), step)  # (tokens, 1)
        codes = self.add("QuantizeLinear", x, row, self.zero_points, axis=1, block_size=columns)
        return self.add(
            "Mul", self.add("MatMulIntegerToFloat", codes, matrix, one, scale, middle, domain=MICROSOFT), row
        )

    def _in_its_range(self, x: str, name: str, bias: str = "") -> str:
        """``x`` times a matrix, whose rows are multiplied by the step of the channel that they meet."""
        steps = self.target.ranges[name] / 127
        folded = self._constant(f"{name}.step", TensorProto.FLOAT, [len(steps)], steps.tolist())
        inverse = self._constant(f"{name}.inverse", TensorProto.FLOAT, [len(steps)], (1 / steps).tolist())
        one = self._constant("int8.one", TensorProto.FLOAT, [], [1.0])
        middle = self._constant("int8.middle", TensorProto.UINT8, [], [128])
        matrix, scale = self.quantized_weight(f"{name}.weight", folded)
        codes = self.add("QuantizeLinear", self.add("Mul", x, inverse), one, middle)
        given = [codes, matrix, one, scale, middle] + (["", bias] if bias else [])
        return self.add("MatMulIntegerToFloat", *given, domain=MICROSOFT)

    def middles(self, x: str) -> str:
        """The code of zero, 128, for each row of ``x`` (tokens, 1)."""
        tokens, each = self.add("Shape", x, start=0, end=1), self.constant("int8.each", [1])
        shape = self.add("Concat", tokens, each, axis=0)
        return self.add("ConstantOfShape", shape, value=helper.make_tensor("", TensorProto.UINT8, [1], [128]))

    def _in_eight_bits(self, name: str) -> bool:
        return name.startswith("layer.") and name.rpartition(".")[2] in self.target.int8

    def row_absmax(self, x: str) -> str:
        """The largest magnitude in each row, never zero."""
        axis = self.constant("int8.axis", [-1])
        low = self.add("Neg", self.add("ReduceMin", x, axis, keepdims=1))
        tiny = self._constant("int8.tiny", TensorProto.FLOAT, [], [1e-12])
        return self.add("Max", self.add("ReduceMax", x, axis, keepdims=1), low, tiny)

    def quantized_weight(self, name: str, steps: str = "") -> tuple[str, str]:
        """The weight ``name`` as int8 with one scale a column, made of what the file holds when the graph is loaded.

        ``steps``: each row is multiplied by one before."""
        integers, scale = f"{name}.int8", f"{name}.scale"
        if f"{name}.zero" not in self.initializers:
            floats = self.weight(name)
            if steps:
                down = self.constant("int8.down", [1])
                self._casts += [
                    helper.make_node("Unsqueeze", [steps, down], [f"{name}.steps"]),
                    helper.make_node("Mul", [floats, f"{name}.steps"], [f"{name}.folded"]),
                ]
                floats = f"{name}.folded"
            columns = self.initializers[name].dims[1]
            zero = self._constant(f"{name}.zero", TensorProto.INT8, [columns], [0] * columns)
            largest = 2 ** (self.target.weight_bits - 1) - 1
            share = self._constant("int8.weight_step", TensorProto.FLOAT, [], [1 / largest])
            rows = self.constant("int8.rows", [0])
            self._casts += [
                helper.make_node("Abs", [floats], [f"{name}.abs"]),
                helper.make_node("ReduceMax", [f"{name}.abs", rows], [f"{name}.max"], keepdims=0),
                helper.make_node("Mul", [f"{name}.max", share], [scale]),
                helper.make_node("QuantizeLinear", [floats, scale, zero], [integers], axis=1),
            ]
        return integers, scale

    def _constant(self, name: str, kind: int, dims: list[int], values: list[Any]) -> str:
        self.initializers[name] = helper.make_tensor(name, kind, dims, values)
        return name

    def graph(
        self, name: str, inputs: list[onnx.ValueInfoProto], outputs: list[onnx.ValueInfoProto]
    ) -> onnx.GraphProto:
        return helper.make_graph(self._casts + self.nodes, name, inputs, outputs, list(self.initializers.values()))

    def body(self) -> "Graph":
        """An empty graph for a Loop's body that shares this one's weights."""
        inner = Graph(self._weights, self.target)
        inner.initializers, inner._casts, inner._cast = self.initializers, self._casts, self._cast
        inner.zero_points = self.zero_points
        inner._count = self._count = self._count + 1000  # names stay distinct from the outer graph's
        return inner
