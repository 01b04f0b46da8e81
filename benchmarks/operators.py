"""Where the time of a model goes: ONNX Runtime's own profiler, by operator, on one pack of texts.

python benchmarks/operators.py model_repo/sentiment/3 --lengths 16
"""

import argparse
import json
import tempfile
from collections import defaultdict
from pathlib import Path

import numpy as np
import onnxruntime as ort

from service.repository.manifest import Manifest
from service.repository.store import read_manifest
from service.runtime.packing import Pack
from service.runtime.providers import choose
from service.types import Sequence


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("version", type=Path)
    parser.add_argument("--lengths", type=int, nargs="+", default=[16], help="tokens of each text")
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    choose("cpu")  # the pool of threads that serving uses
    manifest = read_manifest(options.version)
    rows = [Sequence(np.full(n, 7, np.int32), np.zeros(n, np.int32), n) for n in options.lengths]
    pack = Pack.of(rows)
    print(f"{sum(options.lengths)} tokens in {len(rows)} rows, {manifest.layers} layers, ms a pass:\n")
    hidden = None
    for part in ("embed", "layers", "head"):
        feeds = inputs(part, pack, manifest, hidden)
        hidden, spent, calls = profile(options.version / getattr(manifest.graphs["cpu"], part), feeds, options.rounds)
        report(part, spent, calls)


def inputs(part: str, pack: Pack, manifest: Manifest, hidden: np.ndarray | None) -> dict[str, np.ndarray]:
    if part == "embed":
        return {"ids": pack.ids, "positions": pack.positions, "types": pack.types}
    assert hidden is not None
    if part == "head":
        return {"hidden": hidden} | ({"starts": pack.starts} if manifest.task == "text-classification" else {})
    span = {"first": np.array(0, np.int64), "count": np.array(manifest.layers, np.int64)}
    return {"hidden": hidden, "slots": pack.slots, "tokens_at": pack.tokens_at, "lengths": pack.lengths} | span


def profile(
    path: Path, feeds: dict[str, np.ndarray], rounds: int
) -> tuple[np.ndarray, dict[str, float], dict[str, int]]:
    """The output, and ms and calls by operator of one pass: the mean of ``rounds`` after one that does not count."""
    options = ort.SessionOptions()
    options.use_per_session_threads = False
    options.enable_profiling = True
    with tempfile.TemporaryDirectory() as folder:
        options.profile_file_prefix = f"{folder}/profile"
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        for _ in range(rounds + 1):
            output = session.run(None, feeds)[0]
        events = json.loads(Path(session.end_profiling()).read_text())
    passes = sorted(event["ts"] for event in events if event["name"] == "model_run")
    spent: dict[str, float] = defaultdict(float)
    calls: dict[str, int] = defaultdict(int)
    for event in events:
        measured = event["cat"] == "Node" and event["name"].endswith("_kernel_time") and event["ts"] >= passes[1]
        if measured:
            kind = event["args"]["op_name"]
            spent[kind] += event["dur"] / 1000 / rounds
            calls[kind] += 1
    whole = [event["dur"] for event in events if event["name"] == "model_run" and event["ts"] >= passes[1]]
    spent["(the whole call)"] = sum(whole) / 1000 / rounds
    return output, spent, {kind: count // rounds for kind, count in calls.items()}


def report(part: str, spent: dict[str, float], calls: dict[str, int]) -> None:
    print(f"| {part} | calls | ms |\n|---|---|---|")
    for kind, milliseconds in sorted(spent.items(), key=lambda item: -item[1]):
        print(f"| {kind} | {calls.get(kind, '')} | {milliseconds:.3f} |")
    print()


if __name__ == "__main__":
    main()
