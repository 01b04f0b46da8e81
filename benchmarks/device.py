"""The device under the service: tokens a second, against its own products, whether its memory creeps, and what is left
of it over HTTP.

    python benchmarks/device.py [--device cuda] [--requests 10000] [--workers CORES] --out FOLDER

An albert-base of random weights in the precision that the device serves; the same on the CPU, to try it out.
"""

import argparse
import functools
import json
import multiprocessing
import random
import subprocess
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from models import make, newest, row
from onnx import TensorProto, helper
from packing import all_layers, fastest, machine
from roofline import LAYERS, OPERATIONS, session_of
from servers import albert_serve, closed, report, show
from tokenizers import Tokenizer
from tqdm import tqdm

from service.bench.traffic import Kind
from service.runtime.processor import current
from service.runtime.providers import Device, choose
from service.serving.engine import Engine
from service.serving.loading import LoadOptions, load

BATCHES = {"cuda": (1, 4, 16, 64, 256), "cpu": (1, 4)}
CLIENTS = 16  # of each process that asks
PRODUCT = {"cuda": (16_384, 4096, 4096), "cpu": (512, 768, 3072)}


def ceiling(device: Device, precision: str, rounds: int = 20) -> float:
    """Operations a second of one large product in ``precision``, with its operands on the device."""
    rows, inner, columns = PRODUCT[device.kind]
    half = precision == "float16"
    kind, number = (TensorProto.FLOAT16, np.float16) if half else (TensorProto.FLOAT, np.float32)
    draw = np.random.default_rng(0)
    weight = draw.standard_normal((inner, columns)).astype(number)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], "product",
        [helper.make_tensor_value_info("x", kind, (rows, inner))],
        [helper.make_tensor_value_info("y", kind, (rows, columns))],
        [helper.make_tensor("w", kind, weight.shape, weight.tobytes(), True)],
    )  # fmt: skip
    session = session_of(graph, device)
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
        rate = batch * 128 / fastest({"run": functools.partial(all_layers, engine.model, given)}, 6)["run"]
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


def over_http(repository: Path, device: Device, workers: int, seconds: float, log: Path) -> dict[str, Any]:
    """Requests a second of single sentences, to ``workers`` processes, from as many that ask."""
    with albert_serve(repository, log, device=str(device), workers=workers) as url:
        ask = functools.partial(closed, url, [sentences()], CLIENTS, seconds)
        # Fresh processes: this one holds the device.
        with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as askers:
            answers = [*askers.map(ask, [seconds / 4] * workers)]
    found = {
        "workers": workers, "clients": workers * CLIENTS, "requests_per_s": round(sum(map(rate_of, answers))),
        "p50_ms": round(float(np.median([one["p50_ms"] for one in answers])), 1),
        "p99_ms": max(one["p99_ms"] for one in answers),
    }  # fmt: skip
    show(found)
    return found


def rate_of(answers: dict[str, Any]) -> float:
    if answers["errors"]:
        raise SystemExit(f"over HTTP some requests failed, by status: {answers['errors']}; see the log in --out")
    return float(answers["answers_per_second"])


def sentences() -> Kind:
    """Made of the vocabulary's own words, about 25 tokens each: a GPU host need not have any data."""
    vocabulary = Tokenizer.from_file(str(newest("sentiment") / "tokenizer.json")).get_vocab()
    words, draw = sorted(word for word in vocabulary if word.isalpha() and word.isascii()), random.Random(0)
    texts = [" ".join(draw.choices(words, k=draw.randint(6, 40))) for _ in range(2000)]
    return Kind("short", "/classify", [json.dumps({"inputs": text}).encode() for text in texts])


def memory(device: Device) -> int:
    if device.kind == "cuda":
        ask = ["nvidia-smi", f"--id={device.index}", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
        return int(subprocess.run(ask, capture_output=True, text=True, check=True).stdout)
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 // 1_000_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=min(16, current().cores))
    parser.add_argument("--seconds", type=float, default=20, help="of the load over HTTP")
    parser.add_argument("--out", type=Path, default=Path("runs/bench"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    device = choose(options.device)
    with tempfile.TemporaryDirectory() as name:
        make(Path(name), precision="auto")
        engine = load(Path(name) / "repository" / "sentiment" / "1", LoadOptions(device))
        wanted = {"cuda": "float16", "cpu": "float32"}[device.kind]
        if engine.precision != wanted:
            raise SystemExit(f"the model runs in {engine.precision}, not in {wanted}: {engine.manifest.precision}")
        most = ceiling(device, engine.precision)
        facts = {"device": card(device), "precision": engine.precision, "budget": engine.budget}
        show(facts | {"ceiling_tflop_per_s": round(most / 1e12, 2)})
        rows = throughput(engine, device, most)
        rows.append(creep(engine, device, options.requests))
        report(options.out, "device", f"{card(device)}; {machine()}", rows)  # kept, should what follows fail
        del engine  # the workers need its memory
        log = options.out.resolve() / "servers.log"
        rows.append(over_http(Path(name) / "repository", device, options.workers, options.seconds, log))
    report(options.out, "device", f"{card(device)}; {machine()}", rows)


def card(device: Device) -> str:
    if device.kind == "cpu":
        return "the CPU"
    ask = ["nvidia-smi", f"--id={device.index}", "--query-gpu=name", "--format=csv,noheader"]
    return subprocess.run(ask, capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    main()
