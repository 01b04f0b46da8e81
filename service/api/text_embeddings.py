"""The classifier's routes of Text Embeddings Inference (TEI): ``/predict``, ``/health``, ``/info``.

https://huggingface.github.io/text-embeddings-inference/
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from fastapi import FastAPI, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from .. import __version__
from ..errors import Unavailable
from ..tasks.classification import Classification
from .classify import classified
from .hugging_face import labels_of
from .route import JsonRoute, add_json_route, validate
from .schemas import Body, ClassifyRequest, LabelScore, Text
from .service import Service
from .work import RequestWork

TAG = "text embeddings inference"
Single = Annotated[list[Text], Field(min_length=1, max_length=2)]  # a text, or a pair of texts


class PredictRequest(Body):
    lists: ClassVar[Mapping[str, str]] = {"inputs": "max_inputs"}
    model_config = ConfigDict(extra="ignore", strict=True)

    inputs: Text | Single | Annotated[list[Single], Field(fail_fast=True, min_length=1)] = Field(
        description="A text, a pair of texts as a list of two, or a list of such lists."
    )
    truncate: bool | None = Field(None, description="false: a text that is too long is an error; else it is cut.")
    truncation_direction: Literal["Right"] = Field("Right", description="Texts are cut at their end.")
    raw_scores: bool = Field(False, description="Give logits.")


class TypedError(BaseModel):
    error: str = Field(description="What is wrong, and what to do.")
    error_type: str = Field(description="Validation, Overloaded, Unhealthy or Backend.")


class _Route(JsonRoute):
    def priced_as(self, service: Service, request: Request) -> str:
        return "/classify"


def add_routes(app: FastAPI) -> None:
    add_json_route(
        app, "/predict", predict, list[LabelScore] | list[list[LabelScore]], "Labels in the shape of TEI", kind=_Route,
        tag=TAG, error=TypedError,
    )  # fmt: skip
    unhealthy: dict[int | str, dict[str, Any]] = {503: {"model": TypedError}}
    app.add_api_route(
        "/health", health, tags=[TAG], response_class=Response, responses=unhealthy,
        summary="Can it answer: 200 or 503, as TEI says it",
    )  # fmt: skip
    unknown: dict[int | str, dict[str, Any]] = {status: {"model": TypedError} for status in (401, 404, 429)}
    app.add_api_route(
        "/info", info, tags=[TAG], responses=unknown, summary="The default classifier, as TEI describes it"
    )


async def predict(body: PredictRequest, request: Request) -> Response:
    work: RequestWork = request.state.work
    inputs = body.inputs
    batch = isinstance(inputs, list) and isinstance(inputs[0], list)
    items: list[Any] = list(inputs) if batch else [[inputs] if isinstance(inputs, str) else inputs]
    content = {
        "inputs": [one[0] if len(one) == 1 else {"text": one[0], "text_pair": one[1]} for one in items],
        "long_text": "error" if body.truncate is False else "truncate",
        "activation": "none" if body.raw_scores else None,
    }
    asked = validate(ClassifyRequest, content, work.service.settings)

    def shown(results: list[dict[str, object]]) -> object:
        labels = labels_of(results)
        return labels if batch else labels[0]

    return await classified(work, asked, lambda engine, results: work.respond_json(engine, shown(results)))


async def health(request: Request) -> Response:
    service: Service = request.app.state.service
    if reason := service.not_ready_reason():
        raise Unavailable(reason)
    return Response()


async def info(request: Request) -> dict[str, Any]:
    service: Service = request.app.state.service
    name = service.default_model(Classification)
    engines = service.registry.named(name)
    if not engines:
        raise service.registry.missing(name)
    engine, settings = engines[-1], service.settings
    labels = engine.manifest.labels or []
    return {
        "model_id": name, "model_sha": None, "model_dtype": engine.precision,
        "model_type": {"classifier": {"id2label": {str(n): one for n, one in enumerate(labels)},
                                      "label2id": {one: n for n, one in enumerate(labels)}}},
        "max_concurrent_requests": settings.max_requests, "max_input_length": engine.max_length,
        "max_batch_tokens": engine.budget, "max_batch_requests": None,
        "max_client_batch_size": settings.max_inputs, "auto_truncate": True, "tokenization_workers": 1,
        "version": __version__, "sha": None, "docker_label": None,
    }  # fmt: skip
