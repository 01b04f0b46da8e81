"""``POST /explain``: why the model answered so."""

import math

from fastapi import FastAPI, Request
from starlette.responses import Response

from ..errors import InvalidRequest
from ..serving.engine import Engine
from ..tasks.classification import Classification
from ..tasks.explaining import Asked, Labelled
from ..tasks.question_answering import QuestionAnswering
from .explain_attention import by_attention
from .explain_depth import by_depth
from .explain_occlusion import by_occlusion
from .explain_schemas import ExplainRequest, ExplainResponse
from .failures import ECHO
from .route import add_json_route
from .service import Service
from .work import RequestWork

METHODS = {"occlusion": by_occlusion, "attention": by_attention, "depth": by_depth}


def add_route(app: FastAPI) -> None:
    add_json_route(
        app,
        "/explain",
        explain,
        ExplainResponse,
        "What each word is worth, where the model looked, or how a decision forms",
    )


async def explain(body: ExplainRequest, request: Request) -> Response:
    service: Service = request.app.state.service
    work: RequestWork = request.state.work
    texts = _texts(body)
    for text in texts.values():
        service.check_text(text)
    reading = "question" in texts
    kind = QuestionAnswering if reading else Classification
    name = body.model or service.default_model(kind)
    async with service.registry.lease(name, body.version, kind) as engine, work.connected():
        subject = _subject(engine, texts, body.label)
        answer = await METHODS[body.method](work, engine, subject, body)
        # A million weights of attention are megabytes of JSON; and whatever is explained has taken longer than a hop.
        return await work.beside(math.inf, lambda: work.respond(engine, {"method": body.method} | answer))


def _texts(body: ExplainRequest) -> dict[str, str]:
    given = {name: getattr(body, name) for name in ("text", "text_pair", "question", "context")}
    texts = {name: text for name, text in given.items() if text is not None}
    if set(texts) not in ({"text"}, {"text", "text_pair"}, {"question", "context"}):
        raise InvalidRequest("give text, text and text_pair, or question and context")
    return texts


def _subject(engine: Engine, texts: dict[str, str], label: str | None) -> Labelled | Asked:
    task = engine.task
    if isinstance(task, QuestionAnswering):
        if label is not None:
            raise InvalidRequest("label: an answer has none")
        return Asked(task, texts)
    assert isinstance(task, Classification)
    if label is not None and label not in task.labels:
        raise InvalidRequest(f"label: {label[:ECHO]!r} is none of the model's: {', '.join(task.labels)}")
    return Labelled(task, texts, label)
