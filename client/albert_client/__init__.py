"""Client of albert-serve, for programs that wait (``Client``) and for those that run in asyncio (``AsyncClient``)."""

from albert_client.asynchronous import AsyncClient
from albert_client.errors import AlbertError, Refused, Unanswered
from albert_client.results import (
    Answer,
    Answers,
    Choice,
    Choices,
    Classification,
    Depth,
    Embedding,
    Explanation,
    Failure,
    FilledMask,
    FilledMasks,
    FilledWord,
    Label,
    LayerAttention,
    Model,
    PagePicture,
    Piece,
    Sentence,
    Skipped,
    Span,
    Spans,
    Summary,
    Word,
)
from albert_client.retries import Retries
from albert_client.synchronous import Client

__version__ = "0.1.0"
__all__ = [
    "AlbertError",
    "Answer",
    "Answers",
    "AsyncClient",
    "Choice",
    "Choices",
    "Classification",
    "Client",
    "Depth",
    "Embedding",
    "Explanation",
    "Failure",
    "FilledMask",
    "FilledMasks",
    "FilledWord",
    "Label",
    "LayerAttention",
    "Model",
    "PagePicture",
    "Piece",
    "Refused",
    "Retries",
    "Sentence",
    "Skipped",
    "Span",
    "Spans",
    "Summary",
    "Unanswered",
    "Word",
]
