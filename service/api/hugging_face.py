"""Hugging Face's shape of requests, as ``huggingface_hub.InferenceClient`` sends them.

``POST /`` goes to the default model of the task that ``inputs`` are for, ``POST /models/NAME`` to that one.
https://huggingface.co/docs/inference-providers/tasks/text-classification
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence as Seq
from typing import Annotated, Any, ClassVar, Literal

from fastapi import FastAPI, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from ..serving.engine import Engine, Task
from ..tasks.embedding import Embedding
from ..tasks.fill_mask import FillMask
from ..tasks.token_classification import TokenClassification
from .classify import classified
from .each import check_whole
from .embed import embedded
from .fill_mask import filled
from .open_inference import PlainError
from .qa import answered
from .route import JsonRoute, add_json_route, validate
from .schemas import Body, ClassifyRequest, LabelScore, Pair, QaRequest, Text
from .service import Service
from .task_schemas import EmbedRequest, FillMaskRequest, TokensRequest
from .tokens import tagged
from .work import RequestWork


class Question(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    question: Text = Field(description="What is asked, in words.")
    context: Text = Field(description="The text to look in.")


class Parameters(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    top_k: int | None = Field(None, ge=1, description="How many labels or answers to give.")
    function_to_apply: Literal["softmax", "sigmoid", "none"] | None = Field(
        None, description="How logits become scores."
    )
    max_answer_len: int | None = Field(None, ge=1, le=100, description="Longest answer, in tokens.")
    handle_impossible_answer: bool | None = Field(
        None, description="The context may hold no answer; the answer is empty then."
    )
    align_to_words: bool | None = Field(None, description="Left alone: an answer has the model's own limits.")
    doc_stride: int | None = Field(None, description="Left alone: the model's own windows are used.")
    max_seq_len: int | None = Field(None, description="Left alone, as doc_stride.")
    max_question_len: int | None = Field(None, description="Left alone: a question that is too long is an error.")
    aggregation_strategy: Literal["simple", "first", "average", "max"] | None = Field(
        None, description="Of spans of labels. All alike: a word has one label, and its neighbours' are joined."
    )
    ignore_labels: list[Annotated[str, Field(max_length=200)]] | None = Field(
        None, max_length=100, description="Labels whose spans are left out."
    )
    stride: int | None = Field(None, description="Left alone, as doc_stride.")


class InferenceRequest(Body):
    lists: ClassVar[Mapping[str, str]] = {"inputs": "max_inputs"}

    inputs: Text | Question | Pair | Annotated[list[Text | Pair], Field(fail_fast=True, min_length=1)] = Field(
        description="A text, a list of texts, or a question with its context."
    )
    parameters: Parameters = Field(default_factory=Parameters, description="Of the task.")
    normalize: bool | None = Field(None, description="Of vectors, which have length 1 unless this is false.")
    truncate: bool | None = Field(
        None, description="Of vectors: false refuses a text beyond the model's length instead of cutting it."
    )
    options: dict[str, Any] | None = Field(None, description="Left alone.")


class FoundAnswer(BaseModel):
    answer: str = Field(description="The context's own characters; empty where it holds no answer.")
    score: float = Field(description="The chance that it is right.")
    start: int = Field(description="First code point of the answer.")
    end: int = Field(description="One past the last code point.")


class Word(BaseModel):
    score: float = Field(description="Its chance among all pieces.")
    token: int = Field(description="Its id.")
    token_str: str = Field(description="The word.")
    sequence: str = Field(description="The text with it.")


class Entity(BaseModel):
    entity_group: str = Field(description="The label, without its prefix.")
    score: float = Field(description="The mean chance of its words' labels.")
    word: str = Field(description="The text's own characters from start to end.")
    start: int = Field(description="First code point.")
    end: int = Field(description="One past the last code point.")


class _Route(JsonRoute):
    def priced_as(self, service: Service, request: Request) -> str:
        name = request.path_params.get("name")
        return service.priced_as(name, self.path) if name else "/classify"


def add_routes(app: FastAPI) -> None:
    for path, name in (("/", "inference"), ("/models/{name}", "model_inference")):
        add_json_route(
            app, path, infer,
            list[list[LabelScore]] | list[FoundAnswer] | FoundAnswer | list[list[float]] | list[list[Word]] | list[Word]
            | list[list[Entity]] | list[Entity],
            "Hugging Face's shape of requests", kind=_Route, tag="hugging face", error=PlainError, name=name,
        )  # fmt: skip


async def infer(body: InferenceRequest, request: Request) -> Response:
    work: RequestWork = request.state.work
    name = request.path_params.get("name")
    chosen = {"model": name}
    task = work.service.task_of(name) if name else None
    if name and task is None:
        raise work.service.registry.missing(name)
    if task in SHAPES and not isinstance(body.inputs, Question):
        return await SHAPES[task](work, body, chosen)
    if isinstance(body.inputs, Question):
        return await _answer(work, body.inputs, body.parameters, chosen)
    return await _label(work, body.inputs, body.parameters, chosen)


async def _label(
    work: RequestWork, inputs: str | Pair | Seq[str | Pair], parameters: Parameters, chosen: dict[str, Any]
) -> Response:
    listed = [inputs] if isinstance(inputs, str | Pair) else inputs
    shown = [one if isinstance(one, str) else one.model_dump() for one in listed]
    content = {"inputs": shown, "top_k": parameters.top_k, "activation": parameters.function_to_apply} | chosen
    asked = validate(ClassifyRequest, content, work.service.settings)
    return await classified(work, asked, lambda engine, results: work.respond_json(engine, labels_of(results)))


async def _answer(work: RequestWork, inputs: Question, parameters: Parameters, chosen: dict[str, Any]) -> Response:
    content = {
        "top_k": parameters.top_k, "max_answer_tokens": parameters.max_answer_len,
        "no_answer": parameters.handle_impossible_answer,
    }  # fmt: skip
    given = {name: value for name, value in content.items() if value is not None}
    asked = validate(QaRequest, inputs.model_dump() | given | chosen, work.service.settings)

    def respond(engine: Engine, found: dict[str, Any]) -> Response:
        spans = [{name: one[name] for name in ("score", "start", "end")} | {"answer": one["text"]}
                 for one in found["answers"]]  # fmt: skip
        spans = spans or [{"answer": "", "score": found["no_answer_score"], "start": 0, "end": 0}]
        return work.respond_json(engine, spans if (parameters.top_k or 1) > 1 else spans[0])

    return await answered(work, asked, respond)


async def _embed(work: RequestWork, body: InferenceRequest, chosen: dict[str, Any]) -> Response:
    wanted: dict[str, Any] = {} if body.normalize is None else {"normalize": body.normalize}
    wanted |= {"long_text": "error"} if body.truncate is False else {}
    asked = validate(EmbedRequest, {"inputs": body.inputs} | wanted | chosen, work.service.settings)

    def respond(engine: Engine, results: Seq[Mapping[str, Any]]) -> Response:
        check_whole(results)
        return work.respond_json(engine, [result["embedding"] for result in results])

    return await embedded(work, asked, respond)


async def _fill(work: RequestWork, body: InferenceRequest, chosen: dict[str, Any]) -> Response:
    top_k = {"top_k": body.parameters.top_k} if body.parameters.top_k else {}
    asked = validate(FillMaskRequest, {"inputs": body.inputs} | top_k | chosen, work.service.settings)

    def respond(engine: Engine, results: Seq[Mapping[str, Any]]) -> Response:
        check_whole(results)
        shown = [
            [
                [
                    {"score": w["score"], "token": w["token"], "token_str": w["word"], "sequence": w["text"]}
                    for w in words
                ]
                for words in (mask["words"] for mask in result["masks"])
            ]
            for result in results
        ]
        # One list for one mask, as the pipeline has it; a list of them for several.
        flat = [masks[0] if len(masks) == 1 else masks for masks in shown]
        return work.respond_json(engine, flat[0] if isinstance(body.inputs, str) else flat)

    return await filled(work, asked, respond)


async def _tag(work: RequestWork, body: InferenceRequest, chosen: dict[str, Any]) -> Response:
    asked = validate(TokensRequest, {"inputs": body.inputs} | chosen, work.service.settings)
    ignored = set(body.parameters.ignore_labels or ())

    def respond(engine: Engine, results: Seq[Mapping[str, Any]]) -> Response:
        check_whole(results)
        shown = [
            [
                {
                    "entity_group": s["label"],
                    "score": s["score"],
                    "word": s["text"],
                    "start": s["start"],
                    "end": s["end"],
                }
                for s in result["spans"]
                if s["label"] not in ignored
            ]
            for result in results
        ]
        return work.respond_json(engine, shown[0] if isinstance(body.inputs, str) else shown)

    return await tagged(work, asked, respond)


SHAPES: dict[type[Task] | None, Callable[[RequestWork, InferenceRequest, dict[str, Any]], Awaitable[Response]]] = {
    Embedding: _embed, FillMask: _fill, TokenClassification: _tag,
}  # fmt: skip


def labels_of(results: Seq[Mapping[str, Any]]) -> list[list[dict[str, Any]]]:
    """The labels of each input."""
    check_whole(results)
    return [result["labels"] for result in results]
