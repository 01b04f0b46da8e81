"""The training loop: learns, keeps the best, stops early, goes on after a kill."""

import itertools
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AlbertConfig, AlbertForQuestionAnswering, AlbertForSequenceClassification

from service.errors import DataError, TrainingError
from service.training.features import Batch, Feature, FeatureStream, collate
from service.training.finetune import Recipe, Run, slope
from service.training.learner import Learner, Lessons
from service.training.stopping import Stop
from tests.checkpoints import TINY

RECIPE = Recipe(learning_rate=3e-3, batch_tokens=256, evaluations=6, patience=3)


def examples(count: int, seed: int) -> list[Feature]:
    """Class 1 holds token 7, class 0 does not."""
    draw = np.random.default_rng(seed)
    features = []
    for index in range(count):
        tokens = draw.integers(10, 30, draw.integers(4, 12)).astype(np.int32)
        label = index % 2
        if label:
            tokens[draw.integers(1, len(tokens))] = 7
        tokens[0] = 2
        features.append(Feature(tokens, np.zeros_like(tokens), label))
    return features


def spans(count: int) -> list[Feature]:
    """The answer is token 7, wherever it stands."""
    draw = np.random.default_rng(0)
    features = []
    for _ in range(count):
        tokens = draw.integers(10, 30, draw.integers(6, 14)).astype(np.int32)
        place = int(draw.integers(1, len(tokens)))
        tokens[place] = 7
        features.append(Feature(tokens, np.zeros_like(tokens), (place, place)))
    return features


def classifier(seed: int = 0, **config: Any) -> AlbertForSequenceClassification:
    torch.manual_seed(seed)
    return AlbertForSequenceClassification(AlbertConfig(**({"vocab_size": 40} | TINY | config), num_labels=2))


def reader() -> AlbertForQuestionAnswering:
    torch.manual_seed(0)
    return AlbertForQuestionAnswering(AlbertConfig(**({"vocab_size": 40} | TINY)))


def stream(features: list[Feature], recipe: Recipe = RECIPE) -> FeatureStream:
    return FeatureStream(lambda _: features, recipe.batch_tokens, recipe.seed)


def run(learner: Any, train: list[Feature], state: Path, epochs: float = 6, **changes: Any) -> Run:
    recipe = replace(RECIPE, **changes)
    batches = stream(train, recipe)
    steps = int(batches.batches_per_epoch() * epochs / recipe.accumulate)
    return Run(learner, batches, replace(recipe, steps=steps), state, say=lambda _: None)


class Scripted(Learner):
    """Learns nothing; its scores are given."""

    scores: Iterator[float]

    def score(self) -> float:
        return next(self.scores)


class Dying(Learner):
    """At its batch number ``left`` something happens to the process that trains it."""

    left: int
    happens: Callable[[], None]

    def loss(self, batch: Batch) -> torch.Tensor:
        if not self.left:
            self.happens()
        self.left -= 1
        return super().loss(batch)


def scripted(*scores: float) -> Scripted:
    learner = Scripted(classifier(), [])
    learner.scores = iter(scores)
    return learner


def test_it_learns_and_leaves_the_best_weights_in_the_student(tmp_path: Path) -> None:
    learner = Learner(classifier(), examples(60, 1))
    started = run(learner, examples(300, 0), tmp_path / "s")
    progress = started.to_the_end()

    assert progress.best > 0.9
    assert learner.score() == progress.best
    again = Run(Learner(classifier(), learner.dev), started.stream, started.recipe, tmp_path / "s", lambda _: None)
    assert again.to_the_end().step == progress.step  # a run that is over is over, until its state is forgotten
    again.forget()
    assert not (tmp_path / "s").exists()
    assert [entry["step"] for entry in progress.history][-1] == progress.step


def test_a_reader_learns(tmp_path: Path) -> None:
    features = spans(300)
    progress = run(Learner(reader(), features[250:]), features[:250], tmp_path / "s").to_the_end()

    assert progress.best > 0.9


def test_it_stops_when_nothing_gets_better(tmp_path: Path) -> None:
    said: list[str] = []
    started = run(scripted(0.5, 0.7, 0.6, 0.6, 0.6, 0.9), examples(200, 0), tmp_path / "s")
    started.say = said.append
    progress = started.to_the_end()

    assert progress.best == 0.7
    assert progress.best_step < progress.step
    assert "stopping" in said[-1]


def test_minutes_end_a_run_and_the_learning_rate_has_come_down_by_then(tmp_path: Path) -> None:
    ticks = itertools.count()
    started = run(scripted(*[0.5] * 9), examples(200, 0), tmp_path / "s", epochs=1000, minutes=2, patience=99)
    started.clock = lambda: float(next(ticks))  # a second whenever it is asked
    progress = started.to_the_end()

    assert 115 <= progress.seconds <= 125
    assert progress.evaluated == RECIPE.evaluations
    assert started.optimizer.param_groups[0]["lr"] < 0.05 * RECIPE.learning_rate


def fail() -> None:
    raise RuntimeError("killed")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, None])
