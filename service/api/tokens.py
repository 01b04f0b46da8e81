"""``POST /tokens``"""

from typing import TypeVar

from fastapi import FastAPI, Request
from starlette.responses import Response

from ..tasks.token_classification import EncodedTokens, Span, TokenClassification
from ..types import Floats
from .each import Respond, Result, answer_each
from .route import add_json_route
from .task_schemas import TokensRequest, TokensResponse
from .work import RequestWork

T = TypeVar("T")


def add_route(app: FastAPI) -> None:
    add_json_route(app, "/tokens", tokens, TokensResponse, "Labelled spans, such as names")


async def tokens(body: TokensRequest, request: Request) -> Response:
    work: RequestWork = request.state.work
    return await tagged(work, body, lambda engine, results: work.respond(engine, {"results": results}))


async def tagged(work: RequestWork, body: TokensRequest, respond: Respond[T]) -> T:
    """What ``respond`` makes of the results, each as in ``TokensResult`` or ``ClassifyFailure``."""

    def encode(task: TokenClassification, text: str) -> EncodedTokens:
        work.service.check_text(text)
        return task.encode(text)

    def decode(task: TokenClassification, item: EncodedTokens, logits: list[Floats]) -> Result:
        spans = [{name: getattr(span, name) for name in Span.__slots__} for span in task.decode(item, logits)]
        return {"spans": spans, "tokens": item.tokens, "windows": len(item.sequences)}

    return await answer_each(work, body, TokenClassification, respond, chars=len, encode=encode, decode=decode)
