"""One layer of an ALBERT as an ONNX graph that gives its attention out, for ``POST /explain``; one text at a time.

    attention:  hidden (tokens, hidden), which layer  -> hidden, weights (inner layers, heads, tokens, tokens)

It names the tensors of the other graphs' file of weights, computes in float32 on the CPU, and uses no fused operator:
those keep their weights to themselves.  A row of ``weights`` says where a token looked, and sums to one.
"""

import onnx
from onnx import TensorProto, helper

from .builder import CPU, Graph
from .graph import Network, after_attention, group_ranges, hidden_info, model_of, one_group
from .shape import Shape

FILE = "attention.onnx"


def build_attention(network: Network) -> onnx.ModelProto:
    """One Loop a group, of one trip where the layer ``index`` is its own and of none elsewhere."""
    graph, shape = Graph(network.weights, CPU), network.shape
    following = graph.add("Add", "index", graph.scalar("one", 1))
    true = graph.initializers["true"] = helper.make_tensor("true", TensorProto.BOOL, [], [True])
    tokens = graph.add("Shape", "hidden", start=0, end=1)
    fixed = graph.constant("fixed", [shape.inner_group_num, shape.num_attention_heads])
    hidden, weights = "hidden", graph.add("ConstantOfShape", graph.add("Concat", fixed, tokens, tokens, axis=0))
    for group, (start, end) in enumerate(group_ranges(shape)):
        first = graph.add("Max", "index", graph.scalar(f"start_{group}", start))
        last = graph.add("Min", following, graph.scalar(f"end_{group}", end))
        trips, outs = graph.add("Sub", last, first), [f"hidden_{group}", f"weights_{group}"]
        body = _body(graph, network, group)
        graph.nodes.append(helper.make_node("Loop", [trips, true.name, hidden, weights], outs, body=body))
        hidden, weights = outs
    graph.add("Identity", hidden, out="out")
    graph.add("Identity", weights, out="weights")
    inputs = [hidden_info("hidden", graph, network), helper.make_tensor_value_info("index", TensorProto.INT64, [])]
    return model_of(graph.graph("attention", inputs, [hidden_info("out", graph, network), _weights("weights", shape)]))


def _body(graph: Graph, network: Network, group: int) -> onnx.GraphProto:
    body, shape = graph.body(), network.shape
    x, entering = f"entering_{group}", f"before_{group}"
    inner = [f"layer.{group}.{number}" for number in range(shape.inner_group_num)]
    seen = []
    for name in inner:
        attended, weights = _attention(body, shape, name, x)
        x = after_attention(body, shape, name, attended, x)
        seen.append(body.add("Unsqueeze", weights, body.constant("first_axis", [0])))
    states = [hidden_info(f"entering_{group}", graph, network), _weights(entering, shape)]
    return one_group(
        body, group, states,
        [hidden_info(body.add("Identity", x), graph, network), _weights(body.add("Concat", *seen, axis=0), shape)],
    )  # fmt: skip


def _attention(graph: Graph, shape: Shape, name: str, x: str) -> tuple[str, str]:
    """(tokens, hidden) and the weights (heads, tokens, tokens)."""
    heads, size = shape.num_attention_heads, shape.hidden_size // shape.num_attention_heads
    apart = graph.constant("heads_apart", [-1, heads, size])
    parts = [f"{name}.{part}" for part in "qkv"]
    graph.nodes.append(helper.make_node("Split", [graph.dense(x, f"{name}.qkv")], parts, axis=1, num_outputs=3))
    q, k, v = (graph.add("Reshape", part, apart) for part in parts)  # (tokens, heads, size)
    q, k, v = (
        graph.add("Transpose", part, perm=perm) for part, perm in ((q, (1, 0, 2)), (k, (1, 2, 0)), (v, (1, 0, 2)))
    )
    scores = graph.add("Mul", graph.add("MatMul", q, k), graph.number("head_scale", size**-0.5))
    weights = graph.add("Softmax", scores, axis=-1)
    mixed = graph.add("Transpose", graph.add("MatMul", weights, v), perm=(1, 0, 2))  # (tokens, heads, size)
    return graph.add("Reshape", mixed, graph.constant("heads_joined", [-1, heads * size])), weights


def _weights(name: str, shape: Shape) -> onnx.ValueInfoProto:
    dims = (shape.inner_group_num, shape.num_attention_heads, None, None)
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, dims)