def test_a_stopped_run_goes_on_where_it_was(tmp_path: Path, number: signal.Signals | None) -> None:
    """Interrupted, it ends its step and saves; killed, it goes on from the state that was saved last."""
    train, dev = examples(200, 0), examples(40, 1)
    settings: dict[str, Any] = {"epochs": 2, "batch_tokens": 128, "evaluations": 2, "patience": 9, "save_minutes": 0}
    dying = Dying(classifier(), dev)
    dying.left, dying.happens = 8, (lambda: os.kill(os.getpid(), number)) if number else fail
    first = run(dying, train, tmp_path / "s", **settings)
    with pytest.raises(
        TrainingError if number else RuntimeError, match="the same command goes on" if number else "killed"
    ):
        first.to_the_end()
    said: list[str] = []
    again = Run(Learner(classifier(), dev), first.stream, first.recipe, tmp_path / "s", said.append)
    straight = run(Learner(classifier(), dev), train, tmp_path / "t", **settings)

    assert f"going on from step {9 if number else 8}" in said[0]
    assert again.to_the_end().step == straight.to_the_end().step


def test_a_state_of_another_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "s").write_bytes(b"not a state")
    with pytest.raises(TrainingError, match="another --out"):
        run(Learner(classifier(), []), examples(20, 0), tmp_path / "s")


def test_a_state_does_not_go_on_with_other_data_or_settings(tmp_path: Path) -> None:
    first = run(Learner(classifier(), []), examples(20, 0), tmp_path / "s")
    first.identity = "these"
    first._save()
    with pytest.raises(TrainingError, match="the data or the settings are others"):
        Run(first.learner, first.stream, first.recipe, tmp_path / "s", identity="those")


def test_no_score_that_is_a_number_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no evaluation gave a score"):
        run(scripted(*[float("nan")] * 9), examples(200, 0), tmp_path / "s", patience=99).to_the_end()


def test_an_epoch_without_a_batch_is_an_error_and_not_for_ever(tmp_path: Path) -> None:
    started = Run(Learner(classifier(), []), InOrder([], 1), RECIPE, tmp_path / "s", lambda _: None)
    with pytest.raises(DataError, match="holds no batch"):
        started.to_the_end()


def test_a_full_disk_leaves_the_state_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = run(Learner(classifier(), []), examples(20, 0), tmp_path / "s.pt")
    started._save()
    before = (tmp_path / "s.pt").read_bytes()

    def full(parts: object, path: Path) -> None:
        path.write_bytes(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(TrainingError, match="No space left"):
        started._save()
    assert (tmp_path / "s.pt").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["s.pt"]


def test_a_loss_that_is_no_number_ends_the_run(tmp_path: Path) -> None:
    learner = Learner(classifier(), examples(20, 1))
    with torch.no_grad():
        learner.student.classifier.weight.fill_(float("nan"))
    with pytest.raises(TrainingError, match="lower --learning-rate"):
        run(learner, examples(20, 0), tmp_path / "s").to_the_end()


def test_accumulated_batches_are_one_step(tmp_path: Path) -> None:
    def weights(accumulate: int, tokens: int) -> tuple[torch.Tensor, int]:
        learner = Learner(classifier(hidden_dropout_prob=0.0, classifier_dropout_prob=0.0), [])
        # Rows of one length, so that two batches of half the size hold the rows of one.
        rows = [Feature(f.ids[:4], f.types[:4], f.target) for f in examples(64, 0)]
        recipe = replace(RECIPE, steps=4, accumulate=accumulate, evaluations=0)
        done = Run(learner, InOrder(rows, tokens // 4), recipe, tmp_path / f"{accumulate}", lambda _: None)
        done._train(Stop())
        return learner.student.classifier.weight.detach().clone(), done.progress.step

    (whole, steps), (halves, other) = weights(1, 64), weights(2, 32)
    assert steps == other == 4
    torch.testing.assert_close(whole, halves, atol=2e-3, rtol=0)


class InOrder:
    """The rows in one order, whatever the size of the batches."""

    def __init__(self, rows: list[Feature], per_batch: int) -> None:
        self.batches = [collate(rows[i : i + per_batch]) for i in range(0, len(rows), per_batch)]

    def __call__(self, epoch: int, skip: int) -> Iterator[Batch]:
        return iter(self.batches[skip:])


def test_the_learning_rate_rises_and_falls() -> None:
    values = [slope(step / 100, 0.1, 0.01) for step in range(101)]

    assert values.index(max(values)) in range(9, 11)
    assert max(values) == pytest.approx(1, abs=0.02)
    assert values[0] > 0
    assert values[-1] == 0
    assert all(a >= b for a, b in itertools.pairwise(values[10:]))


def test_class_weights_turn_a_prejudice_round(tmp_path: Path) -> None:
    """Nine of ten texts are of class 0 and no text tells anything: the weights decide what is said."""
    rows = [Feature(np.full(5, 9, dtype=np.int32), np.zeros(5, dtype=np.int32), int(i % 10 == 0)) for i in range(200)]

    def share(weights: tuple[float, ...] | None) -> float:
        learner = Learner(classifier(), rows, Lessons(class_weights=weights))
        done = run(learner, rows, tmp_path / "s", epochs=3, evaluations=1)
        done.to_the_end()
        done.forget()
        with torch.inference_mode():
            learner.eval()
            ids = torch.full((1, 5), 9)
            return float(learner.student(ids).logits.softmax(-1)[0, 1])

    assert share(None) < 0.25
    assert share((200 / (2 * 180), 200 / (2 * 20))) > 0.35
