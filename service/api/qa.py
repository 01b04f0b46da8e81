"""``POST /qa``"""

from collections.abc import Callable, Sequence as Seq
from typing import Any, TypeVar

from fastapi import FastAPI, Request
from starlette.responses import Response

from ..errors import InvalidRequest
from ..serving.engine import Engine
from ..tasks.question_answering import Answer, Answered, QuestionAnswering
from .files import Document as ReadSource, Source, decoded, on_page, page_pictures, read_documents
from .route import add_json_route
from .schemas import PRIORITIES, Document, QaRequest, QaResponse
from .work import RequestWork

T = TypeVar("T")
Respond = Callable[[Engine, dict[str, object]], T]
BLANK = {"code": "invalid_request", "message": "the document is empty, or holds nothing that the model has a token for"}


def add_route(app: FastAPI) -> None:
    add_json_route(app, "/qa", answer_question, QaResponse, "Answers to a question, as spans of the texts given")


async def answer_question(body: QaRequest, request: Request) -> Response:
    work: RequestWork = request.state.work
    return await answered(work, body, work.respond)


async def answered(work: RequestWork, body: QaRequest, respond: Respond[T]) -> T:
    """What ``respond`` makes of the answers, as in ``QaResponse`` but for the model."""
    service = work.service
    sources = _sources(body)
    choices = _choices(body)
    for text in (body.question, *(source.text or "" for source in sources)):
        service.check_text(text)
    name = body.model or service.default_model(QuestionAnswering)
    async with service.registry.lease(name, body.version, QuestionAnswering) as engine, work.connected():
        task = engine.task
        assert isinstance(task, QuestionAnswering)
        if any(source.file for source in sources):
            work.holds_files(len(body.question) + sum(len(source.text or "") for source in sources))
        documents = await read_documents(work, sources)
        texts = [document.text for document in documents]
        most = service.settings.read_windows if body.read is None else body.read
        encoded = await work.encode(
            len(body.question) + sum(map(len, texts)), lambda: task.encode(body.question, texts).reading(most)
        )
        priority = PRIORITIES[body.priority]
        logits = await work.run_whole(
            engine, encoded.sequences, priority, early_exit=body.early_exit, usual=body.read is None
        )
        found = await work.decode(encoded.tokens, lambda: task.decode(encoded, logits, **choices))
        shown = _shown(found, documents, encoded.blank)
        if body.texts:
            shown["texts"] = [{"document": one.source.name, "text": one.text} for one in documents if one.read]
        if body.pictures:
            shown["pages"] = await page_pictures(work, documents, found.answers)
        return respond(engine, shown)


def _sources(body: QaRequest) -> list[Source]:
    if (body.context is None) == (body.documents is None):
        raise InvalidRequest("give either context or documents, and not both")
    if body.context is not None:
        return [Source(0, body.context)]
    return [_source(index, item) for index, item in enumerate(body.documents or [])]


def _source(index: int, item: str | Document) -> Source:
    if isinstance(item, str):
        return Source(index, item)
    name = index if item.id is None else item.id
    return Source(name, item.text, None if item.file is None else decoded(f"documents.{index}.file", item.file))


def _choices(body: QaRequest) -> dict[str, Any]:
    """What the request says of the answers that it wants."""
    if body.no_answer_threshold is not None and not body.no_answer:
        raise InvalidRequest("no_answer_threshold: say no_answer: true with it; without it an answer is always given")
    names = ("top_k", "max_answer_tokens", "no_answer", "no_answer_threshold")
    return {name: value for name in names if (value := getattr(body, name)) is not None}


def shown_answer(answer: Answer, document: str | int) -> dict[str, object]:
    place = {"start": answer.start, "end": answer.end, "document": document}
    return {"text": answer.text, "score": answer.score} | place


def _shown(answered: Answered, documents: Seq[ReadSource], blank: list[int]) -> dict[str, object]:
    shown: dict[str, object] = {
        "answers": [
            shown_answer(answer, document.source.name) | on_page(answer, document)
            for answer in answered.answers
            for document in [documents[answer.document]]
        ],
        "no_answer_score": answered.no_answer_score,
        "tokens": answered.tokens,
        "windows": answered.windows,
    }
    if answered.unread:
        shown["unread"] = answered.unread
    if blank:
        shown["skipped"] = [{"document": documents[i].source.name, "error": _why(documents[i])} for i in blank]
    return shown


def _why(document: ReadSource) -> dict[str, str]:
    return {"code": document.error.code, "message": document.error.message} if document.error else BLANK
