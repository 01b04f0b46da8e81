"""The least value of a valley."""

import math

import pytest

from service.training.golden_section import least, least_scale


@pytest.mark.parametrize("place", [-3.9, 0.0, 1.7, 5.0])
def test_the_least_of_a_valley_is_found(place: float) -> None:
    assert least(lambda x: (x - place) ** 2, -4, 5) == pytest.approx(place, abs=1e-3)


@pytest.mark.parametrize("place", [0.02, 1.0, 9.5])
def test_scales_are_searched_by_their_logarithm(place: float) -> None:
    assert least_scale(lambda x: math.log(x / place) ** 2, 0.01, 10) == pytest.approx(place, rel=1e-3)
