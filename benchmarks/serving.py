"""The service under load: against peers, against itself without what makes it fast, against its own runtime.

    python benchmarks/serving.py [peers] [preemption] [early-exit] [overhead] [start] --out FOLDER [--peers VENV]

An albert-base of random weights in float32, the shipped models where answers matter, texts from DATA.  ``--peers`` is
the Python of an environment with ``benchmarks/peers/requirements.txt``.  Every part runs its rivals in turn on the same
machine, so compare within a part only.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from models import LONG, REPOSITORY, WINDOW, long_texts, make, newest, short_texts
from packing import machine
from servers import HERE, albert_serve, closed, free_port, opened, running

from service.bench.traffic import Kind, endless
from service.repository.store import versions
from service.runtime.providers import choose
from service.serving.engine import load
from service.training.predictors import steps

CLIENTS = 16
PEERS = {
    "Flask + PyTorch": ("flask_app.py", (1,)),
    "FastAPI + pipeline": ("pipeline_app.py", (1,)),
    "LitServe": ("litserve_app.py", (16, 1)),
    "mosec": ("mosec_app.py", (16, 1)),
    "BentoML": ("bentoml_app.py", (16, 1)),
    "Ray Serve": ("ray_app.py", (16, 1)),
}


class Bench:
    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self.options, self.folder = options, folder
        self.checkpoint = make(folder)
        self.log = options.out / "servers.log"

    def ours(self, kinds: list[Kind], repository: Path | None = None, **settings: Any) -> dict[str, Any]:
        with albert_serve(repository or self.folder / "repository", self.log, **settings) as url:
            return closed(url, kinds, CLIENTS, self.options.seconds, self.options.warmup)

    def peers(self) -> list[dict[str, Any]]:
        """Requests a second of 16 clients, on short sentences and on a mix with 15 % texts of about 200 tokens."""
        data = self.options.data
        traffics = {"short": [short_texts(data)], "mixed": [short_texts(data, 0.85), long_texts(data, LONG, 0.15)]}
        rows = []
        for traffic, kinds in traffics.items():
            rows.append({"traffic": traffic, "server": "albert-serve"} | self.ours(kinds))
            show(rows[-1])
            for name, (script, batches) in PEERS.items():
                for batch in batches:
                    try:
                        found = self.peer(script, batch, kinds)
                    except RuntimeError as error:
                        found = {"failed": str(error)}
                    setting = f", batches of {batch}" if len(batches) > 1 else ""
                    rows.append({"traffic": traffic, "server": name + setting} | found)
                    show(rows[-1])
        return rows

    def peer(self, script: str, batch: int, kinds: list[Kind]) -> dict[str, Any]:
        port, python = free_port(), str(self.options.peers)
        command = [python, script, str(port)]
        if script == "mosec_app.py":
            command = [python, script, "--port", str(port), "--timeout", "120000", "--log-level", "error"]
        if script == "bentoml_app.py":
            command = [python, "-m", "bentoml", "serve", "bentoml_app:Classifier", "--port", str(port)]
        environment = {"MODEL": str(self.checkpoint), "BATCH": str(batch), "THREADS": str(len(os.sched_getaffinity(0)))}
        route = {"mosec_app.py": "/inference"}.get(script, "/classify")
        moved = [Kind(kind.name, route, kind.bodies, kind.share) for kind in kinds]
        if script == "bentoml_app.py" and batch > 1:  # it batches lists only
            lists = [
                [json.dumps({"inputs": [json.loads(body)["inputs"]]}).encode() for body in k.bodies] for k in moved
            ]
            moved = [Kind(k.name, k.route, bodies, k.share) for k, bodies in zip(moved, lists, strict=True)]
        with running(command, port, self.log, route, moved[0].bodies[0], **environment) as url:
            return closed(url, moved, CLIENTS, self.options.seconds, self.options.warmup)

    def preemption(self) -> list[dict[str, Any]]:
        """80 % short texts, 20 % windows of 384 tokens, by chance at 80 % of what the service can do."""
        kinds = [short_texts(self.options.data, 0.8), long_texts(self.options.data, WINDOW, 0.2)]
        most = self.ours(kinds)["answers_per_second"]
        policies = {
            "steps of few layers, least work first": {},
            "all layers at once, least work first": {"layers_per_step": 12},
            "first come first served": {"layers_per_step": 12, "ageing": 1e6},
        }
        rows = []
        for name, settings in policies.items():
            with albert_serve(self.folder / "repository", self.log, deadline_ms=600_000, **settings) as url:
                found = opened(url, kinds, 0.8 * most, 4 * self.options.seconds, self.options.warmup)
            rows.append({"policy": name, "rate": round(0.8 * most, 2)} | found)
            show(rows[-1])
        return rows

    def early_exit(self) -> list[dict[str, Any]]:
        """The shipped ``sentiment`` on sentences: leaving early, and all layers."""
        rows = []
        for name, settings in {"early exit": {}, "full depth": {"early_exit": "false"}}.items():
            rows.append({"setting": name} | self.ours([short_texts(self.options.data)], REPOSITORY, **settings))
            show(rows[-1])
        return rows

    def overhead(self) -> list[dict[str, Any]]:
        """At saturation against the runtime alone; idle against tokenizing and one call of the plain export."""
        kinds = [short_texts(self.options.data, 0.85), long_texts(self.options.data, LONG, 0.15)]
        texts = [json.loads(ask.body)["inputs"] for ask in islice(endless(kinds, 1), 150)]
        engine = load(self.folder / "repository" / "sentiment" / "1", choose("cpu"))
        rows = [engine.task.encode(text).sequences[0] for text in texts]  # type: ignore[call-arg]
        began = time.perf_counter()
        for step in steps(rows, engine.budget):
            engine.run([rows[index] for index in step])
        offline = len(rows) / (time.perf_counter() - began)
        saturated = self.ours(kinds)["answers_per_second"]
        found = {"offline": round(offline, 2), "service": saturated, "ratio": round(saturated / offline, 3)}
        idle = self.idle()
        show(found)
        show(idle)
        return [found, idle]

    def idle(self) -> dict[str, Any]:
        kinds = [short_texts(self.options.data)]
        texts = [json.loads(ask.body)["inputs"] for ask in islice(endless(kinds, 1), 80)]
        environment = os.environ | {"MODEL": str(self.checkpoint), "THREADS": str(len(os.sched_getaffinity(0)))}
        command = [sys.executable, str(HERE / "peers" / "alone.py")]
        done = subprocess.run(
            command, input=json.dumps(texts), env=environment, capture_output=True, text=True, check=True
        )
        seconds = json.loads(done.stdout)[10:]
        with albert_serve(self.folder / "repository", self.log) as url:
            served = closed(url, kinds, 1, self.options.seconds, self.options.warmup)["p50_ms"]
        alone = round(1000 * float(np.median(seconds)), 1)
        return {"bare_call_p50_ms": alone, "service_p50_ms": served, "ratio": round(served / alone, 3)}

    def start(self) -> list[dict[str, Any]]:
        """From nothing to ready with the shipped models, and the memory of the process then and after some load."""
        began = time.perf_counter()
        with albert_serve(REPOSITORY, self.log) as url:
            ready = time.perf_counter() - began
            closed(url, [short_texts(self.options.data)], CLIENTS, 6, 1)
            memory = resident(url.rpartition(":")[2])
        names = list(versions(REPOSITORY))
        weights = sum((newest(name) / "weights.bin").stat().st_size for name in names)
        found = {
            "models": len(names),
            "ready_s": round(ready, 2),
            "resident_mb": memory,
            "weights_mb": weights // 10**6,
        }
        show(found)
        return [found]


def resident(port: str) -> int:
    """MB of the process that was started with this port."""
    for status in Path("/proc").glob("[0-9]*/cmdline"):
        if f"--port\0{port}".encode() in status.read_bytes():
            lines = (status.parent / "status").read_text()
            return int(re.findall(r"VmRSS:\s+(\d+)", lines)[0]) // 1000
    return 0


def show(row: dict[str, Any]) -> None:
    print(json.dumps({name: value for name, value in row.items() if name != "kinds"}), flush=True)
    for name, kind in row.get("kinds", {}).items():
        if len(row["kinds"]) > 1:
            print("   ", name, json.dumps(kind), flush=True)


def main() -> None:
    parts = ("overhead", "preemption", "early-exit", "start", "peers")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*parts, []], default=parts)
    parser.add_argument("--out", type=Path, default=Path("runs/bench"))
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--peers", type=Path, help="Python that has the peers")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--warmup", type=float, default=4)
    options = parser.parse_args()
    options.out = options.out.resolve()
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        bench = Bench(options, Path(name))
        for part in options.parts:
            if part == "peers" and not options.peers:
                print("peers: left out, no --peers")
                continue
            print(f"\n== {part}", flush=True)
            rows = getattr(bench, part.replace("-", "_"))()
            report = {"machine": machine(), "date": time.strftime("%Y-%m-%d"), "rows": rows}
            (options.out / f"{part}.json").write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
