"""ALBERT as three ONNX graphs on packed tokens, built by hand from the weights.

    embed:   ids, positions, types (tokens,)            -> hidden (tokens, hidden)
    layers:  hidden, a range of layers, a packing plan  -> hidden, of all tokens or of some
    head:    hidden, for some the places that are read  -> logits, as ``Head`` says

On the CPU ``layers`` holds each group's weights once and runs it in a Loop whose trip count is an input, so one graph
serves every depth: it runs layers ``first`` to ``first + count``.  On CUDA a Loop costs copies and a wait a layer:
``unrolled.py`` has the layers there.  The dense operators see ``(tokens, hidden)`` and pad nothing.  Only attention
knows of rows: on the CPU a Gather lays the tokens out as ``(rows, longest)`` and one takes them back; on CUDA
``PackedMultiHeadAttention`` reads packed tokens as they are.

A head that reads a few tokens needs no other token of the last layer: after attention, ``kept`` names those that go
on, and what is left of the layer, three quarters of its products, runs on them alone.

In int8 the matrices of the layer are multiplied in eight bits (``builder.py``); embeddings, their map, and the head
stay in float.

Sources: ALBERT, Lan et al. 2019; operators of the domain com.microsoft as ONNX Runtime documents them.
"""

from collections.abc import Callable
from dataclasses import dataclass

import onnx
from onnx import TensorProto, helper

from ..heads import Head
from ..runtime.cuda import ranges
from .activations import activated
from .builder import CPU, MICROSOFT, Graph, Target
from .shape import Shape
from .weights import WeightFile

KEPT_AT, KEPT_ZERO_POINTS = "kept_at", "kept_zero_points"  # of the tokens that go on: places, codes of zero
_OPSETS = {"cpu": 21, "cuda": 20}  # 21 has QuantizeLinear with a scale a row


@dataclass(frozen=True, slots=True)
class Network:
    """What the graphs are built from."""

    shape: Shape
    head: Head
    weights: WeightFile


def build(part: str, network: Network, target: Target) -> onnx.ModelProto:
    """The graph of one ``part`` for one ``target``; logits are in float32 always."""
    makers: dict[str, Callable[[Graph, Network], onnx.GraphProto]] = {
        "embed": _embed,
        "layers": _layers,
        "head": _head,
    }
    return model_of(makers[part](Graph(network.weights, target), network), target)


def model_of(graph: onnx.GraphProto, target: Target = CPU) -> onnx.ModelProto:
    opsets = [helper.make_opsetid("", _OPSETS[target.device]), helper.make_opsetid(MICROSOFT, 1)]
    model = helper.make_model(graph, opset_imports=opsets, producer_name="albert-serve")
    model.ir_version = 10
    return model


def ints(name: str, *dims: str | int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.INT32, dims)


def _embed(graph: Graph, network: Network) -> onnx.GraphProto:
    tables = (("embed.word", "ids"), ("embed.position", "positions"), ("embed.type", "types"))
    # The tables stay in the stored precision and only the rows that are read are cast.
    rows = [graph.add("Gather", graph.weight(table, cast=False), index) for table, index in tables]
    if graph.initializers["embed.word"].data_type != graph.float:
        rows = [graph.add("Cast", row, to=graph.float) for row in rows]
    word, position, kind = map(graph.kernel, rows)
    total = graph.kernel(graph.add("Add", graph.kernel(graph.add("Add", word, kind)), position))
    normed = graph.add(
        "LayerNormalization", total, graph.weight("embed.norm.weight"), graph.weight("embed.norm.bias"),
        epsilon=network.shape.layer_norm_eps, axis=-1,
    )  # fmt: skip
    hidden = graph.kernel(graph.dense(graph.kernel(normed), "embed.up"))
    graph.add("Identity", hidden, out="hidden")
    inputs = [ints(name, "tokens") for name in ("ids", "positions", "types")]
    return graph.graph("embed", inputs, [hidden_info("hidden", graph, network)])


