"""One loaded version of a model: encode, run on the device, decode."""

import asyncio
import time
from collections.abc import Callable, Sequence as Seq
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import ParamSpec, TypeVar

import numpy as np

from service.errors import DeviceError, OutOfMemory
from service.repository.manifest import Manifest
from service.repository.store import check_files, read_manifest
from service.runtime.providers import Device
from service.runtime.session import Model
from service.serving.admission import CostModel
from service.tasks.classification import Classification
from service.tasks.question_answering import QuestionAnswering
from service.tasks.text import Tokenizer
from service.types import Floats, ModelRef, Sequence

P = ParamSpec("P")
T = TypeVar("T")
Task = Classification | QuestionAnswering
LONG_TEXT = 4_000  # code points; tokenizing more takes longer than a hop to a thread, and would hold up the loop


@dataclass(slots=True)
class Engine:
    """A model that answers, with its facts.  ``budget`` is in tokens a step; ``run`` belongs to the device's thread."""

    manifest: Manifest
    task: Task
    model: Model
    budget: int
    cost: CostModel = field(default_factory=CostModel)
    # One thread, so that a long document is tokenized beside the loop and never two copies of the vocabulary are held.
    tokenizing: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, thread_name_prefix="text"))

    @property
    def ref(self) -> ModelRef:
        return ModelRef(self.manifest.name, self.manifest.version)

    def run(self, rows: Seq[Sequence]) -> list[Floats]:
        return self.model.run(rows)

    async def text_work(self, size: int, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """``work`` on ``size`` code points: here where that is quick, beside the loop where it is not."""
        if size <= LONG_TEXT:
            return work(*args, **kwargs)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.tokenizing, lambda: work(*args, **kwargs))

    def close(self) -> None:
        self.tokenizing.shutdown(wait=False, cancel_futures=True)


def load(folder: Path, device: Device, *, budget: int = 0) -> Engine:
    """Read, check, load and warm up the version in ``folder``.  Blocks; RepositoryError says what is wrong with it.

    ``budget`` in tokens a step; 0 measures it.
    """
    manifest = read_manifest(folder)
    check_files(folder, manifest)
    engine = Engine(manifest, make_task(folder, manifest), make_model(folder, manifest, device), budget or 1)
    measured = warm_up(engine, device)
    engine.budget = budget or measured
    return engine


def make_task(folder: Path, manifest: Manifest) -> Task:
    facts = manifest.tokenizer
    tokenizer = Tokenizer.from_file(folder / facts.file, cls_token=facts.cls_token, sep_token=facts.sep_token)
    if manifest.task == "text-classification":
        return Classification(
            tokenizer, manifest.labels, str(manifest.problem_type), manifest.max_length, manifest.window,
            manifest.temperature, manifest.evidence,
        )  # fmt: skip
    return QuestionAnswering(
        tokenizer, manifest.max_length, manifest.window, manifest.overlap, manifest.no_answer_threshold,
        manifest.temperature,
    )  # fmt: skip


def make_model(folder: Path, manifest: Manifest, device: Device, *, exact: bool = False) -> Model:
    """``exact``: in float32 where the device computes in eight bits, to compare others with."""
    graphs = manifest.graphs.get(device.kind)
    if graphs is None:
        raise DeviceError(f"{folder} has no graphs for {device.kind}; convert the checkpoint again")
    files = {part: folder / getattr(graphs, part) for part in ("embed", "layers", "head")}
    if exact and graphs.float32_layers:
        files["layers"] = folder / graphs.float32_layers
    return Model(files, device, layers=manifest.layers, pooled=manifest.task == "text-classification")


def warm_up(engine: Engine, device: Device, clock: Callable[[], float] = time.perf_counter) -> int:
    """Time steps of growing size, teach the cost model, and return the smallest budget that is about as fast as any.

    Each size runs once unmeasured: the first run of a shape pays for memory and for choosing kernels.
    """
    largest = 512 if device.kind == "cpu" else 32_768
    rates: dict[int, float] = {}
    tokens = 16
    while tokens <= largest and not _flat(rates):
        rows = _rows(tokens, engine.manifest.max_length)
        ran = sum(map(len, rows))  # rows of a short model do not always add up to the size
        try:
            rates[ran] = ran / min(_time(engine, rows, ran, clock))
        except OutOfMemory:
            if not rates:
                raise
            break  # what fits is known now
        tokens *= 2
    return choose_budget(rates)


def _time(engine: Engine, rows: Seq[Sequence], tokens: int, clock: Callable[[], float]) -> list[float]:
    """Seconds of two runs, after one that is not measured; the cost model learns from both."""
    engine.run(rows)
    seconds = []
    for _ in range(2):
        began = clock()
        engine.run(rows)
        seconds.append(clock() - began)
        engine.cost.observe(tokens, seconds[-1])
    return seconds


def choose_budget(rates: dict[int, float], share: float = 0.95) -> int:
    """The smallest size whose rate (tokens per second) reaches ``share`` of the best."""
    best = max(rates.values())
    return min(size for size, rate in rates.items() if rate >= share * best)


def _flat(rates: dict[int, float]) -> bool:
    """Two doublings in a row gained under two per cent: larger steps will not either."""
    values = list(rates.values())
    return len(values) >= 3 and max(values[-2:]) < 1.02 * max(values[:-2])


def _rows(tokens: int, max_length: int) -> list[Sequence]:
    """``tokens`` in rows of at most 64, as short texts are; any id will do."""
    length = min(64, tokens, max_length)
    ids = np.ones(length, dtype=np.int32)
    return [Sequence(ids, np.zeros_like(ids), length)] * (tokens // length)
