"""``POST /qa``"""

from typing import Any

from fastapi import FastAPI, Request
from starlette.responses import Response

from service.api.route import add_json_route
from service.api.schemas import PRIORITIES, QaRequest, QaResponse
from service.api.service import RequestWork, Service, while_connected
from service.errors import InvalidRequest
from service.tasks.question_answering import Answer, Answered, QuestionAnswering

BLANK = {"code": "invalid_request", "message": "the document is empty, or holds nothing that the model has a token for"}


def add_route(app: FastAPI) -> None:
    add_json_route(app, "/qa", answer_question, QaResponse, "Answers to a question, as spans of the texts given")


async def answer_question(body: QaRequest, request: Request) -> Response:
    service: Service = request.app.state.service
    work: RequestWork = request.state.work
    documents = _documents(body)
    choices = _choices(body)
    texts = [text for _, text in documents]
    for text in (body.question, *texts):
        service.check_text(text)
    name = body.model or service.settings.qa_model
    async with service.registry.lease(name, body.version, QuestionAnswering) as engine, while_connected(request):
        task = engine.task
        assert isinstance(task, QuestionAnswering)
        size = len(body.question) + sum(map(len, texts))
        encoded = await work.encode(size, lambda: task.encode(body.question, texts))
        priority = PRIORITIES[body.priority]
        logits = await work.run_whole(engine, encoded.sequences, priority, early_exit=body.early_exit)
        answered = await work.decode(
            encoded.tokens,
            lambda: task.decode(encoded, logits, **choices),
        )
        names = [index if given is None else given for index, (given, _) in enumerate(documents)]
        return work.respond(engine, _shown(answered, names, encoded.blank))


def _documents(body: QaRequest) -> list[tuple[str | None, str]]:
    """(id, text) of each document."""
    if (body.context is None) == (body.documents is None):
        raise InvalidRequest("give either context or documents, and not both")
    if body.context is not None:
        return [(None, body.context)]
    return [(None, item) if isinstance(item, str) else (item.id, item.text) for item in body.documents or []]


def _choices(body: QaRequest) -> dict[str, Any]:
    """What the request says of the answers that it wants."""
    if body.no_answer_threshold is not None and not body.no_answer:
        raise InvalidRequest("no_answer_threshold: say no_answer: true with it; without it an answer is always given")
    names = ("top_k", "max_answer_tokens", "no_answer", "no_answer_threshold")
    return {name: value for name in names if (value := getattr(body, name)) is not None}


def shown_answer(answer: Answer, document: str | int) -> dict[str, object]:
    place = {"start": answer.start, "end": answer.end, "document": document}
    return {"text": answer.text, "score": answer.score} | place


def _shown(answered: Answered, names: list[str | int], blank: list[int]) -> dict[str, object]:
    shown: dict[str, object] = {
        "answers": [shown_answer(answer, names[answer.document]) for answer in answered.answers],
        "no_answer_score": answered.no_answer_score,
        "tokens": answered.tokens,
        "windows": answered.windows,
    }
    if blank:
        shown["skipped"] = [{"document": names[index], "error": BLANK} for index in blank]
    return shown
