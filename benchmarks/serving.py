"""The service under load: against peers, against itself without what makes it fast, against its own runtime.

    python benchmarks/serving.py [peers] [saturation] [preemption] [early-exit] [workers] [overhead] [start] --out DIR

An albert-base of random weights in float32, the shipped models where answers matter, texts from DATA.  ``--peers`` is
the Python of an environment with ``benchmarks/peers/requirements.txt``.  Every part runs its rivals in turn on the same
machine, so compare within a part only; of each the fastest round counts.
"""

import argparse
import contextlib
import functools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from models import LONG, REPOSITORY, WINDOW, altered, long_texts, make, make_int8, newest, short_texts
from packing import machine
from pictures import draw_points
from servers import HERE, albert_serve, closed, counted, free_port, opened, report, resident, running, show

from service.bench.traffic import Kind, endless, read_kind
from service.repository.store import read_manifest, versions
from service.runtime.packing import like_lengths
from service.runtime.processor import current
from service.runtime.providers import choose
from service.serving.loading import LoadOptions, load
from service.training.evaluate import Request, evaluate
from service.training.predictors import Remote

CLIENTS = 16
FIRST_COME = {"layers_per_step": 12, "ageing": 1e6}
PEERS = {
    "Flask + PyTorch": ("flask_app.py", (1,)),
    "FastAPI + pipeline": ("pipeline_app.py", (1,)),
    "LitServe": ("litserve_app.py", (16, 1)),
    "mosec": ("mosec_app.py", (16, 1)),
    "BentoML": ("bentoml_app.py", (16, 1)),
    "Ray Serve": ("ray_app.py", (16, 1)),
}
# The fastest of them over other runtimes, and in eight bits: what whoever wants speed would try.
RUNTIMES = ("onnxruntime int8", "openvino", "openvino bfloat16", "openvino int8")


