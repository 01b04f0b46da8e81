"""What the methods of ``POST /explain`` share: the whole text, encoded, and what of it is explained."""

from ..tasks.explaining import Asked, Encoded, Labelled
from .qa import shown_answer
from .work import RequestWork


def size(subject: Labelled | Asked) -> int:
    """Code points of its texts."""
    return sum(map(len, subject.texts.values()))


async def encode(work: RequestWork, subject: Labelled | Asked) -> Encoded:
    encoded: Encoded = await work.encode(size(subject), lambda: subject.encode(subject.texts))
    return encoded


def explained(subject: Labelled | Asked) -> dict[str, object]:
    """What is explained, as the answer names it."""
    if isinstance(subject, Labelled):
        return {"label": subject.label}
    assert subject.answer is not None
    return {"answer": shown_answer(subject.answer, 0)}
