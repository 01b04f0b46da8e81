"""Memory that was freed, given back to the system: a model that was loaded and let go leaves holes that add up."""

import ctypes
import functools
from collections.abc import Callable


@functools.cache
def _trim() -> Callable[[int], int] | None:
    """glibc's ``malloc_trim``; None where there is another C library."""
    try:
        trim: Callable[[int], int] = ctypes.CDLL("libc.so.6").malloc_trim
    except (OSError, AttributeError):
        return None
    return trim


def give_back() -> None:
    """Takes some milliseconds, and lets go of the interpreter meanwhile."""
    trim = _trim()
    if trim is not None:
        trim(0)
