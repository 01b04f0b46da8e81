"""Where a model looked: attention of chosen layers and heads, and what all of them pass on together.

*Rollout* (Abnar and Zuidema 2020): a layer hands on half of each token as it was, by the connection around attention,
and half as the mean of its heads mixed it.  The product over the layers says how much of each token of the text is in
each token at the end.  It is a picture of what flows, not of what counts: ``docs/explain.md`` measures both.
"""

from collections.abc import Iterable, Mapping, Sequence as Seq
from dataclasses import dataclass

import numpy as np

from ..errors import InvalidRequest
from ..types import Floats
from .occlusion import Part, touches
from .text import Tokenizer


@dataclass(frozen=True, slots=True)
class Attention:
    """``weights`` holds (heads, tokens, tokens) of each chosen layer; ``rollout`` is (tokens, tokens)."""

    weights: list[Floats]
    rollout: Floats


def collect(by_layer: Iterable[Floats], layers: Seq[int] | None, heads: Seq[int] | None) -> Attention:
    """``by_layer`` gives (heads, tokens, tokens) of each; ``layers`` and ``heads`` count from 1, None takes all."""
    weights, rollout = [], None
    for number, layer in enumerate(by_layer, start=1):
        passed = (layer.mean(axis=0) + np.eye(layer.shape[-1], dtype=layer.dtype)) / 2
        rollout = passed if rollout is None else passed @ rollout
        if layers is None or number in layers:
            weights.append(layer if heads is None else layer[[head - 1 for head in heads]])
    assert rollout is not None
    return Attention(weights, rollout)


def chosen(name: str, wanted: Seq[int] | None, there: int) -> list[int] | None:
    """``wanted`` in order, each once.  InvalidRequest names the field and what the model has."""
    if wanted is None:
        return None
    if outside := [number for number in wanted if not 1 <= number <= there]:
        raise InvalidRequest(f"{name}: there is no {outside[0]}; the model has 1 to {there}")
    return sorted(set(wanted))


def pieces(tokenizer: Tokenizer, texts: Mapping[str, str]) -> list[Part | None]:
    """The place of each token of the framed ``texts``; None for the tokens that frame them."""
    found: list[Part | None] = [None]
    for field, text in texts.items():
        found += [_stripped(field, text, int(start), int(end)) for start, end in tokenizer.encode(text).offsets]
        found.append(None)
    return found


def _stripped(field: str, text: str, start: int, end: int) -> Part:
    """SentencePiece counts the space before a word to the word."""
    inner = text[start:end].strip()
    start += len(text[start:end]) - len(text[start:end].lstrip()) if inner else 0
    return Part(field, start, start + len(inner) if inner else end)


def words_of(parts: Seq[Part], places: Seq[Part | None], scores: Floats) -> list[float]:
    """The score of each of ``parts``: the sum of its tokens' ``scores`` (tokens,); a token counts once.

    Both are in the order of the texts, field by field.
    """
    sums = [0.0] * len(parts)
    for place, score in zip(places, scores.tolist(), strict=True):
        owner = next((index for index, part in enumerate(parts) if place and touches(part, place)), None)
        if owner is not None:
            sums[owner] += score
    return sums
