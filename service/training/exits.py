"""Early exits: how much quality does a policy cost, and how much depth does it save?  Measured, then chosen."""

from collections.abc import Iterator, Sequence as Seq
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ..errors import DataError, QualityError
from ..runtime.packing import like_lengths
from ..serving.engine import Engine
from ..tasks.classification import Classification
from ..tasks.exits import ExitPolicy, ExitSignal, exit_signal
from ..tasks.question_answering import QuestionAnswering
from ..types import Floats, Sequence
from . import splits
from .pictures import draw_exits
from .predictors import (
    classification,
    encode_questions,
    encode_texts,
    reader,
    take,
)
from .scores import token_f1

GATE = 0.5  # points of the score that an early exit may cost
THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.93, 0.95, 0.97, 0.98, 0.99, 0.995, 0.999)


@dataclass(frozen=True, slots=True)
class Point:
    """One policy, what it scores (in points) and the mean depth that it runs, weighted by tokens."""

    policy: ExitPolicy
    score: float
    mean_depth: float


def fit_exits(engine: Engine, source: str, gate: float = GATE, picture: Path | None = None) -> dict[str, Any]:
    """The manifest's ``exits``: of the policies that lose at most ``gate`` points, the one that runs least.

    QualityError where none does: the head was never taught to answer early (``train --exits``).
    """
    trial = _Trial.of(engine, source)
    full = trial.score([trial.layers] * len(trial.rows))
    points = [trial.measure(policy) for policy in tqdm(list(policies(trial.layers)), desc="policies", leave=False)]
    if picture:
        depths = [
            {"kind": "depth", "mean_depth": depth, "score": trial.score([depth] * len(trial.rows))}
            for depth in range(1, trial.layers + 1)
        ]
        draw_exits([_flat(point) for point in points] + depths, full, gate, picture)
    best = choose(points, full, gate, trial.layers)
    lost = round(max(0.0, full - best.score), 3)
    exits = asdict(best.policy) | {"mean_depth": round(best.mean_depth, 3), "lost": lost, "data": splits.name(source)}
    return {"exits": exits}


def policies(layers: int) -> Iterator[ExitPolicy]:
    for first in range(1, layers):
        for threshold in THRESHOLDS:
            yield ExitPolicy("confidence", threshold, first)
    for window in (2, 3):
        for threshold in (0.0, *THRESHOLDS):
            yield ExitPolicy("window", threshold, window, window)


def choose(points: Seq[Point], full: float, gate: float, layers: int) -> Point:
    """QualityError where no policy that saves anything stays within ``gate`` points of ``full``."""
    allowed = [point for point in points if point.score >= full - gate and point.mean_depth < layers]
    if not allowed:
        best = max(points, key=lambda point: point.score)
        raise QualityError(
            f"no early exit stays within {gate:g} points of the {full:.2f} at full depth: the best loses "
            f"{full - best.score:.2f} at {best.mean_depth:.1f} layers. Train with --exits, or allow more with --gate."
        )
    return min(allowed, key=lambda point: (point.mean_depth, -point.score))


def _flat(point: Point) -> dict[str, Any]:
    return {"kind": point.policy.kind, "mean_depth": point.mean_depth, "score": point.score}


@dataclass(slots=True)
class _Trial:
    """A file's sequences with their logits at every depth: ``logits[depth - 1][row]``."""

    engine: Engine
    encoded: list[Any]
    gold: list[Any]
    rows: list[Sequence]
    logits: list[list[Floats]]
    exit_signals: list[list[ExitSignal]]  # by row and depth

    @classmethod
    def of(cls, engine: Engine, source: str) -> "_Trial":
        encoded: list[Any]
        gold: list[Any]
        if isinstance(engine.task, Classification):
            if engine.task.activation != "softmax":
                raise DataError(f"{engine.ref}: an early exit is chosen where each text has one label of several")
            texts = splits.labelled(source)
            encoded, gold = list(encode_texts(classification(engine), texts)), [row.label for row in texts]
        else:
            asked = splits.questions(source)
            encoded = list(encode_questions(reader(engine), asked))
            gold = [[text for text, _ in question.answers] for question in asked]
        rows = [row for item in encoded for row in item.sequences]
        logits = run_depths(engine, rows)
        exit_history = [
            [exit_signal(one, engine.manifest.temperature) for one in depths] for depths in zip(*logits, strict=True)
        ]
        return cls(engine, encoded, gold, rows, logits, exit_history)

    @property
    def layers(self) -> int:
        return len(self.logits)

    def measure(self, policy: ExitPolicy) -> Point:
        depths = [policy.depth(exit_history) for exit_history in self.exit_signals]
        return Point(policy, self.score(depths), self.mean_depth(depths))

    def mean_depth(self, depths: Seq[int]) -> float:
        tokens = [len(row) for row in self.rows]
        return sum(d * n for d, n in zip(depths, tokens, strict=True)) / sum(tokens)

    def score(self, depths: Seq[int]) -> float:
        """Accuracy or token F1, in points, with each row's logits taken from its own depth."""
        left = iter([self.logits[depth - 1][row] for row, depth in enumerate(depths)])
        total = 0.0
        for item, gold in zip(self.encoded, self.gold, strict=True):
            logits = take(left, len(item.sequences))
            if isinstance(self.engine.task, Classification):
                total += self.engine.task.decode(item, logits).labels[0][0] == gold
            else:
                assert isinstance(self.engine.task, QuestionAnswering)
                done = self.engine.task.decode(item, logits, no_answer=not all(self.gold))
                total += token_f1(done.answers[0].text if done.answers else "", gold)
        return 100 * total / len(self.gold)


def run_depths(engine: Engine, rows: Seq[Sequence]) -> list[list[Floats]]:
    """The head's logits after each layer, by depth and row."""
    model = engine.model
    found: list[list[Any]] = [[None] * len(rows) for _ in range(model.depth)]
    with tqdm(total=len(rows), desc="every depth", unit=" rows", leave=False) as bar:
        for step in like_lengths(rows, max(engine.budget, 128)):
            pack = model.pack([rows[index] for index in step])
            hidden = model.embed(pack)
            for depth in range(model.depth):
                hidden = model.advance(hidden, pack, 1)
                for index, logits in zip(step, model.head(hidden, pack), strict=True):
                    found[depth][index] = logits
            bar.update(len(step))
    return found