def _layers(graph: Graph, network: Network) -> onnx.GraphProto:
    """One Loop a group; its trip count is what of ``first .. first + count`` falls into the group's own layers."""
    shape = network.shape
    if graph.target.by_row:
        graph.zero_points = graph.middles("hidden")
    if narrows(network):
        graph.add("Gather", "tokens_at", "kept", out=KEPT_AT)
        if graph.target.by_row:
            graph.add("Gather", graph.zero_points, "kept", out=KEPT_ZERO_POINTS)
    last = graph.add("Add", "first", "count")
    hidden = "hidden"
    true = graph.initializers["true"] = helper.make_tensor("true", TensorProto.BOOL, [], [True])
    for group, (start, end) in enumerate(group_ranges(shape)):
        lower, upper = graph.scalar(f"start_{group}", start), graph.scalar(f"end_{group}", end)
        trips = graph.add("Sub", graph.add("Min", last, upper), graph.add("Max", "first", lower))
        out = f"hidden_{group}"
        body = _loop_body(graph, network, group)
        # A group outside the range has a trip count below one, and its Loop hands hidden on as it came.
        graph.nodes.append(helper.make_node("Loop", [trips, true.name, hidden], [out], body=body))
        hidden = out
    graph.add("Identity", hidden, out="out")
    plan = [ints("slots", "rows", "longest"), ints("tokens_at", "tokens"), ints("lengths", "rows")]
    plan += [ints("kept", "kept")] if narrows(network) else []
    scalars = [helper.make_tensor_value_info(name, TensorProto.INT64, []) for name in ("first", "count")]
    inputs = [hidden_info("hidden", graph, network), *scalars, *plan]
    return graph.graph("layers", inputs, [hidden_info("out", graph, network, _left(network))])


def narrows(network: Network) -> bool:
    """May tokens be left behind in the last layer?"""
    return network.head.reads_few


def _left(network: Network) -> str:
    """The name of the dimension of the tokens that the layers give out."""
    return "kept" if narrows(network) else "tokens"


def group_ranges(shape: Shape) -> list[tuple[int, int]]:
    """The layers, half open, that each group runs."""
    return ranges(shape.num_hidden_layers, shape.num_hidden_groups)


def _loop_body(graph: Graph, network: Network, group: int) -> onnx.GraphProto:
    body = graph.body()
    x = entering = f"entering_{group}"
    count = network.shape.inner_group_num
    for inner in range(count):
        kept = "kept" if narrows(network) and inner == count - 1 else ""
        x = one_layer(body, network.shape, f"layer.{group}.{inner}", x, kept)
    leaving = body.add("Identity", x)
    return one_group(
        body, group, [hidden_info(entering, graph, network)], [hidden_info(leaving, graph, network, _left(network))]
    )


def one_group(
    body: Graph, group: int, entering: list[onnx.ValueInfoProto], leaving: list[onnx.ValueInfoProto]
) -> onnx.GraphProto:
    """The nodes of ``body`` as the body of a group's Loop, with what it takes from turn to turn."""
    going_on = body.add("Identity", f"go_{group}")
    inputs = [
        helper.make_tensor_value_info(f"trip_{group}", TensorProto.INT64, []),
        helper.make_tensor_value_info(f"go_{group}", TensorProto.BOOL, []),
    ]
    outputs = [helper.make_tensor_value_info(going_on, TensorProto.BOOL, [])]
    return helper.make_graph(body.nodes, f"group_{group}", inputs + entering, outputs + leaving)


def one_layer(graph: Graph, shape: Shape, name: str, x: str, kept: str = "") -> str:
    """One transformer layer, post-norm: (tokens, hidden) -> (tokens, hidden), or those ``kept`` where that is named."""
    attended = _attention(graph, shape, name, x, KEPT_AT if kept else "tokens_at")
    if not kept:
        return after_attention(graph, shape, name, attended, x)
    every, graph.zero_points = graph.zero_points, KEPT_ZERO_POINTS
    x = after_attention(graph, shape, name, attended, graph.add("Gather", x, kept))
    graph.zero_points = every
    return x


def after_attention(graph: Graph, shape: Shape, name: str, attended: str, x: str) -> str:
    """The rest of the layer that read ``x`` and mixed its values to ``attended``."""
    x = _projected(graph, shape, attended, f"{name}.out", x, f"{name}.attention_norm")
    active = activated(graph, shape.hidden_act, x, f"{name}.up")
    return _projected(graph, shape, active, f"{name}.down", x, f"{name}.norm")


