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


class Body(_Body):
    """A body that a route takes.  ``lists``: the setting that bounds each field that may be a list."""

    lists: ClassVar[Mapping[str, str]] = {}


class Request(Body):
    """What all requests for an inference have."""

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
    text: Text = Field(description="The first text.")
    text_pair: Text | None = Field(None, description="The second text, for models that compare two.")


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
    id: Identifier | None = Field(None, description="What answers call the document; its index where absent.")

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.text is None) == (self.file is None):
            raise PydanticCustomError("document", "give either text or file")
        return self


class QaRequest(Request):
    lists = {"documents": "max_documents"}

    question: Text = Field(description="What is asked, in words.")
    context: Text | None = Field(None, description="The one text to look in; or give documents.")
    documents: Annotated[list[Text | Document], Field(fail_fast=True, min_length=1)] | None = Field(
        None, description="Texts to look in, plain or with an id, and files."
    )
    texts: bool = Field(False, description="Give the texts of files, too: answers' offsets are theirs.")
    pictures: bool = Field(False, description="Give a picture of each page of a file that holds an answer, too.")
    top_k: int = Field(1, ge=1, le=100, description="How many answers to give; they never overlap.")
    read: int | None = Field(None, ge=1, le=1_000_000, description="Windows to read at most: those that have most in "
                             "common with the question; read_windows of the service where absent.")  # fmt: skip
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


def check_size(model: type[Body], content: Any, most: Mapping[str, int]) -> None:
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
    name: str = Field(description="Its name in the repository.")
    version: int = Field(description="Its version there.")


class LabelScore(BaseModel):
    label: str = Field(description="One of the model's labels.")
    score: float = Field(description="From 0 to 1; with activation none, the logit.")


class ErrorDetail(BaseModel):
    code: str = Field(description="For programs: it does not change.")
    message: str = Field(description="For people: what is wrong, and what to do.")


class ClassifyResult(BaseModel):
    labels: list[LabelScore] = Field(description="Best first.")
    tokens: int = Field(description="What the model read, special tokens included.")
    truncated: bool = Field(description="Was the text cut to the model's length?")
    windows: int = Field(description="In how many parts the text was read.")


class ClassifyFailure(BaseModel):
    error: ErrorDetail = Field(description="Why this input has no labels; the others have theirs.")


MODEL = Field(description="The model that answered.")


class ClassifyResponse(BaseModel):
    model: ModelName = MODEL
    results: list[ClassifyResult | ClassifyFailure] = Field(description="One for each input, in their order.")


class AnswerSpan(BaseModel):
    text: str = Field(description="The document's own characters from start to end.")
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


DOCUMENT = Field(description="The document's id, or its index where it has none.")


class FileText(BaseModel):
    document: str | int = DOCUMENT
    text: str = Field(description="The whole text of the file.")


class PagePicture(BaseModel):
    document: str | int = DOCUMENT
    page: int = Field(description="From 1.")
    picture: str = Field(description="A data URL of a PNG.")


class SkippedDocument(BaseModel):
    document: str | int = DOCUMENT
    error: ErrorDetail = Field(description="Why nothing was looked for in it.")


class QaResponse(BaseModel):
    model: ModelName = MODEL
    answers: list[AnswerSpan] = Field(description="Best first; they never overlap.")
    no_answer_score: float = Field(description="The chance that the documents hold no answer.")
    tokens: int = Field(description="What the model read, the question in each window included.")
    windows: int = Field(description="In how many windows the documents were read.")
    unread: int | None = Field(None, description="How many were not (read); absent where all were.")
    skipped: list[SkippedDocument] | None = Field(
        None, description="Documents without text, and files that cannot be read; absent where none is."
    )
    texts: list[FileText] | None = Field(None, description="With texts: true, the texts of the files.")
    pages: list[PagePicture] | None = Field(None, description="With pictures: true, the pages that hold answers.")


class RequestError(ErrorDetail):
    request_id: str = Field(description="The log knows the request by it.")


class ErrorBody(BaseModel):
    error: RequestError = Field(description="The one shape of all errors.")


class LoadedModel(ModelName):
    task: str = Field(description="text-classification or question-answering.")
    labels: list[str] | None = Field(description="Of a classifier.")
    precision: str = Field(description="What it runs in on this machine.")


class FailedModel(ModelName):
    reason: str = Field(description="Why it does not load.")


class ModelList(BaseModel):
    models: list[LoadedModel] = Field(description="What is loaded.")
    failures: list[FailedModel] = Field(description="What the repository has and this service cannot load.")


class ModelVersions(BaseModel):
    name: str = Field(description="The model's name in the repository.")
    versions: list[dict[str, Any]] = Field(description="The manifest of each version that is loaded, oldest first.")


class Liveness(BaseModel):
    status: Literal["live"] = Field(description="The process answers.")


class Readiness(BaseModel):
    status: Literal["ready", "not ready"] = Field(description="Can it answer?")
    models: list[str] = Field(description="NAME/VERSION of what is loaded.")
    reason: str | None = Field(None, description="Why it is not ready.")
    failures: dict[str, str] = Field(description="Why a version does not load, by NAME/VERSION.")


STATUSES = (400, 401, 404, 408, 409, 413, 415, 422, 429, 431, 500, 503, 504)


def responses(error: type[BaseModel]) -> dict[int | str, dict[str, Any]]:
    """What every route that runs a model may answer with."""
    return {status: {"model": error} for status in STATUSES}
