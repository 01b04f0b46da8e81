"""Stand-ins that are plain classes: a clock held in the hand, a model that needs no graph."""

import asyncio
import math
import threading
from collections.abc import Callable, Sequence as Seq
from dataclasses import dataclass, field, replace
from typing import Literal, cast

import numpy as np

from service.repository.manifest import Graphs, Manifest
from service.runtime.session import Model
from service.serving.cost import CostModel
from service.serving.engine import Engine
from service.serving.stepping import Progress, Stepping, Stop
from service.tasks.classification import Classification
from service.tasks.question_answering import QuestionAnswering
from service.tasks.text import Tokenizer
from service.types import Floats, ModelRef, Sequence


def row(length: int, first: int = 5) -> Sequence:
    """A sequence of ``length`` tokens, the first of which is ``first``."""
    ids = np.full(length, 7, dtype=np.int32)
    ids[0] = first
    return Sequence(ids, np.zeros_like(ids), length)


async def until(condition: Callable[[], object]) -> None:
    """Let the loop and the threads go on until ``condition`` holds."""
    for _ in range(5000):
        if condition():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("waited in vain")


@dataclass
class ManualClock:
    """Time in seconds that passes only when told."""

    now: float = 100.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


@dataclass
class FakeRunner:
    """Answers each row with its first id, as logits (1,), after the layers of ``stepping``; keeps what it ran.

    ``fails`` says of a batch what to raise; ``gate``, where set, holds each step until it is opened.  ``dead``, where
    set, is what every step and probe raises; ``on_rebuild`` is what rebuilding does.
    """

    ref: ModelRef = field(default_factory=lambda: ModelRef("fake", 1))
    budget: int = 64
    cost: CostModel = field(default_factory=CostModel)
    fails: Callable[[Seq[Sequence]], Exception | None] = lambda rows: None
    gate: threading.Event | None = None
    steps: list[list[int]] = field(default_factory=list)
    stepping: Stepping = field(default_factory=lambda: Stepping(1))
    padding: float = math.inf
    full_budget: int = 0
    clean_steps: int = 0
    dead: Exception | None = None
    on_rebuild: Callable[[], None] = lambda: None
    probes: int = 0
    rebuilds: int = 0

    def __post_init__(self) -> None:
        self.full_budget = self.full_budget or self.budget

    def step(self, group: Seq[Progress], stop: Stop) -> list[Progress]:
        layers, interval = self.stepping.end(group), self.stepping.check_interval(group, self.budget)
        for done in range(interval, layers + interval, interval):
            logits = self.run([one.sequence for one in group])
            if done < layers and stop():
                layers = done
                break
        moved = [replace(one, depth=one.depth + layers) for one in group]
        return [
            replace(one, logits=values) if one.depth == self.stepping.layers else one
            for one, values in zip(moved, logits, strict=True)
        ]

    def run(self, rows: Seq[Sequence]) -> list[Floats]:
        self.steps.append([int(r.ids[0]) for r in rows])
        if self.gate is not None:
            assert self.gate.wait(10)
        error = self.dead or self.fails(rows)
        if error is not None:
            raise error
        return [np.array([r.ids[0]], dtype=np.float32) for r in rows]

    def probe(self) -> None:
        self.probes += 1
        if self.dead is not None:
            raise self.dead

    def rebuild(self) -> None:
        self.rebuilds += 1
        self.on_rebuild()


@dataclass
class LightEngine(Engine):
    """An engine that holds no graphs and no vocabulary; tells whether it was closed."""

    closed: bool = False

    def close(self) -> None:
        Engine.close(self)
        self.closed = True


def light_engine(
    name: str = "fake", version: int = 1, *, model: object = None, max_length: int = 64,
    kind: Literal["text-classification", "question-answering"] = "text-classification",
) -> LightEngine:  # fmt: skip
    """An engine of a manifest that names no real file; ``model`` runs its rows."""
    graphs = Graphs(precision="float32", embed="embed.onnx", layers="layers.onnx", head="head.onnx")
    files = ("embed.onnx", "layers.onnx", "head.onnx", "tokenizer.json")
    manifest = Manifest(
        name=name, version=version, task=kind, labels=["no", "yes"], problem_type="single_label_classification",
        max_length=max_length, window=max_length, layers=1, architecture={}, graphs={"cpu": graphs},
        sha256=dict.fromkeys(files, "0" * 64),
    )  # fmt: skip
    nothing = cast(Tokenizer, None)
    task = (
        QuestionAnswering(nothing, max_length, max_length, 8)
        if kind == "question-answering"
        else Classification(nothing, manifest.labels, "single_label_classification", max_length, max_length)
    )
    return LightEngine(manifest, task, cast(Model, model), 64, Stepping(1))
