"""The bodies of requests, and large lists in parts."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

from albert_client.errors import Refused
from albert_client.results import Failure

T = TypeVar("T")
Text = str | tuple[str, str]  # or a pair
Documents = str | Sequence[str | tuple[str, str]] | Mapping[str, str]  # one, several, (id, text) each, or text by id
PART = 64  # texts of a request: few enough that others get their turn, many enough that requests cost nothing


def classify_body(inputs: Text | list[Text], options: Mapping[str, Any]) -> dict[str, Any]:
    given = [_text(one) for one in inputs] if isinstance(inputs, list) else _text(inputs)
    return {"inputs": given} | body_options(options)


def ask_body(question: str, documents: Documents, options: Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(documents, str):
        return {"question": question, "context": documents} | body_options(options)
    pairs = documents.items() if isinstance(documents, Mapping) else documents
    return {"question": question, "documents": [_document(one) for one in pairs]} | body_options(options)


def body_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """All but the deadline, which is a header, and what is None."""
    return {name: value for name, value in options.items() if value is not None and name != "deadline"}


def parts(items: Sequence[T], size: int) -> Iterator[list[T]]:
    if size < 1:
        raise ValueError("part: wanted 1 or more")
    for start in range(0, len(items), size):
        yield list(items[start : start + size])


def one_failed(error: Refused) -> Failure:
    """One question of many that cannot be read.  Raises ``error`` where the others would fare no better."""
    if error.status != 422:
        raise error
    return Failure(error.code, error.message)


def _text(given: Text) -> str | dict[str, str]:
    return given if isinstance(given, str) else {"text": given[0], "text_pair": given[1]}


def _document(given: str | tuple[str, str]) -> str | dict[str, str]:
    return given if isinstance(given, str) else {"id": given[0], "text": given[1]}
