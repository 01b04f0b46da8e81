"""``POST /classify``"""

from collections.abc import Callable, Iterator
from typing import TypeVar

from fastapi import FastAPI, Request
from starlette.responses import Response

from ..errors import ServiceError
from ..serving.engine import Engine
from ..serving.pending import Outcome
from ..tasks.classification import Classification, EncodedText
from ..types import Floats
from .route import add_json_route
from .schemas import PRIORITIES, ClassifyRequest, ClassifyResponse, Pair
from .service import Service
from .work import RequestWork

T = TypeVar("T")
Encoded = EncodedText | ServiceError
Respond = Callable[[Engine, list[dict[str, object]]], T]


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
    name = body.model or service.default_model(Classification)
    async with service.registry.lease(name, body.version, Classification) as engine, work.connected():
        task = engine.task
        assert isinstance(task, Classification)
        size = sum(_size(item) for item in inputs)
        encoded = await work.encode(size, lambda: [_encode(service, task, item, body.long_text) for item in inputs])
        if single and isinstance(encoded[0], ServiceError):
            raise encoded[0]
        rows = [row for item in encoded if isinstance(item, EncodedText) for row in item.sequences]
        priority = PRIORITIES[body.priority]
        outcomes = iter(await work.run(engine, rows, priority, early_exit=body.early_exit) if rows else [])
        results = await work.decode(len(rows), lambda: [_result(task, body, item, outcomes) for item in encoded])
        if single and isinstance(results[0], ServiceError):
            raise results[0]
        cut = sum(isinstance(item, EncodedText) and item.truncated for item in encoded)
        service.metrics.truncated.labels(engine.ref.name, engine.ref.version).inc(cut)
        return respond(engine, [_shown(result) for result in results])


def _size(item: str | Pair) -> int:
    return len(item) if isinstance(item, str) else len(item.text) + len(item.text_pair or "")


def _encode(service: Service, task: Classification, item: str | Pair, long_text: str) -> Encoded:
    """One bad text is an error in its own place; the others go on."""
    text, text_pair = (item, None) if isinstance(item, str) else (item.text, item.text_pair)
    try:
        service.check_text(text)
        service.check_text(text_pair or "")
        return task.encode(text, text_pair, long_text)  # type: ignore[arg-type]  # the schema lets nothing else in
    except ServiceError as error:
        return error


def _result(
    task: Classification, body: ClassifyRequest, item: Encoded, outcomes: Iterator[Outcome]
) -> dict[str, object] | ServiceError:
    if isinstance(item, ServiceError):
        return item
    logits: list[Floats] = []
    # All of this item's outcomes are taken before any is judged, or the next item would get its rest.
    for outcome in [next(outcomes) for _ in item.sequences]:
        if isinstance(outcome, ServiceError):
            return outcome
        logits.append(outcome)
    done = task.decode(item, logits, top_k=body.top_k, activation=body.activation)
    labels = [{"label": label, "score": score} for label, score in done.labels]
    return {"labels": labels, "tokens": done.tokens, "truncated": done.truncated, "windows": done.windows}


def _shown(result: dict[str, object] | ServiceError) -> dict[str, object]:
    if isinstance(result, ServiceError):
        return {"error": {"code": result.code, "message": result.message}}
    return result
