"""The bodies of requests and answers, as the OpenAPI documents show them, and the statuses of all routes.

Limits that bound work are asked before anything is validated (``check_size``): an explanation of a million errors costs
more than the request would.
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainValidator, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from ..errors import InvalidRequest, TooLarge
from ..types import Priority

MOST_FIELDS = 32  # of one JSON object
MODEL_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise PydanticCustomError("text_type", "wanted a string")
    return value


def _well_formed(value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise PydanticCustomError("unicode", "holds a lone surrogate, which is half a character") from None
    return value


# Pydantic refuses a whole body for one lone surrogate.  This lets it through, so that the tokenizer refuses that text.
Text = Annotated[str, PlainValidator(_text), WithJsonSchema({"type": "string"})]
Identifier = Annotated[str, PlainValidator(_text), AfterValidator(_well_formed), Field(max_length=1024)]
PriorityName = Literal["interactive", "bulk"]
PRIORITIES: dict[PriorityName, Priority] = {"interactive": Priority.INTERACTIVE, "bulk": Priority.BULK}


class _Body(BaseModel):
    # A misspelt field is an error, not a default.
    model_config = ConfigDict(extra="forbid", strict=True)


class Request(_Body):
    """What all requests for an inference have.  ``lists``: the setting that bounds each field that may be a list."""

    lists: ClassVar[Mapping[str, str]] = {}

    model: str | None = Field(
        None, pattern=MODEL_NAME, description="Name of the model; the configured default where absent."
    )
    version: int | None = Field(
        None, ge=1, le=999_999_999, description="Version of the model; the newest where absent."
    )
    priority: PriorityName = Field("interactive", description="bulk lets interactive work go first.")
    early_exit: bool = Field(
        True, description="Whether a text may leave before the last layer, where its model can; false runs all layers."
    )


class Pair(_Body):
    text: Text
    text_pair: Text | None = None


class ClassifyRequest(Request):
    lists = {"inputs": "max_inputs"}

    inputs: Text | Pair | Annotated[list[Text | Pair], Field(fail_fast=True, min_length=1)] = Field(
        description="A text, a pair of texts, or a list of either."
    )
    top_k: int | None = Field(
        None, ge=1, le=1_000_000, description="How many labels to give, best first; all where absent."
    )
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
    text: Text | None = Field(None, description="Plain text; or give a file.")
    file: str | None = Field(
        None, description="In base64: a PDF file, a picture of a page (PNG, JPEG, WEBP, TIFF, BMP, GIF) or plain text."
    )
    id: Identifier | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.text is None) == (self.file is None):
            raise PydanticCustomError("document", "give either text or file")
        return self


class QaRequest(Request):
    lists = {"documents": "max_documents"}

    question: Text
    context: Text | None = Field(None, description="The one text to look in; or give documents.")
    documents: Annotated[list[Text | Document], Field(fail_fast=True, min_length=1)] | None = Field(
        None, description="Texts to look in, plain or with an id, and files."
    )
    texts: bool = Field(False, description="Give the texts of files, too: answers' offsets are theirs.")
    pictures: bool = Field(False, description="Give a picture of each page of a file that holds an answer, too.")
    top_k: int = Field(1, ge=1, le=100, description="How many answers to give; they never overlap.")
    max_answer_tokens: int = Field(30, ge=1, le=100, description="Longest answer, in tokens.")
    no_answer: bool = Field(
        False, description="True: the documents may hold no answer. None is given then, and scores leave room for it."
    )
    no_answer_threshold: float | None = Field(
        None, ge=0, le=1, description="With no_answer: the no_answer_score above which no answer is given; 0.5 where "
        "absent. Lower: more silence.",
    )  # fmt: skip

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


def check_size(model: type[Request], content: Any, most: Mapping[str, int]) -> None:
    """The limits that bound the work of validating ``content``; ``most`` has the settings' values by name.

    TooLarge for a list that is longer than its setting, InvalidRequest for an object of more fields than any has.
    """
    _check_fields(content, "body")
    if not isinstance(content, dict):
        return
    for name, value in content.items():
        _check_fields(value, name)
        if isinstance(value, list):
            setting = model.lists.get(name)
            if setting is not None:  # another field takes no list, and says so without looking into it
                _check_list(name, value, setting, most[setting])


def _check_list(name: str, items: list[Any], setting: str, most: int) -> None:
    if not items:
        raise InvalidRequest(f"{name}: the list is empty")
    if len(items) > most:
        raise TooLarge(f"{name}: {len(items)} in one request; at most {most} are taken ({setting})")
    for index, item in enumerate(items):
        _check_fields(item, f"{name}.{index}")


def _check_fields(value: Any, place: str) -> None:
    if isinstance(value, dict) and len(value) > MOST_FIELDS:
        raise InvalidRequest(f"{place[:100]}: {len(value)} fields, and none has so many")


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
    score: float = Field(
        description="The chance that the answer is right: with no_answer of all, else where the documents hold one."
    )
    start: int = Field(description="First code point of the answer in its document.")
    end: int = Field(description="One past the last code point.")
    document: str | int = Field(description="The document's id, or its index where it has none.")
    page: int | None = Field(None, description="Of a file, from 1.")
    boxes: list[tuple[float, float, float, float]] | None = Field(
        None, description="Where the answer stands on the page, one box a line: left, top, right and bottom as shares "
        "of the page.",
    )  # fmt: skip


class FileText(BaseModel):
    document: str | int
    text: str


class PagePicture(BaseModel):
    document: str | int
    page: int
    picture: str = Field(description="A data URL of a PNG.")


class SkippedDocument(BaseModel):
    document: str | int = Field(description="The document's id, or its index where it has none.")
    error: ErrorDetail


class QaResponse(BaseModel):
    model: ModelName
    answers: list[AnswerSpan]
    no_answer_score: float = Field(description="The chance that the documents hold no answer.")
    tokens: int
    windows: int
    skipped: list[SkippedDocument] | None = Field(
        None, description="Documents without text, and files that cannot be read; absent where none is."
    )
    texts: list[FileText] | None = None
    pages: list[PagePicture] | None = None


class RequestError(ErrorDetail):
    request_id: str


class ErrorBody(BaseModel):
    error: RequestError


STATUSES = (400, 401, 404, 408, 409, 413, 422, 429, 431, 500, 503, 504)
# What every route that runs a model may answer with.
RESPONSES: dict[int | str, dict[str, Any]] = {status: {"model": ErrorBody} for status in STATUSES}
