"""The bodies of the routes of heads other than a classifier's and a reader's."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from .schemas import MODEL, ClassifyFailure, ModelName, Request, Text

Texts = Text | Annotated[list[Text], Field(fail_fast=True, min_length=1)]
MOST_CHOICES = 64
MOST_SENTENCES = 100  # of a summary


def _example(**fields: Any) -> ConfigDict:
    return ConfigDict(extra="forbid", strict=True, json_schema_extra={"examples": [fields]})


class Inputs(Request):
    lists: ClassVar[Mapping[str, str]] = {"inputs": "max_inputs"}

    inputs: Texts = Field(description="A text, or a list of them.")


class FillMaskRequest(Inputs):
    top_k: int = Field(5, ge=1, le=100, description="How many words to give for each [MASK], best first.")

    model_config = _example(inputs="the plot was [MASK] and the actors were good")


class FilledWord(BaseModel):
    word: str = Field(description="A piece of the vocabulary: mostly a whole word.")
    token: int = Field(description="Its id.")
    score: float = Field(description="Its chance among all pieces.")
    text: str = Field(description="The text with the word in its place; other masks stay.")


class FilledMask(BaseModel):
    start: int = Field(description="First code point of the mask in the text.")
    end: int = Field(description="One past the last code point.")
    words: list[FilledWord] = Field(description="Best first.")


class FillMaskResult(BaseModel):
    masks: list[FilledMask] = Field(description="In the order of the text.")
    tokens: int = Field(description="What the model read, special tokens included.")


class FillMaskResponse(BaseModel):
    model: ModelName = MODEL
    results: list[FillMaskResult | ClassifyFailure] = Field(description="One for each input, in their order.")


class TokensRequest(Inputs):
    model_config = _example(inputs="Clara moved from Berlin to Oslo.")


class LabelledSpan(BaseModel):
    label: str = Field(description="One of the model's labels, without the prefix of its place in a span.")
    text: str = Field(description="The text's own characters from start to end.")
    start: int = Field(description="First code point.")
    end: int = Field(description="One past the last code point.")
    score: float = Field(description="The mean chance of its words' labels.")


class TokensResult(BaseModel):
    spans: list[LabelledSpan] = Field(description="In the order of the text; they never overlap.")
    tokens: int = Field(description="What the model read, special tokens included.")
    windows: int = Field(description="In how many parts the text was read.")


class TokensResponse(BaseModel):
    model: ModelName = MODEL
    results: list[TokensResult | ClassifyFailure] = Field(description="One for each input, in their order.")


class EmbedRequest(Inputs):
    normalize: bool = Field(True, description="Vectors of length 1, whose product is their cosine.")
    long_text: Literal["truncate", "windows", "error"] = Field(
        "truncate", description="What to do with a text beyond the model's length: cut it and say so, take the mean of "
        "its windows, or refuse it.",
    )  # fmt: skip

    model_config = _example(inputs=["a gorgeous, witty, seductive movie", "the actors were good"])


class EmbedResult(BaseModel):
    embedding: list[float] = Field(description="The vector of the text.")
    tokens: int = Field(description="What the model read, special tokens included.")
    truncated: bool = Field(description="Was the text cut to the model's length?")


class EmbedResponse(BaseModel):
    model: ModelName = MODEL
    results: list[EmbedResult | ClassifyFailure] = Field(description="One for each input, in their order.")


class ChooseRequest(Request):
    lists: ClassVar[Mapping[str, str]] = {"choices": "max_inputs"}

    prompt: Text = Field(description="What is gone on from: a question, the beginning of a story, a dialogue.")
    choices: Annotated[list[Text], Field(fail_fast=True, min_length=2, max_length=MOST_CHOICES)] = Field(
        description="The texts that may go on from it."
    )
    long_prompt: Literal["keep_end", "truncate", "error"] = Field(
        "keep_end", description="Of a prompt beyond the model's length: read its end, cut prompt and choice as "
        "transformers does, or refuse it.",
    )  # fmt: skip

    model_config = _example(prompt="How was the film?", choices=["It was good.", "At seven o'clock."])


class Choice(BaseModel):
    index: int = Field(description="Of the choice in the request, from 0.")
    text: str = Field(description="The choice.")
    score: float = Field(description="Its chance among the choices.")


class ChooseResponse(BaseModel):
    model: ModelName = MODEL
    choices: list[Choice] = Field(description="Best first.")
    tokens: int = Field(description="What the model read, the prompt with each choice.")
    truncated: bool = Field(description="Was the prompt cut?")


class SummarizeRequest(Request):
    text: Text = Field(description="The text whose sentences are chosen from.")
    sentences: int | None = Field(
        None, ge=1, le=MOST_SENTENCES, description="How many to give; three where neither this nor share is given."
    )
    share: float | None = Field(None, gt=0, le=1, description="Or which part of the text's characters, at most.")
    redundancy: float = Field(
        0.3, ge=0, le=1, description="How much a sentence loses by being like one that is chosen already."
    )

    model_config = _example(text="Clara repaired the clock. It had stood still for years. Now it strikes.", sentences=1)


class Sentence(BaseModel):
    text: str = Field(description="The text's own characters from start to end.")
    start: int = Field(description="First code point.")
    end: int = Field(description="One past the last code point.")
    score: float = Field(description="How near it is to the whole: its cosine with the mean of all sentences.")


class SummarizeResponse(BaseModel):
    model: ModelName = MODEL
    summary: str = Field(description="The chosen sentences, one after the other.")
    sentences: list[Sentence] = Field(description="In the order of the text.")
    of: int = Field(description="How many sentences the text has.")
    tokens: int = Field(description="What the model read.")
    truncated: bool = Field(description="Was a sentence longer than the model sees, and cut?")
