"""``POST /classify``"""

from typing import TypeVar

from fastapi import FastAPI, Request
from starlette.responses import Response

from ..tasks.classification import Classification, EncodedText
from ..types import Floats
from .each import Respond, Result, answer_each
from .route import add_json_route
from .schemas import ClassifyRequest, ClassifyResponse, Pair
from .work import RequestWork

T = TypeVar("T")


def add_route(app: FastAPI) -> None:
    add_json_route(app, "/classify", classify, ClassifyResponse, "Labels for texts or pairs of texts")


async def classify(body: ClassifyRequest, request: Request) -> Response:
    work: RequestWork = request.state.work
    return await classified(work, body, lambda engine, results: work.respond(engine, {"results": results}))


async def classified(work: RequestWork, body: ClassifyRequest, respond: Respond[T]) -> T:
    """What ``respond`` makes of the results, each as in ``ClassifyResult`` or ``ClassifyFailure``."""

    def encode(task: Classification, item: str | Pair) -> EncodedText:
        text, text_pair = (item, None) if isinstance(item, str) else (item.text, item.text_pair)
        work.service.check_text(text)
        work.service.check_text(text_pair or "")
        return task.encode(text, text_pair, body.long_text)

    def decode(task: Classification, item: EncodedText, logits: list[Floats]) -> Result:
        done = task.decode(item, logits, top_k=body.top_k, activation=body.activation)
        labels = [{"label": label, "score": score} for label, score in done.labels]
        return {"labels": labels, "tokens": done.tokens, "truncated": done.truncated, "windows": done.windows}

    return await answer_each(work, body, Classification, respond, chars=_size, encode=encode, decode=decode)


def _size(item: str | Pair) -> int:
    return len(item) if isinstance(item, str) else len(item.text) + len(item.text_pair or "")
