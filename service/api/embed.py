"""``POST /embed``"""

from typing import TypeVar

from fastapi import FastAPI, Request
from starlette.responses import Response

from ..tasks.embedding import Embedding, EncodedVector
from ..types import Floats
from .each import Respond, Result, answer_each
from .route import add_json_route
from .task_schemas import EmbedRequest, EmbedResponse
from .work import RequestWork

T = TypeVar("T")


def add_route(app: FastAPI) -> None:
    add_json_route(app, "/embed", embed, EmbedResponse, "Vectors of texts")


async def embed(body: EmbedRequest, request: Request) -> Response:
    work: RequestWork = request.state.work
    return await embedded(work, body, lambda engine, results: work.respond(engine, {"results": results}))


async def embedded(work: RequestWork, body: EmbedRequest, respond: Respond[T]) -> T:
    """What ``respond`` makes of the results, each as in ``EmbedResult`` or ``ClassifyFailure``."""

    def encode(task: Embedding, text: str) -> EncodedVector:
        work.service.check_text(text)
        return task.encode(text, body.long_text)

    def decode(task: Embedding, item: EncodedVector, states: list[Floats]) -> Result:
        vector = task.decode(item, states, normalize=body.normalize)
        return {"embedding": vector.tolist(), "tokens": item.tokens, "truncated": item.truncated}

    return await answer_each(work, body, Embedding, respond, chars=len, encode=encode, decode=decode)
