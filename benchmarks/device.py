"""The device under the service: tokens a second, against its own products, and whether its memory creeps.

    python benchmarks/device.py [--device cuda] [--requests 10000] --out FOLDER

An albert-base of random weights in the precision that the device serves; the same on the CPU, to try it out.
"""

import argparse
import random
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from models import make, row
from onnx import TensorProto, helper
from packing import fastest, machine
from roofline import LAYERS, OPERATIONS
from servers import report, show
from tqdm import tqdm

from service.runtime.providers import Device, choose
from service.serving.engine import Engine, load

BATCHES = {"cuda": (1, 4, 16, 64, 256), "cpu": (1, 4)}
PRODUCT = {"cuda": (16_384, 4096, 4096), "cpu": (512, 768, 3072)}


def ceiling(device: Device, rounds: int = 20) -> float:
    """Operations a second of one large product, in half precision on CUDA, with its operands on the device."""
    rows, inner, columns = PRODUCT[device.kind]
    kind, number = (TensorProto.FLOAT16, np.float16) if device.kind == "cuda" else (TensorProto.FLOAT, np.float32)
    draw = np.random.default_rng(0)
    weight = draw.standard_normal((inner, columns)).astype(number)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], "product",
        [helper.make_tensor_value_info("x", kind, (rows, inner))],
        [helper.make_tensor_value_info("y", kind, (rows, columns))],
        [helper.make_tensor("w", kind, weight.shape, weight.tobytes(), True)],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    options = ort.SessionOptions()
    options.use_per_session_threads = False
    session = ort.InferenceSession(model.SerializeToString(), options, providers=device.providers)
    binding = session.io_binding()
    x = ort.OrtValue.ortvalue_from_numpy(draw.standard_normal((rows, inner)).astype(number), device.kind, device.index)
    binding.bind_ortvalue_input("x", x)
    binding.bind_output("y", device.kind, device.index)

    def product() -> None:
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()

    product()
    return 2 * rows * inner * columns / fastest({"product": product}, rounds)["product"]


def throughput(engine: Engine, device: Device, most: float) -> list[dict[str, Any]]:
    rows = []
    for batch in BATCHES[device.kind]:
        given = [row(128)] * batch
        rate = batch * 128 / fastest({"run": lambda given=given: engine.run(given)}, 6)["run"]
        share = rate * LAYERS * OPERATIONS / most
        rows.append({"texts": batch, "tokens_per_s": round(rate), "of_ceiling": round(share, 3)})
        show(rows[-1])
    return rows


def creep(engine: Engine, device: Device, requests: int) -> dict[str, Any]:
    """MB of memory after a tenth of the requests, when the arena has met most shapes, and after all."""
    draw, marks = random.Random(0), []
    for number in tqdm(range(requests), desc="varied requests", leave=False):
        if number == requests // 10:
            marks.append(memory(device))
        engine.run([row(draw.randint(3, 500)) for _ in range(draw.randint(1, 8))])
    found = {"requests": requests, "mb_after_a_tenth": marks[0], "mb_after_all": memory(device)}
    show(found)
    return found


def memory(device: Device) -> int:
    if device.kind == "cuda":
        ask = ["nvidia-smi", f"--id={device.index}", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
        return int(subprocess.run(ask, capture_output=True, text=True, check=True).stdout)
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 // 1_000_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--out", type=Path, default=Path("runs/bench"))
    options = parser.parse_args()
    device = choose(options.device)
    with tempfile.TemporaryDirectory() as name:
        make(Path(name))
        engine = load(Path(name) / "repository" / "sentiment" / "1", device)
        most = ceiling(device)
        show({"device": card(device), "budget": engine.budget, "ceiling_tflop_per_s": round(most / 1e12, 2)})
        rows = throughput(engine, device, most)
        rows.append(creep(engine, device, options.requests))
    report(options.out, "device", f"{card(device)}; {machine()}", rows)


def card(device: Device) -> str:
    if device.kind == "cpu":
        return "the CPU"
    ask = ["nvidia-smi", f"--id={device.index}", "--query-gpu=name", "--format=csv,noheader"]
    return subprocess.run(ask, capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    main()
