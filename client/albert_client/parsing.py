"""JSON of the service to results.  Fields that this client does not know are left alone: services may be newer."""

from collections.abc import Callable
from dataclasses import fields
from typing import Any, TypeVar

import httpx

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
from albert_client.retries import strange

T = TypeVar("T")
Json = dict[str, Any]


def known(kind: type[T], found: Json, **more: Any) -> T:
    names = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    return kind(**{name: value for name, value in found.items() if name in names} | more)


def model(found: Json) -> Model:
    return known(Model, found, labels=tuple(found.get("labels") or ()))


def labels(found: list[Json] | None) -> tuple[Label, ...]:
    return tuple(known(Label, one) for one in found or ())


def answers(found: list[Json] | None) -> tuple[Answer, ...]:
    return tuple(map(_answer, found or ()))


def _answer(found: Json) -> Answer:
    return known(Answer, found, boxes=tuple(map(tuple, found.get("boxes") or ())))


def classification(found: Json) -> Classification:
    return known(Classification, found, labels=labels(found["labels"]))


def answered(found: Json) -> Answers:
    skipped = tuple(Skipped(one["document"], known(Failure, one["error"])) for one in found.get("skipped") or ())
    return known(
        Answers, found,
        model=model(found["model"]),
        answers=answers(found["answers"]),
        skipped=skipped, unread=found.get("unread") or 0,
        texts={one["document"]: one["text"] for one in found.get("texts") or ()},
        pages=tuple(known(PagePicture, one) for one in found.get("pages") or ()),
    )  # fmt: skip


def explanation(found: Json) -> Explanation:
    return known(
        Explanation, found,
        model=model(found["model"]),
        answer=_answer(found["answer"]) if found.get("answer") else None,
        words=tuple(known(Word, one) for one in found.get("words") or ()),
        phrases=tuple(known(Word, one) for one in found.get("phrases") or ()),
        depths=tuple(map(_depth, found.get("depths") or ())),
        pieces=tuple(known(Piece, one) for one in found.get("pieces") or ()),
        attention=tuple(map(_attention, found.get("attention") or ())),
    )  # fmt: skip


def spans(found: Json) -> Spans:
    return known(Spans, found, spans=tuple(known(Span, one) for one in found["spans"]))


def filled(found: Json) -> FilledMasks:
    masks = (
        known(FilledMask, one, words=tuple(known(FilledWord, word) for word in one["words"])) for one in found["masks"]
    )
    return known(FilledMasks, found, masks=tuple(masks))


def embedding(found: Json) -> Embedding:
    return known(Embedding, found, embedding=tuple(found["embedding"]))


def choices(found: Json) -> Choices:
    listed = tuple(known(Choice, one) for one in found["choices"])
    return known(Choices, found, model=model(found["model"]), choices=listed)


def summary(found: Json) -> Summary:
    listed = tuple(known(Sentence, one) for one in found["sentences"])
    return known(Summary, found, model=model(found["model"]), sentences=listed)


def results(count: int, one: Callable[[Json], T]) -> Callable[[Json], list[T | Failure]]:
    """For an answer to so many texts, each read by ``one`` where it is no error."""

    def read(found: Json) -> list[T | Failure]:
        listed = [known(Failure, it["error"]) if "error" in it else one(it) for it in found["results"]]
        if len(listed) != count:
            raise ValueError(f"{len(listed)} results for {count} texts")
        return listed

    return read


def models(found: Json) -> list[Model]:
    return [model(one) for one in found["models"]]


def parsed(parse: Callable[[Json], T], found: Json, request: httpx.Request) -> T:
    """Unanswered where ``found`` is JSON, and not what albert-serve gives."""
    try:
        return parse(found)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise strange(request, f"JSON without what was asked for ({error!r})") from error


def _depth(found: Json) -> Depth:
    return known(Depth, found, labels=labels(found.get("labels")), answers=answers(found.get("answers")))


def _attention(found: Json) -> LayerAttention:
    weights = tuple(tuple(tuple(row) for row in head) for head in found["weights"])
    return LayerAttention(found["layer"], tuple(found["heads"]), weights)
