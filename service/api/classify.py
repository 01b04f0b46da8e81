"""``POST /classify``"""

from typing import TypeVar

from fastapi import FastAPI, Request
from starlette.responses import Response

from ..tasks.classification import Classification, EncodedText
from ..types import Floats
from .each import Respond, Result, answer_each, leased
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
    service = work.service
    single = not isinstance(body.inputs, list)
    inputs = body.inputs if isinstance(body.inputs, list) else [body.inputs]
    async with leased(work, body, Classification) as (engine, task):

        def encode(item: str | Pair) -> EncodedText:
            text, text_pair = (item, None) if isinstance(item, str) else (item.text, item.text_pair)
            service.check_text(text)
            service.check_text(text_pair or "")
            return task.encode(text, text_pair, body.long_text)

        def decode(item: EncodedText, logits: list[Floats]) -> Result:
            done = task.decode(item, logits, top_k=body.top_k, activation=body.activation)
            labels = [{"label": label, "score": score} for label, score in done.labels]
            return {"labels": labels, "tokens": done.tokens, "truncated": done.truncated, "windows": done.windows}

        results = await answer_each(
            work, body, engine, inputs, chars=_size, encode=encode, decode=decode, single=single
        )
        cut = sum(bool(one.get("truncated")) for one in results)
        service.metrics.truncated.labels(engine.ref.name, engine.ref.version).inc(cut)
        return respond(engine, results)


def _size(item: str | Pair) -> int:
    return len(item) if isinstance(item, str) else len(item.text) + len(item.text_pair or "")
