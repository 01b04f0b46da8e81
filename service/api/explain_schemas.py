"""The bodies of ``POST /explain``."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from .schemas import MODEL, AnswerSpan, LabelScore, ModelName, Request, Text

Number = Annotated[int, Field(ge=1, le=100_000)]


class ExplainRequest(Request):
    text: Text | None = Field(None, description="The text to classify; or give question and context.")
    text_pair: Text | None = Field(None, description="The second text of a pair.")
    question: Text | None = Field(None, description="The question to answer from the context.")
    context: Text | None = Field(None, description="The one text to look in.")
    method: Literal["occlusion", "attention", "depth"] = Field(
        "occlusion", description="occlusion: what each word is worth, by leaving it out. attention: where each token "
        "looked. depth: what the model would answer after each turn of its layers.",
    )  # fmt: skip
    label: str | None = Field(None, max_length=1024, description="The label to explain; the best one where absent.")
    phrases: bool = Field(False, description="With occlusion: what neighbouring words are worth together, too.")
    max_variants: int = Field(
        256, ge=2, le=1024, description="With occlusion: most texts to run. Of longer texts neighbouring words are "
        "taken together.",
    )  # fmt: skip
    dry_run: bool = Field(False, description="With occlusion: tell only what it would cost.")

    layers: list[Number] | None = Field(
        None, max_length=1024, description="With attention: of these layers, from 1; all where absent, none where "
        "empty.",
    )  # fmt: skip
    heads: list[Number] | None = Field(
        None, min_length=1, max_length=1024, description="With attention: of these heads, from 1."
    )

    model_config = ConfigDict(
        extra="forbid", strict=True, json_schema_extra={"examples": [{"text": "a gorgeous, witty, seductive movie"}]}
    )


class Place(BaseModel):
    field: Literal["text", "text_pair", "question", "context"] = Field(description="Of the request.")
    text: str = Field(description="As it stands there.")
    start: int = Field(description="First code point in its field.")
    end: int = Field(description="One past the last code point.")


class WordScore(Place):
    score: float | None = Field(
        description="How much the score falls without it; below 0, it rises. Null where it is part of the answer, or "
        "nothing is left without it."
    )


class PhraseScore(WordScore):
    interaction: float | None = Field(description="What both are worth together beyond the sum of each.")


class DepthScore(BaseModel):
    depth: int = Field(description="How often the shared layer has run.")
    labels: list[LabelScore] | None = Field(None, description="Of a classifier, best first.")
    answers: list[AnswerSpan] | None = Field(None, description="Of a reader, best first.")
    no_answer_score: float | None = Field(None, description="The chance that the context holds no answer.")


class Token(BaseModel):
    text: str = Field(description="As it stands in its field; empty for the tokens that frame the texts.")
    field: Literal["text", "text_pair", "question", "context"] | None = Field(
        description="Of the request; null for the tokens that frame the texts."
    )
    start: int | None = Field(description="First code point in its field.")
    end: int | None = Field(description="One past the last code point.")
    rollout: float = Field(description="How much of it reaches what the answer is read from.")


class LayerAttention(BaseModel):
    layer: int = Field(description="From 1.")
    heads: list[int] = Field(description="From 1, in the order of weights.")
    weights: list[list[list[float]]] = Field(
        description="(heads, tokens, tokens): where the token of the row looked; a row sums to 1."
    )


class ExplainResponse(BaseModel):
    model: ModelName = MODEL
    method: str = Field(description="The one that was asked for.")
    label: str | None = Field(None, description="The label that is explained.")
    answer: AnswerSpan | None = Field(None, description="The answer that is explained.")
    score: float | None = Field(None, description="Of the whole text: the label's, or the answer's.")
    words: list[WordScore] | None = Field(None, description="With occlusion, in the order of the text.")
    phrases: list[PhraseScore] | None = Field(None, description="With phrases: true, neighbouring words together.")
    pieces: list[Token] | None = Field(None, description="With attention, the tokens of its rows and columns.")
    attention: list[LayerAttention] | None = Field(None, description="With attention, by layer.")
    depths: list[DepthScore] | None = Field(None, description="With depth, from the first turn to the last.")
    leaves_at: int | None = Field(None, description="The depth at which early exit would have ended.")
    variants: int | None = Field(None, description="Texts that were run, or would be.")
    tokens: int = Field(description="What they cost together.")
