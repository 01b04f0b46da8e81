"""Models side by side on one file: size, memory, speed on this device, score, calibration, depth that is saved.

Each is measured in a process of its own, one after the other, so that none has another's memory or warm caches.
"""

import time
from collections.abc import Iterator, Mapping, Sequence as Seq
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..metrics import resident_memory
from ..repository.store import read_manifest
from ..runtime.packing import like_lengths
from ..runtime.providers import choose
from ..serving.engine import Engine
from ..serving.loading import LoadOptions, load
from ..training import splits
from ..training.evaluate import Request, evaluate
from ..training.evaluate_heads import EVALUATORS
from ..training.predictors import Local, classification, encode_questions, encode_texts, reader
from ..types import Sequence

TIMED = 512  # rows that are timed, at most
SECONDS = 3.0  # and for so long at least
LEAST_BUDGET = 128  # tokens in a step


@dataclass(frozen=True, slots=True)
class Compared:
    """``score`` in points with its interval of 95 %; bytes; ``depth`` is the share of the layers that ran.

    ``rows_per_second`` in steps of many rows, ``milliseconds`` of one row alone (the median).
    """

    model: str
    precision: str
    layers: int
    size: int
    memory: int
    rows_per_second: float
    milliseconds: float
    depth: float
    score: float
    interval: tuple[float, float]
    calibration_error: float


def compare(folders: Seq[Path], source: str, device: str = "auto") -> Iterator[Compared]:
    """One after the other.  DataError where they are not of one task, or ``source`` does not fit it."""
    tasks = {read_manifest(folder).task for folder in folders}
    if len(tasks) > 1:
        raise DataError(f"these models do different things: {', '.join(sorted(tasks))}; compare those of one task")
    if tasks & EVALUATORS.keys():
        raise DataError(f"compare is for classifiers and readers; measure a {tasks.pop()} with albert-serve evaluate")
    rows = [] if splits.is_questions(source) else splits.labelled(source)
    for folder in folders if rows else ():
        if unknown := sorted({row.label for row in rows} - set(read_manifest(folder).labels)):
            raise DataError(f"{source}: label {unknown[0]!r} is none of {folder.parent.name}/{folder.name}'s")
    context = get_context("spawn")
    for folder in folders:
        with ProcessPoolExecutor(1, context) as alone:
            yield alone.submit(measure, folder, source, device).result()


def measure(folder: Path, source: str, device: str) -> Compared:
    """Everything of one model, in this process."""
    choose(device)  # what the runtime and the file take is not the model's
    _examples(source)
    before = resident_memory()
    engine = load(folder, LoadOptions(choose(device)))
    rows = _rows(engine, source)
    per_second = _rows_per_second(engine, rows)
    memory = max(0, resident_memory() - before)
    report = evaluate(Local(engine), Request(source))
    score = report["f1"] if "questions" in report else 100 * report["accuracy"]
    low, high = report["interval"] if "questions" in report else (100 * value for value in report["interval"])
    return Compared(
        str(engine.ref), engine.precision, engine.stepping.layers,
        sum(path.stat().st_size for path in folder.iterdir() if path.is_file()), memory,
        per_second, 1000 * _alone(engine, rows), _depth(engine, rows), score, (low, high), report["calibration_error"],
    )  # fmt: skip


@cache
def _examples(source: str) -> list[Any]:
    return splits.questions(source) if splits.is_questions(source) else list(splits.labelled(source))


def _rows(engine: Engine, source: str) -> list[Sequence]:
    encoded: Seq[Any]
    if splits.is_questions(source):
        encoded = encode_questions(reader(engine), _examples(source)[:TIMED])
    else:
        encoded = encode_texts(classification(engine), _examples(source)[:TIMED])
    return [row for item in encoded for row in item.sequences][:TIMED]


def _rows_per_second(engine: Engine, rows: Seq[Sequence]) -> float:
    steps = [[rows[index] for index in step] for step in like_lengths(rows, max(engine.budget, LEAST_BUDGET))]
    engine.run(steps[-1], early_exit=True)
    began, done = time.perf_counter(), 0
    while time.perf_counter() - began < SECONDS:
        for step in steps:
            engine.run(step, early_exit=True)
            done += len(step)
    return done / (time.perf_counter() - began)


def _alone(engine: Engine, rows: Seq[Sequence]) -> float:
    """Seconds of the median row by itself."""
    taken = []
    for row in rows[:64]:
        began = time.perf_counter()
        engine.run([row], early_exit=True)
        taken.append(time.perf_counter() - began)
    return sorted(taken)[len(taken) // 2]


def _depth(engine: Engine, rows: Seq[Sequence]) -> float:
    layers = tokens = 0
    for step in like_lengths(rows, max(engine.budget, LEAST_BUDGET)):
        for one in engine.finish([rows[index] for index in step], early_exit=True):
            layers, tokens = layers + one.depth * len(one), tokens + len(one)
    return layers / (tokens * engine.stepping.layers)


def table(found: Seq[Compared]) -> str:
    """For people, in Markdown; the best of each column that has a best is bold."""
    columns = ("model", "MB", "memory, MB", "rows/s", "ms alone", "layers run", "score", "95 %", "calibration error")
    best = {
        "MB": min(one.size for one in found), "rows/s": max(one.rows_per_second for one in found),
        "ms alone": min(one.milliseconds for one in found), "score": max(one.score for one in found),
        "calibration error": min(one.calibration_error for one in found),
    }  # fmt: skip
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for one in found:
        values: Mapping[str, tuple[float | None, str]] = {
            "model": (None, f"{one.model}, {one.precision}"),
            "MB": (one.size, f"{one.size / 1e6:.1f}"),
            "memory, MB": (None, f"{one.memory / 1e6:.0f}"),
            "rows/s": (one.rows_per_second, f"{one.rows_per_second:.1f}"),
            "ms alone": (one.milliseconds, f"{one.milliseconds:.1f}"),
            "layers run": (None, f"{one.depth * one.layers:.1f} of {one.layers}"),
            "score": (one.score, f"{one.score:.2f}"),
            "95 %": (None, f"{one.interval[0]:.1f} to {one.interval[1]:.1f}"),
            "calibration error": (one.calibration_error, f"{one.calibration_error:.3f}"),
        }
        shown = [f"**{text}**" if value is not None and value == best[name] else text
                 for name, (value, text) in values.items()]  # fmt: skip
        lines.append(f"| {' | '.join(shown)} |")
    return "\n".join(lines)


def as_json(found: Seq[Compared]) -> list[dict[str, Any]]:
    return [asdict(one) for one in found]
