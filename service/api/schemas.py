"""The bodies of requests and answers, as the OpenAPI documents show them."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from service.types import Priority


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise PydanticCustomError("text_type", "wanted a string")
    return value


# Pydantic refuses a whole body for one lone surrogate.  This lets it through, so that the tokenizer refuses that text.
Text = Annotated[str, PlainValidator(_text), WithJsonSchema({"type": "string"})]
PriorityName = Literal["interactive", "bulk"]
PRIORITIES: dict[PriorityName, Priority] = {"interactive": Priority.INTERACTIVE, "bulk": Priority.BULK}


class _Body(BaseModel):
    # A misspelt field is an error, not a default.
    model_config = ConfigDict(extra="forbid", strict=True)


class _Request(_Body):
    model: str | None = Field(None, description="Name of the model; the configured default where absent.")
    version: int | None = Field(None, ge=1, description="Version of the model; the newest where absent.")
    priority: PriorityName = Field("interactive", description="bulk lets interactive work go first.")
    early_exit: bool = Field(
        True, description="Whether a text may leave before the last layer, where its model can; false runs all layers."
    )


class Pair(_Body):
    text: Text
    text_pair: Text | None = None


class ClassifyRequest(_Request):
    inputs: Text | Pair | list[Text | Pair] = Field(description="A text, a pair of texts, or a list of either.")
    top_k: int | None = Field(None, ge=1, description="How many labels to give, best first; all where absent.")
    activation: Literal["softmax", "sigmoid", "none"] | None = Field(
        None, description="How logits become scores; the model's problem type decides where absent."
    )
    long_text: Literal["truncate", "windows", "error"] = Field(
        "truncate", description="What to do with a text beyond the model's length: cut it and say so, read it in "
        "windows whose scores are averaged, or refuse it.",
    )  # fmt: skip

    model_config = ConfigDict(
        extra="forbid", strict=True,
        json_schema_extra={"examples": [{"inputs": "a gorgeous, witty, seductive movie"}]},
    )  # fmt: skip


class Document(_Body):
    text: Text
    id: str | None = None


class QaRequest(_Request):
    question: Text
    context: Text | None = Field(None, description="The one text to look in; or give documents.")
    documents: list[Text | Document] | None = Field(None, description="Texts to look in, plain or with an id.")
    top_k: int = Field(1, ge=1, le=100, description="How many answers to give; they never overlap.")
    max_answer_tokens: int = Field(30, ge=1, le=100, description="Longest answer, in tokens.")
    no_answer: bool = Field(False, description="True: no answers where the documents hold none.")

    model_config = ConfigDict(
        extra="forbid", strict=True,
        json_schema_extra={
            "examples": [
                {
                    "question": "What does ALBERT share?",
                    "context": "ALBERT shares the parameters of all its layers.",
                }
            ]
        },
    )  # fmt: skip


class ModelName(BaseModel):
    name: str
    version: int


class LabelScore(BaseModel):
    label: str
    score: float


class ErrorDetail(BaseModel):
    code: str
    message: str


class ClassifyResult(BaseModel):
    labels: list[LabelScore]
    tokens: int
    truncated: bool
    windows: int


class ClassifyFailure(BaseModel):
    error: ErrorDetail


class ClassifyResponse(BaseModel):
    model: ModelName
    results: list[ClassifyResult | ClassifyFailure]


class AnswerSpan(BaseModel):
    text: str
    score: float
    start: int = Field(description="First code point of the answer in its document.")
    end: int = Field(description="One past the last code point.")
    document: str | int = Field(description="The document's id, or its index where it has none.")


class QaResponse(BaseModel):
    model: ModelName
    answers: list[AnswerSpan]
    no_answer_score: float
    tokens: int
    windows: int


class RequestError(ErrorDetail):
    request_id: str


class ErrorBody(BaseModel):
    error: RequestError
