"""The error tree that is drawn is the tree that there is."""

import inspect
import re

import pytest

from service import errors
from service.errors import QueueFull, ServiceError, Unavailable, error_of

LINE = re.compile(r"(?P<branch>[│ ]*(?:├── |└── ))(?P<name>\w+) +(?P<status>\d{3})  \S")
CLASSES = [c for c in vars(errors).values() if inspect.isclass(c) and issubclass(c, ServiceError)]


def drawn() -> dict[str, tuple[str, int]]:
    """Of each error in the docstring its parent, by the indent, and its status."""
    assert errors.__doc__ is not None
    path, tree = ["ServiceError"], {}
    for match in filter(None, map(LINE.match, errors.__doc__.splitlines())):
        depth = len(match["branch"]) // 4
        path[depth:] = [match["name"]]
        tree[match["name"]] = (path[depth - 1], int(match["status"]))
    return tree


def test_the_drawn_tree_is_the_tree_of_classes() -> None:
    classes = {c.__name__: (c.__mro__[1].__name__, c.status) for c in CLASSES if c is not ServiceError}
    assert drawn() == classes


def test_every_code_is_its_own() -> None:
    codes = [c.code for c in CLASSES]
    assert len(codes) == len(set(codes))
    assert all(re.fullmatch("[a-z_]+", code) for code in codes)


def test_a_message_is_for_people_and_for_logs() -> None:
    error = ServiceError("shorten the text")
    assert error.message == str(error) == "shorten the text"


@pytest.mark.parametrize("error", [QueueFull("full", 7.0), Unavailable("down", 7.0)])
def test_what_passes_says_when_to_come_back(error: ServiceError) -> None:
    assert error.retry_after == 7.0
    assert ServiceError("other").retry_after is None


OF_ONE_TEXT = ("InvalidRequest", "TextTooLong", "TooLarge", "DeadlineExceeded", "InferenceFailed", "OutOfMemory")


@pytest.mark.parametrize("kind", [getattr(errors, name) for name in OF_ONE_TEXT])
def test_an_error_is_told_again_as_what_it_was(kind: type[ServiceError]) -> None:
    again = error_of(kind.code, "inputs.3: why")

    assert type(again) is kind
    assert (again.status, again.message) == (kind.status, "inputs.3: why")


def test_an_unknown_code_is_an_error_of_ours() -> None:
    assert (error_of("nobody's", "why").status, error_of("nobody's", "why").message) == (500, "why")
