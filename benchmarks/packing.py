"""Packed against padded against PyTorch: the same weights on the same texts, as ratios in one run.

    python benchmarks/packing.py [--rounds 3] [--hidden 768] [--layers 12] [--json FILE]

The weights are random, in ALBERT-base's shape, since time does not depend on them.  The padded rival is what most
services run: ``torch.onnx.export`` of the Hugging Face model, in ONNX Runtime with all optimisations, on a batch padded
to its longest text.  Every variant runs once unmeasured, then ``rounds`` times, all of them in turn; the fastest round
counts, for on a shared machine the slower ones measure the neighbours.
"""

import argparse
import json
import platform
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch
from transformers import AlbertConfig, AlbertForSequenceClassification
from transformers.utils import logging as transformers_logging

from service.conversion.builder import CPU
from service.conversion.checkpoint import Checkpoint, read_checkpoint
from service.conversion.graph import Network, build
from service.conversion.weights import FILE, WeightFile, serving_arrays
from service.heads import Head
from service.runtime.processor import current
from service.runtime.providers import Device, choose
from service.runtime.session import Model, session_options
from service.types import Sequence

Variant = Callable[[], np.ndarray]
# Sentences of a mixed batch, longest 61 tokens, and the uniform cases in which padding costs nothing.
MIXED = [61, 8, 24, 33, 15, 52, 11, 19, 40, 27, 9, 22, 31, 13, 45, 17, 29, 38, 12, 26, 10, 35, 21, 16, 48, 14, 30, 23,
         42, 18, 28, 50]  # fmt: skip
CASES = {
    "1 x 16 tokens": [16],
    "1 x 128 tokens": [128],
    "8 x 128 tokens": [128] * 8,
    "32 sentences, 8 to 61 tokens": MIXED,
    "28 sentences and 4 texts of 200": [*MIXED[:28], 200, 200, 200, 200],
}


def main() -> None:
    options = _options()
    threads = current().cores
    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        original, packed, padded = make_models(folder, options.hidden, options.layers)
        results = {case: compare(lengths, original, packed, padded, options.rounds) for case, lengths in CASES.items()}
    print(f"ALBERT {options.layers} x {options.hidden}, float32; {machine()}\n")
    print(table(results))
    if options.json:
        options.json.write_text(json.dumps({"machine": machine(), "seconds": results}, indent=1))


def make_models(
    folder: Path, hidden: int, layers: int
) -> tuple[AlbertForSequenceClassification, Model, ort.InferenceSession]:
    """The PyTorch model, ours made of its weights, and its plain ONNX export."""
    shape = {"hidden_size": hidden, "intermediate_size": 4 * hidden, "num_attention_heads": hidden // 64}
    original = AlbertForSequenceClassification(AlbertConfig(**shape, num_hidden_layers=layers)).eval()
    original.save_pretrained(folder)
    packed = packed_model(read_checkpoint(str(folder)), folder)
    export(original, folder / "padded.onnx")
    options = session_options(Device("cpu"), threads=current().cores)  # the same threads as ours
    return original, packed, ort.InferenceSession(str(folder / "padded.onnx"), options)


def packed_model(checkpoint: Checkpoint, folder: Path) -> Model:
    network = Network(checkpoint.shape, head=Head.POOLED, weights=WeightFile(folder, serving_arrays(checkpoint)))
    parts = ("embed", "layers", "head")
    for part in parts:
        (folder / f"{part}.onnx").write_bytes(build(part, network, CPU).SerializeToString())
    graphs = {part: (folder / f"{part}.onnx").read_bytes() for part in parts}
    weights = {FILE: (folder / FILE).read_bytes()}
    return Model(graphs, weights, choose("cpu"), layers=checkpoint.shape.num_hidden_layers, head=Head.POOLED)


def export(model: AlbertForSequenceClassification, path: Path) -> None:
    model.config.return_dict = False
    ids = torch.ones((2, 8), dtype=torch.long)
    axes = {name: {0: "rows", 1: "longest"} for name in ("ids", "mask")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer's remarks on code that is not ours
        torch.onnx.export(
            model, (ids, torch.ones_like(ids)), path, input_names=["ids", "mask"], output_names=["logits"],
            dynamic_axes=axes, opset_version=17, dynamo=False,
        )  # fmt: skip
    model.config.return_dict = True


def compare(
    lengths: list[int], original: AlbertForSequenceClassification, packed: Model, padded: ort.InferenceSession,
    rounds: int,
) -> dict[str, float]:  # fmt: skip
    """Seconds of each variant on one batch of ``lengths``; their logits must agree."""
    draw = np.random.default_rng(0)
    rows = [draw.integers(5, 30_000, length).astype(np.int32) for length in lengths]
    sequences = [Sequence(row, np.zeros_like(row), len(row)) for row in rows]
    ids, mask = np.zeros((2, len(rows), max(lengths)), dtype=np.int64)
    for index, row in enumerate(rows):
        ids[index, : len(row)], mask[index, : len(row)] = row, 1

    def run_original() -> np.ndarray:
        with torch.inference_mode():
            logits: np.ndarray = original(torch.from_numpy(ids), attention_mask=torch.from_numpy(mask)).logits.numpy()
            return logits

    variants: dict[str, Variant] = {
        "packed": lambda: np.stack(all_layers(packed, sequences)),
        "padded": lambda: padded.run(None, {"ids": ids, "mask": mask})[0],
        "pytorch": run_original,
    }
    outputs = {name: variant() for name, variant in variants.items()}
    for name, logits in outputs.items():
        np.testing.assert_allclose(logits, outputs["pytorch"], atol=1e-4, err_msg=name)
    return fastest(variants, rounds)


def all_layers(model: Model, rows: list[Sequence]) -> list[np.ndarray]:
    """Logits as ``model.run`` gives them, with all tokens in the last layer: what is compared does the same work."""
    pack = model.pack(rows)
    return model.head(model.advance(model.embed(pack), pack, model.depth), pack)


def fastest(variants: dict[str, Variant], rounds: int) -> dict[str, float]:
    seconds = {name: float("inf") for name in variants}
    for _ in range(rounds):
        for name, variant in variants.items():
            began = time.perf_counter()
            variant()
            seconds[name] = min(seconds[name], time.perf_counter() - began)
    return seconds


def table(results: dict[str, dict[str, float]]) -> str:
    lines = ["| batch | packed | padded | PyTorch | padded / packed | PyTorch / packed |", "|---|---|---|---|---|---|"]
    for case, seconds in results.items():
        packed, padded, pytorch = seconds["packed"], seconds["padded"], seconds["pytorch"]
        times = " | ".join(f"{value * 1000:.0f} ms" for value in (packed, padded, pytorch))
        lines.append(f"| {case} | {times} | {padded / packed:.2f} | {pytorch / packed:.2f} |")
    return "\n".join(lines)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--hidden", type=int, default=768)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--json", type=Path, help="write the figures there too")
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    return parser.parse_args()


def machine() -> str:
    versions = f"onnxruntime {ort.__version__}, torch {torch.__version__}"
    return f"{_processor()}, {current()}, {versions}; commit {_commit()}"


def _processor() -> str:
    names = [line.partition(": ")[2] for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line]
    return names[0] if names else platform.processor()


def _commit() -> str:
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


if __name__ == "__main__":
    main()
