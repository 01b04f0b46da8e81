"""The bodies of requests, and large lists in parts."""

import base64
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from albert_client.errors import Refused
from albert_client.results import Failure

T = TypeVar("T")
Text = str | tuple[str, str]  # or a pair
Content = str | bytes | Path  # a text; or a PDF file, a picture of a page or a file of text, read or to be read
Documents = Content | Sequence[Content | tuple[str, Content]] | Mapping[str, Content]  # one, several, with ids or not
PART = 64  # texts of a request: few enough that others get their turn, many enough that requests cost nothing


def inputs_body(inputs: Text | list[Text], options: Mapping[str, Any]) -> dict[str, Any]:
    given = [_text(one) for one in inputs] if isinstance(inputs, list) else _text(inputs)
    return {"inputs": given} | body_options(options)


def ask_body(question: str, documents: Documents, options: Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(documents, str):
        return {"question": question, "context": documents} | body_options(options)
    if isinstance(documents, bytes | Path):
        documents = [documents]
    pairs = documents.items() if isinstance(documents, Mapping) else documents
    return {"question": question, "documents": [_document(one) for one in pairs]} | body_options(options)


def body_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """All but the deadline, which is a header, and what is None."""
    given = {name: value for name, value in options.items() if value is not None and name != "deadline"}
    return {name: list(value) if isinstance(value, range | tuple) else value for name, value in given.items()}


def one_text(text: Text) -> Text:
    """TypeError for several: their answers would be lost."""
    if isinstance(text, str) or (isinstance(text, tuple) and len(text) == 2):
        return text
    raise TypeError("wanted a text, or a tuple of two; the method that ends in _many takes several")


def several(texts: Iterable[Text]) -> list[Text]:
    """TypeError for one text, which would be taken letter by letter."""
    if isinstance(texts, str):
        raise TypeError("wanted several texts, not one: the method without _many takes that")
    return [one_text(text) for text in texts]


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


def _document(given: Content | tuple[str, Content]) -> str | dict[str, str]:
    """A path without an id has its name."""
    name, content = given if isinstance(given, tuple) else (given.name if isinstance(given, Path) else None, given)
    if isinstance(content, str):
        return content if name is None else {"id": name, "text": content}
    data = content.read_bytes() if isinstance(content, Path) else content
    file = {"file": base64.b64encode(data).decode()}
    return file if name is None else {"id": name} | file
