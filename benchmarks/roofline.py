"""The runtime against its ceiling: a layer with all that belongs to it, against its four matrix products alone.

    python benchmarks/roofline.py --out FOLDER

An albert-base of random weights in float32 and in eight bits; both sides in the same ONNX Runtime with the same
threads, on the same number of tokens, in turn; the fastest of some rounds counts.
"""

import argparse
import functools
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from models import make, make_int8, row
from onnx import GraphProto, TensorProto, helper
from packing import MIXED, all_layers, fastest, machine
from servers import report, show

from service.repository.store import read_files, read_manifest
from service.runtime.processor import current
from service.runtime.providers import Device, choose
from service.runtime.session import Model, session_options
from service.serving.loading import choose_precision, make_model

HIDDEN, BETWEEN, LAYERS = 768, 3072, 12
PRODUCTS = {"qkv": (HIDDEN, 3 * HIDDEN), "out": (HIDDEN, HIDDEN), "up": (HIDDEN, BETWEEN), "down": (BETWEEN, HIDDEN)}
OPERATIONS = 2 * sum(rows * columns for rows, columns in PRODUCTS.values())  # of a token in a layer
CASES = {
    "1 x 25 tokens": [25],
    "5 x 25": [25] * 5,
    "20 x 25": [25] * 20,
    "1 x 128": [128],
    "4 x 128": [128] * 4,
    "1 x 384": [384],
    "32 sentences, 8 to 61": MIXED,
}


def products() -> ort.InferenceSession:
    """The four products of a layer: three of its input, and one of what is between."""
    draw = np.random.default_rng(0)
    weights = [
        helper.make_tensor(name, TensorProto.FLOAT, size, draw.standard_normal(size).astype(np.float32).tobytes(), True)
        for name, size in PRODUCTS.items()
    ]
    read = {"qkv": "x", "out": "x", "up": "x", "down": "up.y"}
    nodes = [helper.make_node("MatMul", [read[name], name], [f"{name}.y"]) for name in PRODUCTS]
    outputs = [helper.make_tensor_value_info(f"{name}.y", TensorProto.FLOAT, None) for name in ("qkv", "out", "down")]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ("tokens", HIDDEN))
    graph = helper.make_graph(nodes, "products", [x], outputs, weights)
    return session_of(graph, choose("cpu"))


def session_of(graph: GraphProto, device: Device) -> ort.InferenceSession:
    """``graph`` alone on ``device``, with as many threads as serving has."""
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    options = session_options(device, threads=current().cores)
    return ort.InferenceSession(model.SerializeToString(), options, providers=device.providers)


def compare(models: dict[str, Model], ceiling: ort.InferenceSession, lengths: list[int], rounds: int) -> dict[str, Any]:
    rows = [row(length) for length in lengths]
    tokens = sum(lengths)
    x = np.random.default_rng(1).standard_normal((tokens, HIDDEN)).astype(np.float32)

    def alone() -> None:
        for _ in range(LAYERS):
            ceiling.run(None, {"x": x})

    rivals = {name: functools.partial(all_layers, model, rows) for name, model in models.items()}
    seconds = fastest({"products": alone} | rivals, rounds)
    gigaflops = {name: tokens * LAYERS * OPERATIONS / value / 1e9 for name, value in seconds.items()}
    return {
        "tokens": tokens,
        "products_tokens_per_s": round(tokens / seconds["products"]),
        "products_gflop_per_s": round(gigaflops["products"]),
        "float32_tokens_per_s": round(tokens / seconds["float32"]),
        "float32_of_ceiling": round(seconds["products"] / seconds["float32"], 2),
        "int8_tokens_per_s": round(tokens / seconds["int8"]),
        "int8_against_float32": round(seconds["float32"] / seconds["int8"], 2),
    }


def loaded(version: Path) -> Model:
    """As it is served on a processor with VNNI."""
    manifest = read_manifest(version)
    precision = choose_precision(manifest.graphs["cpu"])
    return make_model(read_files(version, manifest), manifest, choose("cpu"), precision)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/bench"))
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--rounds", type=int, default=8)
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        checkpoint = make(folder)
        repositories = {"float32": folder / "repository", "int8": make_int8(checkpoint, folder, options.data)}
        versions = {name: root / "sentiment" / "1" for name, root in repositories.items()}
        models = {name: loaded(one) for name, one in versions.items()}
        ceiling = products()
        for case, lengths in CASES.items():
            rows.append({"batch": case} | compare(models, ceiling, lengths, options.rounds))
            show(rows[-1])
    report(options.out, "roofline", machine(), rows)


if __name__ == "__main__":
    main()
