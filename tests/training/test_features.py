"""Examples to batches: nothing lost, budgets kept, targets on the answer's tokens."""

import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from service.errors import DataError
from service.tasks.text import Tokenizer
from service.training.datasets import Labelled, Question
from service.training.features import Feature, FeatureStream, batches, labelled_features, question_features
from tests.checkpoints import word_pieces


def ids(*values: int) -> Feature:
    array = np.array(values, dtype=np.int32)
    return Feature(array, np.zeros_like(array), 0)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    path: Path = tmp_path_factory.mktemp("vocabulary") / "tokenizer.json"
    word_pieces().save(str(path))
    return Tokenizer.from_file(path)


@pytest.mark.parametrize("seed", [None, 3])
def test_batches_hold_every_example_once_within_the_budget(seed: int | None) -> None:
    features = [ids(*range(length)) for length in np.random.default_rng(0).integers(2, 30, 100)]
    found = list(batches(features, 64, seed))

    assert sorted(int(row.sum()) for batch in found for row in batch.mask) == sorted(len(f.ids) for f in features)
    assert all(batch.ids.numel() <= 64 for batch in found)
    again = [batch.ids.tolist() for batch in batches(features, 64, seed)]
    assert again == [batch.ids.tolist() for batch in found]


def test_a_stream_goes_on_in_the_middle_of_an_epoch() -> None:
    features = [ids(*range(length)) for length in range(2, 30)]
    stream = FeatureStream(lambda epoch: features, 64, seed=1)
    whole = [batch.ids.tolist() for batch in stream(2)]

    assert [batch.ids.tolist() for batch in stream(2, 3)] == whole[3:]
    assert [batch.ids.tolist() for batch in stream(3)] != whole


def questions(text: str, answers: Sequence[str]) -> list[Question]:
    return [Question(str(i), "who", text, ((answer, text.index(answer)),)) for i, answer in enumerate(answers)]


def test_the_targets_of_a_window_are_the_tokens_of_the_answer(tokenizer: Tokenizer) -> None:
    text = "Nobody knew why the river had changed its course overnight. "
    text += "Some told stories of it at the market. " * 6
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


def test_no_window_beside_the_answer_holds_it_again(tokenizer: Tokenizer) -> None:
    text = "The river changed its course and they all told of it at the market, but the river stayed. " * 3
    features = question_features(questions(text, ["The river"]) * 60, tokenizer, 64, seed=1, unanswerable=1.0)

    assert all(feature.target != (0, 0) for feature in features)


def test_an_unknown_label_is_named(tokenizer: Tokenizer) -> None:
    with pytest.raises(DataError, match="maybe"):
        labelled_features([Labelled("maybe", "ok")], tokenizer, ["no", "yes"], 32)


def test_a_long_text_is_cut_at_its_end_or_seen_through_a_window_anywhere(tokenizer: Tokenizer) -> None:
    text = " ".join(["river", "course", "committee", "budget", "ferry", "quay"] * 8)
    row = Labelled("yes", text)
    whole = tokenizer.encode(text).ids.tolist()
    cut = labelled_features([row], tokenizer, ["no", "yes"], 12)[0].ids[1:-1].tolist()
    windows = [
        labelled_features([row], tokenizer, ["no", "yes"], 12, random.Random(seed))[0].ids[1:-1].tolist()
        for seed in range(30)
    ]

    assert cut == whole[:10]
    starts = {next(i for i in range(len(whole)) if whole[i : i + 10] == window) for window in windows}
    assert len(starts) > 3
