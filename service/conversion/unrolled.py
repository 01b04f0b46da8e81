"""The layers for CUDA, written out: one graph of 1, 2, 3, 6, 12 ... layers each, and one that gives their weights.

    tensors:    nothing                                     -> each weight of the layers, in the precision of CUDA
    layers.N:   hidden, a packing plan, weights of a group  -> hidden, N layers later

A Loop would copy its trip count and its condition over the bus, and wait, a layer.  The graphs of layers hold no
weights: what ``tensors`` gives out once stays on the card, and every graph and every depth is given the same.
"""

import onnx
from onnx import helper

from .builder import Graph, Target
from .graph import Network, hidden_info, ints, model_of, one_layer


class GivenWeights(Graph):
    """A graph whose weights are inputs, under the names of the first group."""

    def weight(self, name: str, *, cast: bool = True) -> str:
        self.initializers.setdefault(name, self._weights.tensor(name))
        return name

    def given(
        self, name: str, inputs: list[onnx.ValueInfoProto], outputs: list[onnx.ValueInfoProto]
    ) -> onnx.GraphProto:
        """The graph with what would be initializers from the file among its inputs."""
        weights = {key: one for key, one in self.initializers.items() if key.startswith("layer.")}
        others = [one for key, one in self.initializers.items() if key not in weights]
        told = [helper.make_tensor_value_info(key, self.float, one.dims) for key, one in weights.items()]
        return helper.make_graph(self.nodes, name, inputs + told, outputs, others)


def counts(layers: int) -> list[int]:
    """How many layers a graph may have, of a model of ``layers``: all, and few enough kinds for any number between."""
    doubled = [3 << power for power in range(layers.bit_length())]
    return sorted({number for number in (1, 2, *doubled, layers) if number <= layers})


def build_layers(network: Network, target: Target, count: int) -> onnx.ModelProto:
    """``count`` layers in a row, whose weights are given."""
    graph, x = GivenWeights(network.weights, target), "hidden"
    for _ in range(count):
        for inner in range(network.shape.inner_group_num):
            x = one_layer(graph, network.shape, f"layer.0.{inner}", x)
    graph.add("Identity", x, out="out")
    plan = [ints("token_offset", "rows", "longest"), ints("cumulative", "rows_and_one")]
    hidden, out = hidden_info("hidden", graph, network), hidden_info("out", graph, network)
    return model_of(graph.given(f"layers_{count}", [hidden, *plan], [out]), target)


def build_tensors(network: Network, target: Target) -> onnx.ModelProto:
    """The weights of all groups, as outputs."""
    graph = Graph(network.weights, target)
    outputs = []
    for name in network.weights.names("layer."):
        graph.add("Identity", graph.weight(name), out=f"{name}.given")
        dims = graph.initializers[name].dims
        outputs.append(helper.make_tensor_value_info(f"{name}.given", graph.float, dims))
    return model_of(graph.graph("tensors", [], outputs), target)
