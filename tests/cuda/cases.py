"""What is traced over the stand-in, each case in a process of its own: prints what it saw as JSON.

ALBERT_SERVE_STANDIN_CUDA=FOLDER python -m tests.cuda.cases NAME [ARGUMENT...]
"""

from tests.cuda import standin  # isort: skip - before everything that imports onnxruntime

import asyncio
import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from service.api.app import create_app
from service.errors import DeviceError, DeviceLost, OutOfMemory
from service.repository.store import read_files, read_manifest, versions
from service.runtime import providers
from service.runtime.providers import Device, choose
from service.runtime.session import Model
from service.serving.engine import Engine
from service.serving.loading import LoadOptions, assemble, load, make_model, make_task
from service.settings import Settings
from service.types import Sequence

ROOT = Path(__file__).parents[2]
REPOSITORY = ROOT / "model_repo"
Facts = dict[str, Any]


def newest(name: str) -> Path:
    return REPOSITORY / name / str(max(versions(REPOSITORY)[name]))


def cuda(limit: int = 0) -> Device:
    """The card, unasked whether it computes: most cases only count."""
    providers._share_memory(0, limit)
    return providers._cuda(0)


def row(length: int, seed: int = 0, most: int = 4000) -> Sequence:
    ids = np.random.default_rng(seed).integers(5, most, length).astype(np.int32)
    return Sequence(ids, np.zeros(length, np.int32), length)


def opened(folder: Path, device: Device) -> Model:
    manifest = read_manifest(folder)
    return make_model(read_files(folder, manifest), manifest, device, "float32" if device.kind == "cpu" else "float16")


def stepping(folder: Path, device: Device) -> Engine:
    """An engine that is not warm, with its early exits."""
    manifest = read_manifest(folder)
    task, model = make_task(read_files(folder, manifest), manifest), opened(folder, device)
    return assemble(manifest, task, model, "float16", budget=8192)


def layers() -> Facts:
    """What one pass through all layers asks of the card, once the arena is warm."""
    model = opened(newest("sentiment"), cuda())
    rows = [row(25), row(60), row(9)]
    for _ in range(2):
        model.run(rows)
    pack = model.pack(rows)
    hidden = model.embed(pack)
    with standin.traced() as trace:
        model.advance(hidden, pack, model.depth)
    return asdict(trace)


def loaded() -> Facts:
    """Megabytes on the card once a model is loaded and warm: its weights, and little that warm-up left."""
    engine = load(newest("sentiment"), LoadOptions(cuda()))
    return {"live": standin.live() / 1e6, "peak": standin.peak() / 1e6, "budget": engine.budget}


def growth() -> Facts:
    """Megabytes on the card after 150 mixed steps of some 8,192 tokens."""
    model, draw = opened(newest("sentiment"), cuda()), np.random.default_rng(0)
    before = standin.live()
    for step in range(150):
        rows = [row(int(length), step) for length in draw.integers(4, 64, 180)]
        model.run([*rows, *(row(int(length), step) for length in draw.integers(100, 512, 7))])
    return {"weights": before / 1e6, "after": standin.live() / 1e6}


def exits(regrouping: str) -> Facts:
    """Forty texts through early exits: who leaves where, what crosses the bus, and the same on the CPU."""
    folder, texts = newest("sentiment"), [row(5 + number, number) for number in range(35)]
    engine, exact = stepping(folder, cuda()), stepping(folder, Device("cpu"))
    standin.computing(True)
    engine.stepping = replace(engine.stepping, regrouping=float(regrouping))
    with standin.traced() as trace:
        found = engine.finish(texts, early_exit=True)
    wanted = exact.finish(texts, early_exit=True)
    logits = [float(np.abs(_logits(one) - _logits(other)).max()) for one, other in zip(found, wanted, strict=True)
              if one.depth == other.depth]  # fmt: skip
    depths = [one.depth for one in found]
    same = sum(one.depth == other.depth for one, other in zip(found, wanted, strict=True))
    return asdict(trace) | {"same": same, "texts": len(texts), "off": max(logits), "depths": sorted(set(depths)),
                            "uncomputed": standin.uncomputed_names()}  # fmt: skip


