"""Inference by the Open Inference Protocol, version 2, as Triton and KServe speak it.

=============  ==================================================================  ==================================
a classifier   ``text`` BYTES [n], ``text_pair`` BYTES [n] (optional)              ``label`` BYTES, ``score`` FP32
                                                                                   [n, k], best first
a reader       ``question`` BYTES [1], ``context`` BYTES [n], its documents        ``answer`` BYTES, ``score`` FP32,
                                                                                   ``start``, ``end``, ``document``
                                                                                   INT64 [k]; ``no_answer_score``,
                                                                                   ``unread`` [1]
vectors        ``text`` BYTES [n]                                                  ``embedding`` FP32 [n, hidden]
=============  ==================================================================  ==================================

``parameters`` of a request are the fields of ``/classify``, ``/qa`` and ``/embed``.  https://github.com/kserve/open-inference-protocol
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence as Seq
from typing import Any, ClassVar, TypeVar

from fastapi import FastAPI, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from ..errors import InvalidRequest, MalformedBody
from ..serving.engine import Engine
from ..tasks.classification import Classification
from ..tasks.embedding import Embedding
from ..tasks.question_answering import QuestionAnswering
from .classify import classified
from .each import check_whole
from .embed import embedded
from .qa import answered
from .route import JsonRoute, add_json_route, validate
from .schemas import Body, ClassifyRequest, QaRequest
from .service import KINDS, Service
from .task_schemas import EmbedRequest
from .tensors import InputTensor, RequestedOutput, Tensor, join, split, texts
from .work import RequestWork

T = TypeVar("T")
Answering = Callable[[Engine, Seq[Tensor]], T]
MOST_INPUTS, MOST_OUTPUTS = 8, 16  # tensors
LENGTH_HEADER = "Inference-Header-Content-Length"
VERSION = "/versions/{version:int}"
# What Triton's clients may send in parameters and has no meaning here.
IGNORED = {"sequence_id", "sequence_start", "sequence_end", "timeout", "binary_data_output", "content_type", "headers"}
FROM_PATH = {"model", "version"}


class InferRequest(Body):
    """Fields that are not known are left alone, for the protocol has extensions."""

    lists: ClassVar[Mapping[str, str]] = {"inputs": "max_inputs"}
    model_config = ConfigDict(extra="ignore", strict=True)

    id: str | None = Field(None, max_length=1024, description="Comes back with the answer.")
    parameters: dict[str, Any] = Field({}, description="Fields of /classify or /qa, such as top_k or no_answer.")
    inputs: list[InputTensor] = Field(
        min_length=1, max_length=MOST_INPUTS, description="text, or question and context."
    )
    outputs: list[RequestedOutput] | None = Field(
        None, max_length=MOST_OUTPUTS, description="Which are wanted; all if absent."
    )


class OutputTensor(BaseModel):
    name: str = Field(description="Which output it is.")
    datatype: str = Field(description="BYTES, FP32 or INT64.")
    shape: list[int] = Field(description="Its size in each dimension.")
    parameters: dict[str, Any] | None = Field(None, description="binary_data_size: its bytes in the binary part.")
    data: list[Any] | None = Field(None, description="Its values, row by row, where they are not binary.")


class InferResponse(BaseModel):
    model_name: str = Field(description="The model that answered.")
    model_version: str = Field(description="Its version.")
    id: str | None = Field(None, description="The request's.")
    outputs: list[OutputTensor] = Field(description="In the order in which they were asked for.")


class PlainError(BaseModel):
    error: str = Field(description="What is wrong, and what to do.")


class InferRoute(JsonRoute):
    """A body that may have a binary part behind its JSON: ``request.state.binary``."""

    def priced_as(self, service: Service, request: Request) -> str:
        return service.priced_as(request.path_params["name"], self.path)

    def json_of(self, body: bytes, request: Request) -> bytes:
        given = request.headers.get(LENGTH_HEADER)
        length = len(body) if given is None else int(given) if given.isdecimal() and len(given) < 20 else -1
        if not 0 <= length <= len(body):
            raise MalformedBody(f"{LENGTH_HEADER} is not the length of the JSON that the body begins with")
        request.state.binary = body[length:]
        return body[:length]


def add_routes(app: FastAPI) -> None:
    for path, name in (("", "infer"), (VERSION, "infer_version")):
        add_json_route(
            app, f"/v2/models/{{name}}{path}/infer", infer, InferResponse, "Inference on tensors of texts",
            kind=InferRoute, tag="open inference protocol", error=PlainError, name=name,
        )  # fmt: skip


async def infer(body: InferRequest, request: Request) -> Response:
    work: RequestWork = request.state.work
    name, version = request.path_params["name"], request.path_params.get("version")
    wanted = inference(work.service, name, version, body, request.state.binary)
    return await wanted(work, lambda engine, outputs: _response(work, body, engine, outputs))


def inference(
    service: Service, name: str, version: int | None, body: InferRequest, binary: bytes
) -> Callable[[RequestWork, Answering[T]], Awaitable[T]]:
    """What ``body`` asks of a model, to be called with the work and with what answers (engine, outputs).

    ModelNotFound, InvalidRequest and TooLarge before anything is run.
    """
    task = service.task_of(name)
    if task is None:
        raise service.registry.missing(name, version)
    given = _inputs(service, body, binary)
    options = {key: value for key, value in body.parameters.items() if key not in IGNORED}
    if isinstance(options.get("priority"), int):
        del options["priority"]  # Triton's number
    if taken := options.keys() & (FROM_PATH | {"inputs", "question", "context", "documents"}):
        raise InvalidRequest(f"parameters: {', '.join(sorted(taken))}: given by the path and the inputs")
    options |= {"model": name, "version": version}
    if task is Classification:
        asked = validate(ClassifyRequest, _classify_body(given) | options, service.settings)
        return lambda work, respond: classified(
            work, asked, lambda engine, results: respond(engine, label_tensors(results))
        )
    if task is Embedding:
        vectors = validate(EmbedRequest, _embed_body(given) | options, service.settings)
        return lambda work, respond: embedded(
            work, vectors, lambda engine, results: respond(engine, vector_tensors(results))
        )
    if task is not QuestionAnswering:
        route = KINDS[task].route
        raise InvalidRequest(f"model {name!r}: this protocol has no tensors for its task; ask {route}")
    question = validate(QaRequest, _qa_body(given) | options, service.settings)
    return lambda work, respond: answered(work, question, lambda engine, found: respond(engine, answer_tensors(found)))


def _inputs(service: Service, body: InferRequest, binary: bytes) -> dict[str, list[str]]:
    most = max(service.settings.max_inputs, service.settings.max_documents)
    parts = split(body.inputs, binary)
    given = {one.name: texts(one, part, most) for one, part in zip(body.inputs, parts, strict=True)}
    if len(given) < len(body.inputs):
        raise InvalidRequest("inputs: a name stands there twice")
    return given


def _classify_body(given: dict[str, list[str]]) -> dict[str, Any]:
    if given.keys() not in ({"text"}, {"text", "text_pair"}):
        raise InvalidRequest(f"inputs: {', '.join(given)}; a classifier takes text, or text and text_pair")
    if "text_pair" not in given:
        return {"inputs": given["text"]}
    if len(given["text"]) != len(given["text_pair"]):
        raise InvalidRequest("inputs: text and text_pair have not the same number of elements")
    pairs = zip(given["text"], given["text_pair"], strict=True)
    return {"inputs": [{"text": text, "text_pair": text_pair} for text, text_pair in pairs]}


def _embed_body(given: dict[str, list[str]]) -> dict[str, Any]:
    if given.keys() != {"text"}:
        raise InvalidRequest(f"inputs: {', '.join(given)}; a model of vectors takes text")
    return {"inputs": given["text"]}


def _qa_body(given: dict[str, list[str]]) -> dict[str, Any]:
    if given.keys() != {"question", "context"}:
        raise InvalidRequest(f"inputs: {', '.join(given)}; a model that answers takes question and context")
    if len(given["question"]) != 1:
        raise InvalidRequest("inputs: question has one element; context may have several, in which it is looked for")
    return {"question": given["question"][0], "documents": given["context"]}


def label_tensors(results: Seq[Mapping[str, Any]]) -> list[Tensor]:
    """(inputs, labels), best first."""
    check_whole(results, "inputs: text ")
    shape = (len(results), len(results[0]["labels"]))
    best = [one for result in results for one in result["labels"]]
    return [
        Tensor("label", "BYTES", shape, [one["label"] for one in best]),
        Tensor("score", "FP32", shape, [one["score"] for one in best]),
    ]


def vector_tensors(results: Seq[Mapping[str, Any]]) -> list[Tensor]:
    """(inputs, hidden)"""
    check_whole(results, "inputs: text ")
    shape = (len(results), len(results[0]["embedding"]))
    return [Tensor("embedding", "FP32", shape, [value for one in results for value in one["embedding"]])]


def answer_tensors(found: Mapping[str, Any]) -> list[Tensor]:
    """(answers,), best first; none where there is none."""
    answers, count = found["answers"], (len(found["answers"]),)
    return [
        Tensor("answer", "BYTES", count, [one["text"] for one in answers]),
        Tensor("score", "FP32", count, [one["score"] for one in answers]),
        Tensor("start", "INT64", count, [one["start"] for one in answers]),
        Tensor("end", "INT64", count, [one["end"] for one in answers]),
        Tensor("document", "INT64", count, [one["document"] for one in answers]),
        Tensor("no_answer_score", "FP32", (1,), [found["no_answer_score"]]),
        Tensor("unread", "INT64", (1,), [found.get("unread", 0)]),
    ]


def _response(work: RequestWork, body: InferRequest, engine: Engine, outputs: Seq[Tensor]) -> Response:
    said: dict[str, Any] = {"model_name": engine.ref.name, "model_version": str(engine.ref.version)}
    said |= {"id": body.id} if body.id else {}
    parts = join(said, outputs, body.outputs or None, bool(body.parameters.get("binary_data_output")))
    headers = work.timing(engine)
    if len(parts) == 1:
        return Response(parts[0], media_type="application/json", headers=headers)
    headers[LENGTH_HEADER] = str(len(parts[0]))
    return Response(b"".join(parts), media_type="application/octet-stream", headers=headers)
