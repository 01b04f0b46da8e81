"""The bodies of ``POST /explain``."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from .schemas import AnswerSpan, LabelScore, ModelName, Request, Text

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
    field: Literal["text", "text_pair", "question", "context"]
    text: str
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
    depth: int
    labels: list[LabelScore] | None = None
    answers: list[AnswerSpan] | None = None
    no_answer_score: float | None = None


class Token(BaseModel):
    text: str = Field(description="As it stands in its field; empty for the tokens that frame the texts.")
    field: Literal["text", "text_pair", "question", "context"] | None
    start: int | None = Field(description="First code point in its field.")
    end: int | None = Field(description="One past the last code point.")
    rollout: float = Field(description="How much of it reaches what the answer is read from.")


class LayerAttention(BaseModel):
    layer: int
    heads: list[int]
    weights: list[list[list[float]]] = Field(
        description="(heads, tokens, tokens): where the token of the row looked; a row sums to 1."
    )


class ExplainResponse(BaseModel):
    model: ModelName
    method: str
    label: str | None = None
    answer: AnswerSpan | None = None
    score: float | None = Field(None, description="Of the whole text: the label's, or the answer's.")
    words: list[WordScore] | None = None
    phrases: list[PhraseScore] | None = None
    pieces: list[Token] | None = None
    attention: list[LayerAttention] | None = None
    depths: list[DepthScore] | None = None
    leaves_at: int | None = Field(None, description="The depth at which early exit would have ended.")
    variants: int | None = Field(None, description="Texts that were run, or would be.")
    tokens: int = Field(description="What they cost together.")
