"""One loaded version of a model: encode, run on the device, decode."""

import asyncio
import logging
import math
from collections.abc import Callable, Sequence as Seq
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ParamSpec, TypeVar

from service.errors import DeviceError
from service.repository.manifest import Manifest
from service.repository.store import check_files, read_manifest
from service.runtime.providers import Device, saturates
from service.runtime.session import Model
from service.serving.admission import CostModel
from service.serving.stepping import Progress, Stepping, Stop, advance
from service.serving.warmup import measure_budget, measure_layers
from service.tasks.classification import Classification
from service.tasks.exits import ExitPolicy
from service.tasks.question_answering import QuestionAnswering
from service.tasks.text import Tokenizer
from service.types import Floats, ModelRef, Sequence

log = logging.getLogger(__name__)
P = ParamSpec("P")
T = TypeVar("T")
Task = Classification | QuestionAnswering
PADDED = 0.03  # more work than this in padded attention, and a row waits for a step of its like
LONG_TEXT = 4_000  # code points; tokenizing more takes longer than a hop to a thread, and would hold up the loop


@dataclass(slots=True)
class Engine:
    """A model that answers, with its facts.  ``budget`` is in tokens a step.

    ``run``, ``step`` and ``walk`` belong to the device's thread.
    """

    manifest: Manifest
    task: Task
    model: Model
    budget: int
    stepping: Stepping
    padding: float = math.inf  # see scheduler.Limits
    cost: CostModel = field(default_factory=CostModel)
    # One thread, so that a long document is tokenized beside the loop and never two copies of the vocabulary are held.
    tokenizing: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, thread_name_prefix="text"))

    @property
    def ref(self) -> ModelRef:
        return ModelRef(self.manifest.name, self.manifest.version)

    @property
    def max_length(self) -> int:
        return self.manifest.max_length

    def run(self, rows: Seq[Sequence], *, early_exit: bool = False) -> list[Floats]:
        """Logits of each row, through all layers or as far as the policy asks."""
        if not (early_exit and self.stepping.exits):
            return self.model.run(rows)
        return self._through(self.stepping, rows, self.stepping.layers)

    def step(self, group: Seq[Progress], stop: Stop) -> list[Progress]:
        return advance(self.model, self.stepping, group, self.stepping.piece(group, self.budget), stop)

    def walk(self, rows: Seq[Sequence], depth: int, piece: int) -> None:
        self._through(replace(self.stepping.patient(), layers=depth), rows, piece)

    def _through(self, stepping: Stepping, rows: Seq[Sequence], piece: int) -> list[Floats]:
        """Logits of each row, everyone going to their end."""
        done: dict[int, Floats] = {}
        waiting = dict(enumerate(map(Progress, rows)))
        while waiting:
            at = dict(zip(waiting, advance(self.model, stepping, list(waiting.values()), piece), strict=True))
            done |= {index: one.logits for index, one in at.items() if one.logits is not None}
            waiting = {index: one for index, one in at.items() if one.logits is None}
        return [done[index] for index in range(len(rows))]

    async def text_work(self, size: int, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """``work`` on ``size`` code points: here where that is quick, beside the loop where it is not."""
        if size <= LONG_TEXT:
            return work(*args, **kwargs)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.tokenizing, lambda: work(*args, **kwargs))

    def close(self) -> None:
        self.tokenizing.shutdown(wait=False, cancel_futures=True)


def load(folder: Path, device: Device, *, budget: int = 0, layers_per_step: int = 0, early_exit: bool = True) -> Engine:
    """Read, check, load and warm up the version in ``folder``.  Blocks; RepositoryError says what is wrong with it.

    ``budget`` in tokens a step, ``layers_per_step``: 0 measures them.  Without ``early_exit`` the manifest's is unused.
    """
    manifest = read_manifest(folder)
    check_files(folder, manifest)
    task, model = make_task(folder, manifest), make_model(folder, manifest, device)
    if manifest.graphs[device.kind].float32_layers and saturates():
        log.warning("%s runs in float32: products of eight bits overflow on this processor, which has no VNNI", folder)
    engine = assemble(manifest, task, model, early_exit=early_exit)
    engine.padding = attention_padding(manifest) if device.kind == "cpu" else math.inf
    measured = measure_budget(engine, device)
    engine.budget = budget or measured
    layers = layers_per_step or measure_layers(engine, engine.budget)
    engine.stepping = replace(engine.stepping, layers_per_step=layers if layers < manifest.layers else 0)
    return engine


def assemble(manifest: Manifest, task: Task, model: Model, *, budget: int = 1, early_exit: bool = True) -> Engine:
    """An engine that is not warm and steps through all layers at once."""
    exits = manifest.exits if early_exit else None
    stepping = Stepping(
        manifest.layers,
        mixes=manifest.architecture.get("num_hidden_groups") == 1,
        exits=ExitPolicy(exits.kind, exits.threshold, exits.first, exits.window) if exits else None,
        mean_depth=exits.mean_depth if exits else 0.0,
        temperature=manifest.temperature,
    )
    return Engine(manifest, task, model, budget, stepping)


def attention_padding(manifest: Manifest) -> float:
    """The squares of padding a token that cost attention as much as PADDED of the token's matrix products."""
    hidden, between = (manifest.architecture.get(name, math.inf) for name in ("hidden_size", "intermediate_size"))
    # A token's products take 8 h^2 + 4 h f operations, a square of attention 4 h.
    return PADDED * (2 * float(hidden) + float(between))


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
    """``exact``: in float32 where the graphs are in eight bits, to compare others with.

    So it is too on a processor whose products of eight bits cannot be trusted.
    """
    graphs = manifest.graphs.get(device.kind)
    if graphs is None:
        raise DeviceError(f"{folder} has no graphs for {device.kind}; convert the checkpoint again")
    files = {part: folder / getattr(graphs, part) for part in ("embed", "layers", "head")}
    if graphs.float32_layers and (exact or saturates()):
        files["layers"] = folder / graphs.float32_layers
    return Model(files, device, layers=manifest.layers, pooled=manifest.task == "text-classification")