class Bench:
    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self.options, self.folder = options, folder
        self.checkpoint = make(folder)
        self.log = options.out / "servers.log"

    def ours(self, kinds: list[Kind], repository: Path | None = None, **settings: Any) -> dict[str, Any]:
        with albert_serve(repository or self.folder / "repository", self.log, **settings) as url:
            return self.load(url, kinds)

    def load(self, url: str, kinds: list[Kind], clients: int = CLIENTS) -> dict[str, Any]:
        return closed(url, kinds, clients, self.options.seconds, self.options.warmup)

    def peers(self) -> list[dict[str, Any]]:
        """Requests a second of 16 clients, on short sentences and on a mix with 15 % texts of about 200 tokens."""
        data = self.options.data
        traffics = {"short": [short_texts(data)], "mixed": mixed(data)}
        rows = []
        int8 = make_int8(self.checkpoint, self.folder, data)
        self.quantize(data)
        leaving = self.leaving(int8 / "sentiment" / "1")
        ours = {"albert-serve": None, "albert-serve, int8": int8, "albert-serve, int8, leaving early": leaving}
        for traffic, kinds in traffics.items():
            servers = {name: functools.partial(self.ours, kinds, repository) for name, repository in ours.items()}
            for name, (script, batches) in PEERS.items():
                for batch in batches:
                    setting = f", batches of {batch}" if len(batches) > 1 else ""
                    servers[name + setting] = functools.partial(self.peer, script, batch, kinds)
            for runtime in RUNTIMES if current().bfloat16 else [one for one in RUNTIMES if "bfloat16" not in one]:
                for batch in (16, 1):
                    name = f"mosec, {runtime}, batches of {batch}"
                    servers[name] = functools.partial(self.peer, "mosec_app.py", batch, kinds, RUNTIME=runtime)
            found = fastest_of(servers, self.options.rounds)
            rows += [{"traffic": traffic, "server": name} | one for name, one in found.items()]
        return rows

    def quantize(self, data: Path) -> None:
        """The peers' own model in eight bits, on sentences that nobody is asked about."""
        bodies = read_kind("/classify", str(data / "sst2" / "train.tsv"), {}).bodies
        texts = [json.loads(body)["inputs"] for body in bodies[:300]]  # as many as NNCF takes
        command = [str(self.options.peers), str(HERE / "peers" / "quantized.py"), str(self.checkpoint)]
        subprocess.run(command, input=json.dumps(texts), text=True, check=True, stdout=subprocess.DEVNULL)

    def leaving(self, version: Path) -> Path:
        """Random weights are never sure, so all leave at one depth: the share of it that ``sentiment`` needs."""
        shipped = read_manifest(newest("sentiment"))
        assert shipped.exits
        depth = round(12 * shipped.exits.mean_depth / shipped.layers)
        exits = shipped.exits.model_copy(update={"threshold": 0.0, "first": depth, "mean_depth": depth, "window": 1})
        return altered(version, self.folder / "leaving", exits=exits.model_dump())

    def peer(self, script: str, batch: int, kinds: list[Kind], **given: str) -> dict[str, Any]:
        port, python = free_port(), str(self.options.peers)
        command = [python, script, str(port)]
        if script == "mosec_app.py":
            command = [python, script, "--port", str(port), "--timeout", "120000", "--log-level", "error"]
        if script == "bentoml_app.py":
            command = [python, "-m", "bentoml", "serve", "bentoml_app:Classifier", "--port", str(port)]
        environment = {"MODEL": str(self.checkpoint), "BATCH": str(batch), "THREADS": str(current().cores)} | given
        route = {"mosec_app.py": "/inference"}.get(script, "/classify")
        moved = [Kind(kind.name, route, kind.bodies, kind.share) for kind in kinds]
        if script == "bentoml_app.py" and batch > 1:  # it batches lists only
            lists = [
                [json.dumps({"inputs": [json.loads(body)["inputs"]]}).encode() for body in k.bodies] for k in moved
            ]
            moved = [Kind(k.name, k.route, bodies, k.share) for k, bodies in zip(moved, lists, strict=True)]
        try:
            with running(command, port, self.log, route, moved[0].bodies[0], **environment) as url:
                return self.load(url, moved)
        except RuntimeError as error:
            return {"failed": str(error)}

    def saturation(self) -> list[dict[str, Any]]:
        """Who waits where more is asked than can be answered: the mix, from as many clients."""
        kinds, policies = mixed(self.options.data), {"least work first": {}, "first come first served": FIRST_COME}
        asked = {name: functools.partial(self.ours, kinds, **policy) for name, policy in policies.items()}
        found = fastest_of(asked, self.options.rounds)
        return [{"policy": name} | one for name, one in found.items()]

    def preemption(self) -> list[dict[str, Any]]:
        """80 % short texts, 20 % windows of 384 tokens, by chance at 80 % of what the service can do."""
        kinds = [short_texts(self.options.data, 0.8), long_texts(self.options.data, WINDOW, 0.2)]
        most = self.ours(kinds)["answers_per_second"]
        policies = {
            "steps of few layers, least work first": {},
            "all layers at once, least work first": {"layers_per_step": 12},
            "first come first served": FIRST_COME,
        }

        def ask(settings: dict[str, Any]) -> dict[str, Any]:
            with albert_serve(self.folder / "repository", self.log, deadline_ms=600_000, **settings) as url:
                return opened(url, kinds, 0.8 * most, 4 * self.options.seconds, self.options.warmup)

        asked = {name: functools.partial(ask, settings) for name, settings in policies.items()}
        found = fastest_of(asked, self.options.rounds, lambda one: -float(one["kinds"]["short"]["p99_ms"]))
        return [{"policy": name, "rate": round(0.8 * most, 2)} | one for name, one in found.items()]

    def early_exit(self) -> list[dict[str, Any]]:
        """The shipped ``sentiment`` on sentences: quality against work, as sure as one must be to leave."""
        data, version = self.options.data, newest("sentiment")
        exits = read_manifest(version).exits
        assert exits
        sure = sorted({0.6, 0.7, 0.8, 0.9, 0.95, exits.threshold})
        repositories = {
            f"{t:.2f}": altered(version, self.folder / f"sure{t}", exits=exits.model_dump() | {"threshold": t})
            for t in sure
        }
        repositories["full depth"] = REPOSITORY
        with contextlib.ExitStack() as stack:
            urls = {
                name: stack.enter_context(albert_serve(at, self.log, early_exit=at != REPOSITORY))
                for name, at in repositories.items()
            }
            shipped, lists = f"{exits.threshold:.2f}", ", in lists"
            asked = {name: functools.partial(self.load, url, [short_texts(data)]) for name, url in urls.items()}
            asked |= {name + lists: functools.partial(self.lists, urls[name]) for name in (shipped, "full depth")}
            found = fastest_of(asked, self.options.rounds)
            known = {name: self.quality(url) for name, url in urls.items()}
        rows = []
        for name, one in found.items():
            title = {"as sure as": name.replace(shipped, f"{shipped} (shipped)")}
            rows.append(title | known[name.removesuffix(lists)] | one)
            show(rows[-1])
        points = [
            (row["answers_per_second"], row["accuracy"], row["as sure as"])
            for row in rows
            if not row["as sure as"].endswith(lists)
        ]
        draw_points(
            {"SST-2 dev": points},
            "quality against work, sentiment", "answers a second", "accuracy", self.options.out / "early-exit.png",
        )  # fmt: skip
        return rows

    def quality(self, url: str) -> dict[str, Any]:
        """The accuracy of the answers there, and the share of the layers that the load so far left out."""
        layers = {fate: counted(url, f'albert_layers_total{{fate="{fate}"') for fate in ("run", "saved")}
        with Remote.connected(url, "sentiment") as service:
            accuracy = evaluate(service, Request(str(self.options.data / "sst2" / "dev.tsv")))["accuracy"]
        return {"accuracy": accuracy, "layers_saved": round(layers["saved"] / sum(layers.values()), 3)}

    def lists(self, url: str) -> dict[str, Any]:
        """As many sentences a request as there are clients otherwise, from four clients: hardly any HTTP is left."""
        texts = (json.loads(ask.body)["inputs"] for ask in endless([short_texts(self.options.data)], 2))
        bodies = [json.dumps({"inputs": [*islice(texts, CLIENTS)]}).encode() for _ in range(400)]
        kinds = [Kind("lists", "/classify", bodies)]
        found = self.load(url, kinds, 4)
        return found | {"answers_per_second": CLIENTS * found["answers_per_second"]}

    def workers(self) -> list[dict[str, Any]]:
        """Server processes, with models of their own or shared: ``sentiment`` on sentences, and whether their metrics
        add up; one client alone pays for the hop to the process that has the models.
        """
        answered = 'albert_requests_total{route="/classify",status="200"'
        kinds = [short_texts(self.options.data)]

        def ask(url: str) -> dict[str, Any]:
            before = counted(url, answered)
            found = closed(url, kinds, CLIENTS, self.options.seconds, 0)
            told = {"requests_sent": found["requests"], "in_metrics": int(counted(url, answered) - before)} | found
            return told | {"one_client_p50_ms": self.load(url, kinds, 1)["p50_ms"]}

        with contextlib.ExitStack() as stack:
            urls = {
                (n, share): stack.enter_context(albert_serve(REPOSITORY, self.log, workers=n, share_models=share))
                for n, share in ((1, "no"), (2, "no"), (2, "yes"), (4, "no"), (4, "yes"))
            }
            asked = {" ".join(map(str, which)): functools.partial(ask, url) for which, url in urls.items()}
            found = fastest_of(asked, self.options.rounds)
            return [
                dict(zip(("workers", "share_models"), which.split(), strict=True)) | found[which] for which in asked
            ]

    def overhead(self) -> list[dict[str, Any]]:
        """At saturation against the runtime alone; idle against tokenizing and one call of the plain export."""
        kinds = mixed(self.options.data)
        texts = [json.loads(ask.body)["inputs"] for ask in islice(endless(kinds, 1), 150)]
        engine = load(self.folder / "repository" / "sentiment" / "1", LoadOptions(choose("cpu")))
        rows = [engine.task.encode(text).sequences[0] for text in texts]  # type: ignore[call-arg]

        def offline() -> dict[str, Any]:
            began = time.perf_counter()
            for step in like_lengths(rows, engine.budget):
                engine.run([rows[index] for index in step])
            return {"tokens_per_second": round(sum(map(len, rows)) / (time.perf_counter() - began))}

        def service(url: str) -> dict[str, Any]:
            # In tokens: the texts of a short load are a few long ones more or less.
            layers, began = counted(url, "albert_layers_total"), time.perf_counter()
            self.load(url, kinds)
            tokens = (counted(url, "albert_layers_total") - layers) / engine.manifest.layers
            return {"tokens_per_second": round(tokens / (time.perf_counter() - began))}

        with albert_serve(self.folder / "repository", self.log) as url:
            rivals = {"offline": offline, "service": functools.partial(service, url)}
            found = fastest_of(rivals, self.options.rounds, lambda one: float(one["tokens_per_second"]))
            rates = {f"{name}_tokens_per_s": one["tokens_per_second"] for name, one in found.items()}
            ratio = rates["service_tokens_per_s"] / rates["offline_tokens_per_s"]
            idle = self.idle(url)
        saturated = rates | {"ratio": round(ratio, 3)}
        for one in (saturated, idle):
            show(one)
        return [saturated, idle]

    def idle(self, url: str) -> dict[str, Any]:
        """One client, in turn with a process of its own that tokenizes and calls the plain export."""
        bodies = [ask.body for ask in islice(endless([short_texts(self.options.data)], 1), 80)]
        texts = [json.loads(body)["inputs"] for body in bodies]
        kinds = [Kind("short", "/classify", bodies)]
        environment = os.environ | {"MODEL": str(self.checkpoint), "THREADS": str(current().cores)}
        command = [sys.executable, str(HERE / "peers" / "alone.py")]
        pairs = []
        for _ in range(self.options.rounds):
            done = subprocess.run(
                command, input=json.dumps(texts), env=environment, capture_output=True, text=True, check=True
            )
            bare = 1000 * float(np.median(json.loads(done.stdout)[10:]))
            pairs.append((self.load(url, kinds, 1)["p50_ms"] / bare, bare))
        ratio, bare = sorted(pairs)[len(pairs) // 2]  # no round of one is like a later round of the other
        return {"bare_call_p50_ms": round(bare, 1), "service_p50_ms": round(ratio * bare, 1), "ratio": round(ratio, 3)}

    def start(self) -> list[dict[str, Any]]:
        """From nothing to ready with the shipped models, and the memory of the process then and after some load."""
        began = time.perf_counter()
        with albert_serve(REPOSITORY, self.log) as url:
            ready = time.perf_counter() - began
            closed(url, [short_texts(self.options.data)], CLIENTS, 6, 1)
            memory = resident(url)
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


def mixed(data: Path) -> list[Kind]:
    return [short_texts(data, 0.85), long_texts(data, LONG, 0.15)]


def fastest_of(
    rivals: dict[str, Callable[[], dict[str, Any]]], rounds: int,
    speed: Callable[[dict[str, Any]], float] = lambda found: float(found.get("answers_per_second", 0.0)),
) -> dict[str, dict[str, Any]]:  # fmt: skip
    """Of each its fastest round, all of them in turn: on a shared machine the slower ones measure the neighbours."""
    best: dict[str, dict[str, Any]] = {}
    for _ in range(rounds):
        for name, ask in rivals.items():
            found = ask()
            show({"of": name} | found)
            best[name] = max(best.get(name, found), found, key=speed)
    return best


def main() -> None:
    parts = ("overhead", "saturation", "preemption", "early-exit", "workers", "start", "peers")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*parts, []], default=parts)
    parser.add_argument("--out", type=Path, default=Path("runs/bench"))
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--peers", type=Path, help="Python that has the peers")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=15, help="of each round")
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
            report(options.out, part, machine(), rows)


if __name__ == "__main__":
    main()
