"""The probe of a device knows a right result from a wrong one; the graph itself has kernels on CUDA alone."""

from typing import Any

import numpy as np
import pytest

from service.runtime import probe


class Computes:
    """A device that computes the probe in float16 and then does ``fault`` to the result."""

    def __init__(self, fault: Any) -> None:
        self.fault = fault

    def run(self, names: None, given: dict[str, Any]) -> list[Any]:
        x, w = (given[name].astype(np.float64) for name in ("x", "w"))
        return [self.fault(probe._expected(x, w).astype(np.float16))]


def test_a_right_result_passes() -> None:
    assert probe.difference(Computes(lambda out: out)) <= probe.TOLERANCE


@pytest.mark.parametrize(
    "fault", [np.zeros_like, lambda out: out[::-1], lambda out: out * np.nan, lambda out: out + np.float16(0.02)]
)
def test_a_wrong_one_does_not(fault: Any) -> None:
    assert not probe.difference(Computes(fault)) <= probe.TOLERANCE


def test_rows_do_not_see_each_other() -> None:
    draw = np.random.default_rng(1)
    x, w = draw.standard_normal((sum(probe.LENGTHS), probe.SIZE)), draw.standard_normal((probe.SIZE, 3 * probe.SIZE))
    before = probe._expected(x, w)
    x[probe.LENGTHS[0] :] += 1

    np.testing.assert_array_equal(probe._expected(x, w)[: probe.LENGTHS[0]], before[: probe.LENGTHS[0]])
