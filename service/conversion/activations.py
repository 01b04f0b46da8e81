"""The functions between the two feed-forward matrices, under transformers' names, as ONNX operators."""

from collections.abc import Callable

from .builder import MICROSOFT, Graph
from .shape import EXACT_GELU, OTHERS


def _sigmoid_times(graph: Graph, x: str, scale: float = 1.0) -> str:
    scaled = x if scale == 1 else graph.add("Mul", x, graph.number("act.scale", scale))
    return graph.add("Mul", x, graph.add("Sigmoid", scaled))


MAKERS: dict[str, Callable[[Graph, str], str]] = {
    "relu": lambda graph, x: graph.add("Relu", x),
    "relu6": lambda graph, x: graph.add("Min", graph.add("Relu", x), graph.number("act.six", 6.0)),
    "leaky_relu": lambda graph, x: graph.add("LeakyRelu", x, alpha=0.01),
    "tanh": lambda graph, x: graph.add("Tanh", x),
    "sigmoid": lambda graph, x: graph.add("Sigmoid", x),
    "silu": _sigmoid_times,
    "swish": _sigmoid_times,
    "quick_gelu": lambda graph, x: _sigmoid_times(graph, x, 1.702),
    "linear": lambda graph, x: graph.add("Identity", x),
}


def activated(graph: Graph, kind: str, x: str, matrix: str) -> str:
    """activation(x matrix + bias)"""
    if kind in OTHERS:
        return graph.kernel(MAKERS[kind](graph, graph.kernel(graph.dense(x, matrix))))
    exact = kind in EXACT_GELU
    if graph.device == "cuda":
        fused = "BiasGelu" if exact else "FastGelu"
        return graph.add(fused, graph.matmul(x, matrix), graph.weight(f"{matrix}.bias"), domain=MICROSOFT)
    dense = graph.dense(x, matrix)
    if graph.target.rounded:  # CUDA's product gives out before the one kernel of bias and function
        dense = graph.add("Add", graph.kernel(graph.matmul(x, matrix)), graph.weight(f"{matrix}.bias"))
    return graph.kernel(graph.add("Gelu", dense, approximate="none" if exact else "tanh"))
