"""``POST /explain`` with ``"method": "attention"``: where each token looked, by layer and head."""

from collections.abc import Iterable

import numpy as np

from ..errors import TextTooLong, TooLarge
from ..serving.engine import Engine
from ..tasks.attention import Attention, chosen, pieces, words_of
from ..tasks.explaining import Asked, Encoded, Labelled
from ..tasks.occlusion import Part, words
from ..types import Priority, Sequence
from .explain_schemas import ExplainRequest
from .explain_subject import encode, explained
from .work import RequestWork

MOST_TOKENS = 1024
MOST_WEIGHTS = 2**20  # of one answer; each is some eight bytes of JSON


async def by_attention(
    work: RequestWork, engine: Engine, subject: Labelled | Asked, body: ExplainRequest
) -> dict[str, object]:
    """The text is answered as every text is; then its layers run once more, with their attention given out."""
    turns, most_heads = _counts(engine)
    layers, heads = chosen("layers", body.layers, turns), chosen("heads", body.heads, most_heads)
    encoded = await encode(work, subject)
    row = _one_window(encoded)
    _check_size(len(row), turns if layers is None else len(layers), most_heads if heads is None else len(heads))
    score = subject.settle(encoded, await work.run_whole(engine, [row], Priority.BULK, early_exit=False))
    found = await work.run_aside(lambda piece: engine.attention_of(row, layers, heads, work.deadline, piece))
    numbers = {"layers": layers or range(1, turns + 1), "heads": heads or range(1, most_heads + 1)}
    size = len(row) + sum(weights.size for weights in found.weights) // 100
    answer = await work.decode(size, lambda: _by_word(subject, found) | _weights(found, **numbers))
    return explained(subject) | {"score": score, "tokens": len(row)} | answer


def _counts(engine: Engine) -> tuple[int, int]:
    """Layers that attend, and heads of each."""
    shape = engine.manifest.architecture
    return engine.manifest.layers * int(shape["inner_group_num"]), int(shape["num_attention_heads"])


def _one_window(encoded: Encoded) -> Sequence:
    if len(encoded.sequences) > 1:
        raise TextTooLong(
            f"the text needs {len(encoded.sequences)} windows; attention is shown of a text that fits one: shorten it"
        )
    return encoded.sequences[0]


def _check_size(tokens: int, layers: int, heads: int) -> None:
    if tokens > MOST_TOKENS:
        raise TooLarge(f"the text has {tokens} tokens; attention is shown of at most {MOST_TOKENS}: send a part of it")
    if (numbers := layers * heads * tokens**2) > MOST_WEIGHTS:
        raise TooLarge(
            f"{layers} layers, {heads} heads and {tokens} tokens have {numbers} weights; an answer holds "
            f"{MOST_WEIGHTS}: choose layers and heads, or layers [] for the words alone"
        )


def _by_word(subject: Labelled | Asked, found: Attention) -> dict[str, object]:
    """What of each token, and of each word, reaches the tokens that the answer is read from."""
    places = pieces(subject.task.tokenizer, subject.texts)
    reached = found.rollout[_read_from(subject, places)].mean(axis=0)
    parts = words(subject.texts, MOST_TOKENS)
    scores = words_of(parts, places, reached)
    return {
        "words": [_place(subject, part) | {"score": score} for part, score in zip(parts, scores, strict=True)],
        "pieces": [_place(subject, part) | {"rollout": float(one)} for part, one in zip(places, reached, strict=True)],
    }


def _read_from(subject: Labelled | Asked, places: list[Part | None]) -> list[int]:
    """A label is read from the first token, an answer from its own."""
    if isinstance(subject, Labelled):
        return [0]
    return [index for index, place in enumerate(places) if place and not subject.explains(place)]


def _place(subject: Labelled | Asked, part: Part | None) -> dict[str, object]:
    if part is None:
        return {"field": None, "text": "", "start": None, "end": None}
    text = subject.texts[part.field][part.start : part.end]
    return {"field": part.field, "text": text, "start": part.start, "end": part.end}


def _weights(found: Attention, layers: Iterable[int], heads: Iterable[int]) -> dict[str, object]:
    listed = list(heads)
    return {
        "attention": [
            {"layer": number, "heads": listed, "weights": np.round(weights.astype(np.float64), 4).tolist()}
            for number, weights in zip(layers, found.weights, strict=False)
        ]
    }