def _attention(graph: Graph, shape: Shape, name: str, x: str, places: str) -> str:
    heads, size = shape.num_attention_heads, shape.hidden_size
    if graph.device == "cuda":
        # With a bias of its own the operator lays rows x longest out in its workspace; without, it reads what is there.
        q, k, v = _split(graph, graph.dense(x, f"{name}.qkv"), axis=1)
        return graph.add(
            "PackedMultiHeadAttention", q, k, v, "", "token_offset", "cumulative", domain=MICROSOFT, num_heads=heads
        )
    bias = graph.weight(f"{name}.qkv.bias")
    qkv = graph.matmul(x, f"{name}.qkv")  # (tokens, 3 hidden)
    if graph.target.rounded:  # as CUDA adds it before
        qkv, bias = graph.kernel(graph.add("Add", qkv, bias)), ""
    padded = graph.add("Gather", qkv, "slots")  # (rows, longest, 3 hidden)
    q, k, v = _split(graph, padded, axis=2)
    rows = graph.add("MultiHeadAttention", q, k, v, bias, "lengths", domain=MICROSOFT, num_heads=heads)
    flat = graph.add("Reshape", rows, graph.constant("flat", [-1, size]))  # (rows * longest, hidden)
    return graph.kernel(graph.add("Gather", flat, places))  # (tokens, hidden)


def _split(graph: Graph, x: str, axis: int) -> tuple[str, str, str]:
    names = tuple(f"{x}_{part}" for part in "qkv")
    graph.nodes.append(helper.make_node("Split", [x], list(names), axis=axis, num_outputs=3))
    return names[0], names[1], names[2]


def _projected(graph: Graph, shape: Shape, x: str, matrix: str, skip: str, norm: str) -> str:
    """norm(x matrix + bias + skip)"""
    scale, shift = graph.weight(f"{norm}.weight"), graph.weight(f"{norm}.bias")
    if graph.device == "cuda":
        return graph.add(
            "SkipLayerNormalization", graph.matmul(x, matrix), skip, scale, shift, graph.weight(f"{matrix}.bias"),
            domain=MICROSOFT, epsilon=shape.layer_norm_eps,
        )  # fmt: skip
    # On the CPU the one operator takes five times as long as these two (benchmarks/operators.py).
    if graph.target.rounded:
        dense = graph.add("Add", graph.kernel(graph.matmul(x, matrix)), graph.weight(f"{matrix}.bias"))
    else:
        dense = graph.dense(x, matrix)
    total = graph.add("Add", dense, skip)
    return graph.kernel(graph.add("LayerNormalization", total, scale, shift, epsilon=shape.layer_norm_eps, axis=-1))


def _head(graph: Graph, network: Network) -> onnx.GraphProto:
    x, rows = "hidden", "tokens"
    inputs = [hidden_info("hidden", graph, network)]
    if network.head.reads_few:
        name, rows = ("starts", "rows") if network.head is Head.POOLED else ("places", "places")
        x = graph.add("Gather", "hidden", name)  # the [CLS] of each row, or each [MASK]
        inputs.append(ints(name, rows))
    logits = HEADS[network.head](graph, network, x)
    graph.add("Cast", graph.kernel(logits), out="logits", to=TensorProto.FLOAT)
    return graph.graph("head", inputs, [helper.make_tensor_value_info("logits", TensorProto.FLOAT, (rows, None))])


def _vocabulary(graph: Graph, network: Network, x: str) -> str:
    """The head of masked language modelling; its last matrix is the table of word embeddings, turned."""
    active = activated(graph, network.shape.hidden_act, x, "head.dense")
    normed = graph.kernel(graph.add(
        "LayerNormalization", active, graph.weight("head.norm.weight"), graph.weight("head.norm.bias"),
        epsilon=network.shape.layer_norm_eps, axis=-1,
    ))  # fmt: skip
    return graph.add("Gemm", normed, graph.weight("embed.word"), graph.weight("head.out.bias"), transB=1)


def _pooled(graph: Graph, x: str) -> str:
    return graph.kernel(graph.add("Tanh", graph.kernel(graph.dense(x, "head.pool"))))


HEADS: dict[Head, Callable[[Graph, Network, str], str]] = {
    Head.POOLED: lambda graph, network, x: graph.dense(_pooled(graph, x), "head.out"),
    Head.TOKENS: lambda graph, network, x: graph.dense(x, "head.out"),
    Head.MASKS: _vocabulary,
    Head.STATES: lambda graph, network, x: x,
}


def hidden_info(name: str, graph: Graph, network: Network, tokens: str = "tokens") -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, graph.float, (tokens, network.shape.hidden_size))
