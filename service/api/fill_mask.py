"""``POST /fill-mask``"""

from typing import TypeVar

from fastapi import FastAPI, Request
from starlette.responses import Response

from ..errors import TooLarge
from ..tasks.fill_mask import EncodedMasks, FillMask
from ..types import Floats
from .each import Respond, Result, answer_each
from .route import add_json_route
from .task_schemas import FillMaskRequest, FillMaskResponse
from .work import RequestWork

T = TypeVar("T")
MOST_CHARS = 8_000_000  # of all filled texts of an answer


def add_route(app: FastAPI) -> None:
    add_json_route(app, "/fill-mask", fill_mask, FillMaskResponse, "The most likely words for [MASK]")


async def fill_mask(body: FillMaskRequest, request: Request) -> Response:
    work: RequestWork = request.state.work
    return await filled(work, body, lambda engine, results: work.respond(engine, {"results": results}))


async def filled(work: RequestWork, body: FillMaskRequest, respond: Respond[T]) -> T:
    """What ``respond`` makes of the results, each as in ``FillMaskResult`` or ``ClassifyFailure``."""

    def encode(task: FillMask, text: str) -> EncodedMasks:
        work.service.check_text(text)
        return task.encode(text)

    def decode(task: FillMask, item: EncodedMasks, logits: list[Floats]) -> Result:
        masks = [
            {
                "start": start, "end": end,
                "words": [{"word": w.word, "token": w.token, "score": w.score, "text": w.text} for w in words],
            }
            for (start, end), words in zip(item.places, task.decode(item, logits, top_k=body.top_k), strict=True)
        ]  # fmt: skip
        return {"masks": masks, "tokens": item.tokens}

    def check(encoded: list[EncodedMasks]) -> None:
        """Each word comes with its whole text, and white space costs no token."""
        size = sum(len(item.places) * body.top_k * len(item.text) for item in encoded)
        if size > MOST_CHARS:
            raise TooLarge(
                f"the answer would have {size} characters of filled texts, at most {MOST_CHARS} are given: ask for "
                "fewer words (top_k), or send fewer or shorter texts"
            )

    return await answer_each(work, body, FillMask, respond, chars=len, encode=encode, decode=decode, check=check)
