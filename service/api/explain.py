"""``POST /explain``: why the model answered so."""

import asyncio
import time
from typing import Any

from fastapi import FastAPI, Request
from starlette.responses import Response

from service.api.explain_schemas import ExplainRequest, ExplainResponse
from service.api.qa import shown_answer
from service.api.route import add_json_route
from service.api.service import RequestWork, Service, while_connected
from service.errors import InvalidRequest, TooLarge
from service.serving.admission import late
from service.serving.depths import logits_by_depth
from service.serving.engine import Engine
from service.tasks.classification import Classification
from service.tasks.exits import exit_signal
from service.tasks.explaining import Asked, Encoded, Labelled, Variants
from service.tasks.occlusion import Part
from service.tasks.question_answering import QuestionAnswering
from service.types import Floats, Priority

MOST_DEPTH_TOKENS = 4096  # a layer of them is what goes to the device's thread at once


def add_route(app: FastAPI) -> None:
    add_json_route(app, "/explain", explain, ExplainResponse, "What each word is worth, or how a decision forms")


async def explain(body: ExplainRequest, request: Request) -> Response:
    service: Service = request.app.state.service
    work: RequestWork = request.state.work
    texts = _texts(body)
    for text in texts.values():
        service.check_text(text)
    reading = "question" in texts
    name = body.model or (service.settings.qa_model if reading else service.settings.classify_model)
    kind = QuestionAnswering if reading else Classification
    async with service.registry.lease(name, body.version, kind) as engine, while_connected(request):
        subject = _subject(engine, texts, body.label)
        answer = _by_depth if body.method == "depth" else _by_occlusion
        return work.respond(engine, {"method": body.method} | await answer(service, work, engine, subject, body))


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
    if label is not None and label not in task.labels:
        raise InvalidRequest(f"label: {label!r} is none of the model's: {', '.join(task.labels)}")
    return Labelled(task, texts, label)


async def _by_occlusion(
    service: Service, work: RequestWork, engine: Engine, subject: Labelled | Asked, body: ExplainRequest
) -> dict[str, object]:
    """All variants of the text at once, as bulk work: whoever waits for an answer goes first."""
    size = sum(map(len, subject.texts.values())) * min(body.max_variants, 64)
    variants = await work.encode(size, lambda: Variants.of(subject, body.max_variants, phrases=body.phrases))
    rows = variants.sequences
    cost: dict[str, object] = {"variants": len(variants.cuts), "tokens": sum(map(len, rows))}
    if body.dry_run:
        return cost
    logits = await work.run_whole(engine, rows, Priority.BULK, early_exit=False)
    score, worth = await work.decode(sum(map(len, rows)), lambda: variants.worth(logits))
    shown = {"score": score, "words": [_word(variants, (index,), worth) for index in range(len(variants.parts))]}
    if body.phrases:
        shown["phrases"] = [_phrase(variants, cut, worth) for cut in worth if len(cut) == 2]
    return _what(subject) | shown | cost


def _what(subject: Labelled | Asked) -> dict[str, object]:
    if isinstance(subject, Labelled):
        return {"label": subject.label}
    assert subject.answer is not None
    return {"answer": shown_answer(subject.answer, 0)}


def _word(variants: Variants, cut: tuple[int, ...], worth: dict[tuple[int, ...], float | None]) -> dict[str, object]:
    parts = [variants.parts[index] for index in cut]
    place = Part(parts[0].field, parts[0].start, parts[-1].end)
    text = variants.subject.texts[place.field][place.start : place.end]
    return {"field": place.field, "text": text, "start": place.start, "end": place.end, "score": worth[cut]}


def _phrase(variants: Variants, cut: tuple[int, ...], worth: dict[tuple[int, ...], float | None]) -> dict[str, object]:
    scores = [worth[cut], *(worth[(index,)] for index in cut)]
    together, *apart = scores
    known = together is not None and None not in apart
    return _word(variants, cut, worth) | {"interaction": together - sum(apart) if known else None}  # type: ignore[operator, arg-type]


async def _by_depth(
    service: Service, work: RequestWork, engine: Engine, subject: Labelled | Asked, body: ExplainRequest
) -> dict[str, object]:
    encoded: Encoded = await work.encode(sum(map(len, subject.texts.values())), lambda: subject.encode(subject.texts))
    rows = encoded.sequences
    tokens = sum(map(len, rows))
    if tokens > MOST_DEPTH_TOKENS:
        raise TooLarge(f"the text has {tokens} tokens; depth explains at most {MOST_DEPTH_TOKENS}: send a part of it")
    with work.stage("run"):
        try:
            async with asyncio.timeout(max(0.0, work.deadline - time.monotonic())):
                by_depth = await asyncio.to_thread(logits_by_depth, engine.model, rows, service.device.between_steps)
        except TimeoutError:
            raise late() from None
    depths = [{"depth": depth} | _at_depth(subject, encoded, logits) for depth, logits in enumerate(by_depth, start=1)]
    policy = engine.stepping.exits
    signals = [exit_signal(logits[0], engine.manifest.temperature) for logits in by_depth]
    leaves = policy.depth(signals) if policy and len(rows) == 1 else len(by_depth)
    return {"depths": depths, "leaves_at": leaves, "tokens": tokens}


def _at_depth(subject: Labelled | Asked, encoded: Any, logits: list[Floats]) -> dict[str, object]:
    if isinstance(subject, Labelled):
        done = subject.task.decode(encoded, logits)
        return {"labels": [{"label": label, "score": score} for label, score in done.labels]}
    found = subject.task.decode(encoded, logits)
    return {"answers": [shown_answer(one, 0) for one in found.answers], "no_answer_score": found.no_answer_score}
