"""``POST /fill-mask``"""

from typing import TypeVar

from fastapi import FastAPI, Request
from starlette.responses import Response

from ..tasks.fill_mask import EncodedMasks, FillMask
from ..types import Floats
from .each import Respond, Result, answer_each, leased
from .route import add_json_route
from .task_schemas import FillMaskRequest, FillMaskResponse
from .work import RequestWork

T = TypeVar("T")


def add_route(app: FastAPI) -> None:
    add_json_route(app, "/fill-mask", fill_mask, FillMaskResponse, "The most likely words for [MASK]")


async def fill_mask(body: FillMaskRequest, request: Request) -> Response:
    work: RequestWork = request.state.work
    return await filled(work, body, lambda engine, results: work.respond(engine, {"results": results}))


async def filled(work: RequestWork, body: FillMaskRequest, respond: Respond[T]) -> T:
    """What ``respond`` makes of the results, each as in ``FillMaskResult`` or ``ClassifyFailure``."""
    inputs = body.inputs if isinstance(body.inputs, list) else [body.inputs]
    async with leased(work, body, FillMask) as (engine, task):

        def encode(text: str) -> EncodedMasks:
            work.service.check_text(text)
            return task.encode(text)

        def decode(item: EncodedMasks, logits: list[Floats]) -> Result:
            masks = [
                {
                    "start": start, "end": end,
                    "words": [{"word": w.word, "token": w.token, "score": w.score, "text": w.text} for w in words],
                }
                for (start, end), words in zip(item.places, task.decode(item, logits, top_k=body.top_k), strict=True)
            ]  # fmt: skip
            return {"masks": masks, "tokens": item.tokens}

        single = not isinstance(body.inputs, list)
        results = await answer_each(work, body, engine, inputs, chars=len, encode=encode, decode=decode, single=single)
        return respond(engine, results)
