"""The documents of a ``/qa`` request, those that are files too: their texts first, then where the answers stand."""

import base64
import binascii
from collections.abc import Sequence as Seq
from dataclasses import dataclass

from ..documents.places import ReadDocument
from ..errors import InvalidRequest, ServiceError, TooLarge
from ..tasks.question_answering import Answer
from .work import RequestWork


@dataclass(frozen=True, slots=True)
class Source:
    """A document as it came: ``text`` or the bytes of a ``file``.  ``name`` is its id, or its index."""

    name: str | int
    text: str | None = None
    file: bytes | None = None


@dataclass(frozen=True, slots=True)
class Document:
    """A document with its text; ``read`` where it was a file, ``error`` where that could not be read."""

    source: Source
    text: str
    read: ReadDocument | None = None
    error: ServiceError | None = None


def decoded(field: str, content: str) -> bytes:
    """InvalidRequest where ``content`` of the request's ``field`` is no base64."""
    try:
        return base64.b64decode(content, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidRequest(f"{field}: it is not base64") from None


async def read_documents(work: RequestWork, sources: Seq[Source]) -> list[Document]:
    """Files one after the other.  One that cannot be read has its error, and an empty text; alone, it is raised."""
    if all(source.file is None for source in sources):
        return [Document(source, source.text or "") for source in sources]
    with work.stage("read"):
        documents = [await _document(work, source) for source in sources]
    errors = [one.error for one in documents if one.error]
    if len(errors) == len(documents):
        raise errors[0]
    return documents


async def _document(work: RequestWork, source: Source) -> Document:
    if source.file is None:
        return Document(source, source.text or "")
    try:
        read = await work.service.files.read(source.file, work.deadline)
    except (InvalidRequest, TooLarge) as error:
        return Document(source, "", error=error)
    return Document(source, read.text, read)


def on_page(answer: Answer, document: Document) -> dict[str, object]:
    """Where an answer from a file stands."""
    place = document.read.place(answer.start, answer.end) if document.read else None
    return {"page": place.page, "boxes": place.boxes} if place else {}


async def page_pictures(work: RequestWork, documents: Seq[Document], answers: Seq[Answer]) -> list[dict[str, object]]:
    """Each page that holds an answer, once."""
    wanted: dict[tuple[int, int], None] = {}
    for answer in answers:
        read = documents[answer.document].read
        if read and (place := read.place(answer.start, answer.end)):
            wanted[answer.document, place.page] = None
    pages: list[dict[str, object]] = []
    with work.stage("pictures"):
        for index, page in wanted:
            source = documents[index].source
            assert source.file is not None
            png = await work.service.files.picture(source.file, page, work.deadline)
            shown = f"data:image/png;base64,{base64.b64encode(png).decode()}"
            pages.append({"document": source.name, "page": page, "picture": shown})
    return pages
