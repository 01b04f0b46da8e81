"""The training loop: learns, keeps the best, stops early, goes on after a kill."""

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AlbertConfig, AlbertForQuestionAnswering, AlbertForSequenceClassification

from service.errors import DataError
from service.training import finetune as loop
from service.training.datasets import Labelled, Question
from service.training.features import Feature, batches, labelled_features, question_features
from service.training.finetune import Recipe, finetune, label_accuracy, label_loss, slope, span_loss, span_overlap
from tests.checkpoints import TINY, save_checkpoint

RECIPE = Recipe(epochs=6, learning_rate=3e-3, batch_tokens=256, evaluations=6, patience=3)


def ids(*values: int) -> Feature:
    array = np.array(values, dtype=np.int32)
    return Feature(array, np.zeros_like(array), 0)


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


def classifier() -> AlbertForSequenceClassification:
    torch.manual_seed(0)
    return AlbertForSequenceClassification(AlbertConfig(**({"vocab_size": 40} | TINY), num_labels=2))


def test_it_learns_and_leaves_the_best_weights_in_the_model(tmp_path: Path) -> None:
    model = classifier()
    dev = examples(60, 1)
    progress = finetune(
        model, label_loss, label_accuracy, examples(300, 0), dev, RECIPE, tmp_path / "s", lambda _: None
    )

    assert progress.best > 0.9
    assert label_accuracy(model, dev) == progress.best
    assert not (tmp_path / "s").exists()


def test_it_stops_when_nothing_gets_better(tmp_path: Path) -> None:
    said: list[str] = []
    scores = iter([0.5, 0.7, 0.6, 0.6, 0.6, 0.9])
    progress = finetune(
        classifier(), label_loss, lambda model, dev: next(scores), examples(200, 0), [], RECIPE, tmp_path / "s",
        said.append,
    )  # fmt: skip

    assert progress.best == 0.7
    assert progress.best_step < progress.step
    assert "stopping" in said[-1]


def test_a_killed_run_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = Recipe(epochs=2, learning_rate=1e-3, batch_tokens=128, evaluations=2, patience=9, save_minutes=0)
    train, dev = examples(200, 0), examples(40, 1)
    steps: list[int] = []
    real = loop._step

    def dying(*arguments: object) -> float:
        if len(steps) == 9:
            raise KeyboardInterrupt
        steps.append(1)
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(loop, "_step", dying)
    with pytest.raises(KeyboardInterrupt):
        finetune(classifier(), label_loss, label_accuracy, train, dev, recipe, tmp_path / "s", lambda _: None)
    monkeypatch.setattr(loop, "_step", real)
    said: list[str] = []
    resumed, whole = classifier(), classifier()
    progress = finetune(resumed, label_loss, label_accuracy, train, dev, recipe, tmp_path / "s", said.append)
    straight = finetune(whole, label_loss, label_accuracy, train, dev, recipe, tmp_path / "t", lambda _: None)

    assert "going on from step 9" in said[0]
    assert progress.step == straight.step


def test_the_learning_rate_rises_and_falls() -> None:
    values = [slope(step, 100, 0.1) for step in range(101)]

    assert values.index(max(values)) in range(9, 11)
    assert max(values) == pytest.approx(1, abs=0.02)
    assert values[0] > 0
    assert values[-1] == 0
    assert all(a >= b for a, b in itertools.pairwise(values[10:]))


@pytest.mark.parametrize("seed", [None, 3])
def test_batches_hold_every_example_once_within_the_budget(seed: int | None) -> None:
    features = [ids(*range(length)) for length in np.random.default_rng(0).integers(2, 30, 100)]
    found = list(batches(features, 64, seed))

    assert sorted(int(row.sum()) for batch in found for row in batch.mask) == sorted(len(f.ids) for f in features)
    assert all(batch.ids.numel() <= 64 for batch in found)
    again = [batch.ids.tolist() for batch in batches(features, 64, seed)]
    assert again == [batch.ids.tolist() for batch in found]


def questions(text: str, answers: Sequence[str]) -> list[Question]:
    return [Question(str(i), "who", text, ((answer, text.index(answer)),)) for i, answer in enumerate(answers)]


def test_the_targets_of_a_window_are_the_tokens_of_the_answer(tmp_path: Path) -> None:
    from service.tasks.text import Tokenizer

    save_checkpoint(tmp_path)
    tokenizer = Tokenizer.from_file(tmp_path / "tokenizer.json")
    text = "Nobody knew why the river had changed its course overnight. " * 6
    answers = ["Nobody", "the river", "course overnight."]
    features = question_features(questions(text, answers) * 40, tokenizer, 48, seed=1, unanswerable=0.2)

    held = 0
    for feature, answer in zip(features, answers * 40, strict=True):
        assert isinstance(feature.target, tuple)
        first, last = feature.target
        assert 0 <= first <= last < len(feature.ids) <= 48
        if first:
            held += 1
            assert feature.ids[first : last + 1].tolist() == tokenizer.encode(answer).ids.tolist()
    assert 80 < held < 120  # about a fifth of the windows were taken beside the answer


def test_a_reader_learns(tmp_path: Path) -> None:
    """The answer is token 7, wherever it stands."""
    draw = np.random.default_rng(0)
    features = []
    for _ in range(300):
        tokens = draw.integers(10, 30, draw.integers(6, 14)).astype(np.int32)
        place = int(draw.integers(1, len(tokens)))
        tokens[place] = 7
        features.append(Feature(tokens, np.zeros_like(tokens), (place, place)))
    torch.manual_seed(0)
    model = AlbertForQuestionAnswering(AlbertConfig(**({"vocab_size": 40} | TINY)))
    progress = finetune(
        model, span_loss, span_overlap, features[:250], features[250:], RECIPE, tmp_path / "s", lambda _: None
    )

    assert progress.best > 0.9


def test_an_unknown_label_is_named(tmp_path: Path) -> None:
    from service.tasks.text import Tokenizer

    save_checkpoint(tmp_path)
    tokenizer = Tokenizer.from_file(tmp_path / "tokenizer.json")
    with pytest.raises(DataError, match="maybe"):
        labelled_features([Labelled("maybe", "ok")], tokenizer, ["no", "yes"], 32)