def _logits(one: Any) -> Any:
    assert one.logits is not None
    return one.logits


def parity(version: str, capability: str) -> Facts:
    """The largest difference of a logit from the CPU's in float32, as a share of the largest of its row."""
    standin.capability(int(capability))
    folder = ROOT / version
    most = read_manifest(folder).architecture["vocab_size"]
    rows = [row(length, length, most) for length in (25, 60, 9)]
    card, exact = opened(folder, cuda()), opened(folder, Device("cpu"))
    standin.computing(True)
    found, wanted = card.run(rows), exact.run(rows)
    off = [np.abs(one - other).max() / max(1.0, np.abs(other).max()) for one, other in zip(found, wanted, strict=True)]
    return {"off": float(max(off)), "uncomputed": standin.uncomputed_names()}


def limited(megabytes: str) -> Facts:
    """Two models in a process whose arena has a limit: loaded, with a budget that fits, and never above it."""
    limit = int(megabytes) * 2**20
    device = cuda(limit)
    engines = [load(newest(name), LoadOptions(device)) for name in ("sentiment", "qa")]
    for engine in engines:
        engine.run([row(64)] * (engine.budget // 64))
        engine.rebuild()
        engine.run([row(64)])
    load(newest("qa"), LoadOptions(device)).run([row(64)])  # as when it is published again
    return {"budgets": [engine.budget for engine in engines], "peak": standin.peak(), "limit": limit}


def small_card(megabytes: str) -> Facts:
    """The same by the size of the card."""
    standin.limit(int(megabytes) * 2**20)
    return {"budget": load(newest("sentiment"), LoadOptions(cuda())).budget}


def out_of_memory() -> Facts:
    """A step that does not fit is told from one that fails."""
    model = opened(newest("sentiment"), cuda(24 * 2**20))
    try:
        model.run([row(512)] * 200)
    except OutOfMemory as error:
        return {"error": "OutOfMemory", "said": error.message, "then": len(model.run([row(9)]))}
    return {"error": ""}


def lost() -> Facts:
    model = opened(newest("sentiment"), cuda())
    model.run([row(9)])
    standin.fail(700)
    try:
        model.run([row(9)])
    except DeviceLost as error:
        return {"error": "DeviceLost", "said": error.message}
    return {"error": ""}


def chosen(wanted: str, **card: int) -> Facts:
    """What is said of a card that is as told; ``computing`` 1: it works."""
    for name, value in card.items():
        getattr(standin, name)(bool(value) if name == "computing" else value)
    try:
        return {"device": str(choose(wanted, threads=1)), "said": ""}
    except DeviceError as error:
        return {"device": "", "said": error.message}


def service() -> Facts:
    """The whole service on the card, and on the CPU: the same answers."""
    answers = {}
    for device in ("cuda", "cpu"):
        standin.computing(device == "cuda")
        answers[device] = asyncio.run(_asked(device))
    return answers


async def _asked(device: str) -> list[Any]:
    settings = Settings(model_repo=REPOSITORY, device=device, token_budget=256, precision="float32",
                        required_models=["sentiment", "qa"])  # fmt: skip
    app = create_app(settings)
    transport = httpx.ASGITransport(app=app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://test") as client,
    ):
        await app.state.service.registry.wait()
        texts = [f"a gorgeous, witty, seductive movie, seen {number} times" for number in range(6)]
        labels = (await client.post("/classify", json={"inputs": texts})).json()["results"]
        context = "ALBERT shares the parameters of all its layers."
        asked = {"question": "What does ALBERT share?", "context": context}
        return [[one["labels"][0] for one in labels], (await client.post("/qa", json=asked)).json()["answers"][0]]


CASES = {
    one.__name__: one
    for one in (layers, loaded, growth, exits, parity, limited, small_card, out_of_memory, lost, service)
}


if __name__ == "__main__":
    name, *given = sys.argv[1:]
    if name == "chosen":
        pairs = (one.split("=") for one in given[1:])
        facts = chosen(given[0], **{key: int(value) for key, value in pairs})
    else:
        facts = CASES[name](*given)
    print("\n" + json.dumps(facts))
