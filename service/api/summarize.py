"""``POST /summarize``: the sentences that carry a text.  An encoder writes none of its own."""

import re
from typing import Any

import numpy as np
from fastapi import FastAPI, Request
from starlette.responses import Response

from ..errors import InvalidRequest, TooLarge
from ..tasks.embedding import Embedding, EncodedVector
from ..tasks.sentences import Central, SentenceSpan, choose, sentences
from ..types import Floats
from .each import leased
from .route import add_json_route
from .schemas import PRIORITIES
from .task_schemas import SummarizeRequest, SummarizeResponse
from .work import RequestWork

USUAL = 3  # sentences, where the request says nothing
CLOSED = "。！？”’」』）"  # what Chinese and Japanese end a sentence with, and put no space after
SURROGATE = re.compile("[\ud800-\udfff]")


def add_route(app: FastAPI) -> None:
    add_json_route(app, "/summarize", summarize, SummarizeResponse, "The sentences that carry a text")


async def summarize(body: SummarizeRequest, request: Request) -> Response:
    work: RequestWork = request.state.work
    work.service.check_text(body.text)
    if body.sentences is not None and body.share is not None:
        raise InvalidRequest("give sentences or share, not both")
    async with leased(work, body, Embedding) as (engine, task):
        most = work.service.settings.max_inputs
        spans, encoded = await work.encode(len(body.text), lambda: _encoded(task, body.text, most))
        rows = [row for one in encoded for row in one.sequences]
        states = await work.run_whole(engine, rows, PRIORITIES[body.priority], early_exit=body.early_exit)
        chosen = await work.decode(
            sum(map(len, rows)) + len(spans) ** 2, lambda: _chosen(task, body, spans, encoded, states)
        )
        parts: list[dict[str, Any]] = [
            {"text": body.text[span.start : span.end], "start": span.start, "end": span.end, "score": one.score}
            for one in chosen
            for span in (spans[one.index],)
        ]
        summary = "".join(part["text"] + ("" if part["text"][-1] in CLOSED else " ") for part in parts).strip()
        cut = sum(one.truncated for one in encoded)
        work.service.metrics.truncated.labels(engine.ref.name, engine.ref.version).inc(cut)
        facts: dict[str, Any] = {"of": len(spans), "tokens": sum(one.tokens for one in encoded), "truncated": cut > 0}
        return work.respond(engine, facts | {"summary": summary, "sentences": parts})


def _encoded(task: Embedding, text: str, most: int) -> tuple[list[SentenceSpan], list[EncodedVector]]:
    """The sentences that hold something that the model has a token for.  InvalidRequest where none does; TooLarge."""
    spans = sentences(text)
    if len(spans) > most:
        raise TooLarge(f"text: {len(spans)} sentences; at most {most} are taken (max_inputs): send it in parts")
    found: list[tuple[SentenceSpan, EncodedVector]] = []
    for span in spans:
        try:
            found.append((span, task.encode(text[span.start : span.end])))
        except InvalidRequest:
            if SURROGATE.search(text, span.start, span.end):
                raise
    if not found:
        raise InvalidRequest("the text is empty, or holds nothing that the model has a token for")
    return [span for span, _ in found], [one for _, one in found]


def _chosen(
    task: Embedding, body: SummarizeRequest, spans: list[SentenceSpan], encoded: list[EncodedVector],
    states: list[Floats],
) -> list[Central]:  # fmt: skip
    vectors = np.stack([task.decode(one, [rows]) for one, rows in zip(encoded, states, strict=True)])
    count = body.sentences if body.sentences is not None or body.share is not None else USUAL
    lengths = [span.end - span.start for span in spans]
    return choose(vectors, lengths, count=count, share=body.share, redundancy=body.redundancy)
