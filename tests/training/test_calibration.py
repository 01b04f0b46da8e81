"""What is fitted makes scores mean what they say."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, strategies as st

from service.errors import DataError
from service.runtime.providers import choose
from service.serving.loading import LoadOptions, load
from service.tasks.classification import Classification, activate
from service.training.calibration import Judged, calibrate, fit_scale
from service.training.scores import calibration_error, reliability
from tests.training.test_run import write_questions


@pytest.mark.parametrize(("temperature", "evidence"), [(0.7, 0.0), (1.8, 0.6), (3.0, 1.0)])
def test_the_scale_that_made_the_labels_is_found_again(temperature: float, evidence: float) -> None:
    """Labels are drawn from the scores that the true scale gives: no other scale explains them better."""
    draw = np.random.default_rng(0)
    truth = Classification(None, ["a", "b", "c"], "single_label_classification", 64, 64, temperature, evidence)  # type: ignore[arg-type]
    tokens = draw.integers(8, 500, (20_000, 1)).astype(np.float64)
    logits = draw.normal(size=(20_000, 3))
    scores = activate(truth.tempered(logits, tokens), "softmax")
    gold = np.array((draw.random((20_000, 1)) > scores.cumsum(axis=1)[:, :2]).sum(axis=1))
    judged = Judged(logits, tokens, gold)

    def loss(cooler: float, weight: float) -> float:
        return judged.log_loss(replace(truth, temperature=cooler, evidence=weight))

    found = fit_scale(loss)
    assert found == pytest.approx((temperature, evidence), rel=0.07, abs=0.03)
    assert judged.error(replace(truth, temperature=found[0], evidence=found[1])) < 0.02
    assert judged.error(replace(truth, temperature=found[0] / 3)) > 0.05


def test_an_overconfident_model_has_an_error_and_a_fair_one_has_none() -> None:
    draw = np.random.default_rng(0)
    confidence = draw.uniform(0.5, 1, 20_000)
    right = draw.random(20_000) < confidence
    fair = calibration_error(reliability(confidence.tolist(), right.tolist()))
    boasting = calibration_error(reliability([1.0] * 20_000, right.tolist()))

    assert fair < 0.02
    assert boasting == pytest.approx(1 - right.mean())


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=50))
def test_every_answer_falls_into_one_bin(cases: list[tuple[float, bool]]) -> None:
    bins = reliability([confidence for confidence, _ in cases], [right for _, right in cases])

    assert sum(one.count for one in bins) == len(cases)
    assert 0 <= calibration_error(bins) <= 1


def test_fitting_says_what_it_lacks(repository: Path, tmp_path: Path) -> None:
    asked = write_questions(tmp_path / "answerable.json")
    with pytest.raises(DataError, match=r"SQuAD 2\.0"):
        calibrate(load(repository / "qa" / "1", LoadOptions(choose("cpu"), budget=256)), [str(asked)])
