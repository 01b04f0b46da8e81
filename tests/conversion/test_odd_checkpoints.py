"""Every odd checkpoint is converted and answers as PyTorch does, or is refused in one line that says why."""

from pathlib import Path

import pytest

from tests.odd_checkpoints import CASES, Case, Converts, Refused, differences, run
from tests.odd_checkpoints.originals import largest_difference

CONVERTED = [case for case in CASES if isinstance(case.outcome, Converts)]
REFUSED = [case for case in CASES if isinstance(case.outcome, Refused)]
TOLERANCE = 1e-4  # of logits up to about 10: float32 sums in another order


@pytest.mark.parametrize("case", CONVERTED, ids=lambda case: case.name)
def test_it_converts_and_answers_as_pytorch_does(tmp_path: Path, case: Case) -> None:
    checkpoint, repository = tmp_path / "checkpoint", tmp_path / "repository"
    case.build(checkpoint)
    told = run(case.arguments(checkpoint, repository))
    assert not differences(case, told, repository), "\n".join(told.error)

    assert largest_difference(checkpoint, repository / "odd" / "1") < TOLERANCE


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.name)
def test_it_is_refused_in_one_line_that_names_file_and_field(tmp_path: Path, case: Case) -> None:
    checkpoint, repository = tmp_path / "checkpoint", tmp_path / "repository"
    case.build(checkpoint)
    told = run(case.arguments(checkpoint, repository))

    assert not differences(case, told, repository), "\n".join(told.error)
    assert not (checkpoint / "touched").exists(), "the code in a pickle was run"


def test_names_are_told_apart() -> None:
    assert len({case.name for case in CASES}) == len(CASES)
