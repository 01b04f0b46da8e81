"""Types of flags: a number within what makes sense, or a line that says what is wanted."""

import argparse
import math
from collections.abc import Callable
from typing import TypeVar

N = TypeVar("N", int, float)


def _number(text: str, kind: Callable[[str], N], wanted: str, fits: Callable[[N], bool]) -> N:
    """No comparison holds of a NaN: ``fits`` is written so that one does not fit."""
    try:
        value = kind(text)
    except ValueError:
        value = None
    if value is None or not fits(value):
        raise argparse.ArgumentTypeError(f"{text[:40]!r}: wanted {wanted}")
    return value


def count(text: str) -> int:
    return _number(text, int, "at least 1, a whole number", lambda value: value >= 1)


def from_zero(text: str) -> int:
    return _number(text, int, "at least 0, a whole number", lambda value: value >= 0)


def above_zero(text: str) -> float:
    return _number(text, float, "a number above 0", lambda value: 0 < value < math.inf)


def not_negative(text: str) -> float:
    return _number(text, float, "a number from 0", lambda value: 0 <= value < math.inf)


def finite(text: str) -> float:
    return _number(text, float, "a number", math.isfinite)


def share(text: str) -> float:
    return _number(text, float, "a share, from 0 to 1", lambda value: 0 <= value <= 1)


def part(text: str) -> float:
    """A share of which something is left on both sides."""
    return _number(text, float, "a share between 0 and 1", lambda value: 0 < value < 1)


def chance(text: str) -> float:
    """A share that is not all."""
    return _number(text, float, "a share, from 0 to less than 1", lambda value: 0 <= value < 1)
