"""``POST /explain`` with ``"method": "occlusion"``: what each word is worth, by leaving it out."""

import threading
import time

from ..errors import TooLarge
from ..serving.admission import late
from ..serving.engine import Engine
from ..tasks.explaining import Asked, Encoded, Labelled, Variants
from ..tasks.occlusion import Part
from ..types import Priority
from .explain_schemas import ExplainRequest
from .explain_subject import explained, size
from .work import RequestWork


async def by_occlusion(
    work: RequestWork, engine: Engine, subject: Labelled | Asked, body: ExplainRequest
) -> dict[str, object]:
    """All variants of the text at once, as bulk work: whoever waits for an answer goes first."""
    variants = await _encoded(work, subject, body)
    rows = variants.sequences
    cost: dict[str, object] = {"variants": len(variants.cuts), "tokens": sum(map(len, rows))}
    if body.dry_run:
        return cost
    logits = await work.run_whole(engine, rows, Priority.BULK, early_exit=False)
    score, worth = await work.decode(sum(map(len, rows)), lambda: variants.worth(logits))
    shown = {"score": score, "words": [_word(variants, (index,), worth) for index in range(len(variants.parts))]}
    if body.phrases:
        shown["phrases"] = [_phrase(variants, cut, worth) for cut in worth if len(cut) == 2]
    return explained(subject) | shown | cost


async def _encoded(work: RequestWork, subject: Labelled | Asked, body: ExplainRequest) -> Variants:
    """The whole text first: it says what all variants cost, before they are tokenized."""
    until = work.until(Priority.BULK)

    def begin() -> tuple[Encoded, Variants]:
        return subject.encode(subject.texts), Variants.planned(subject, body.max_variants, phrases=body.phrases)

    whole, planned = await work.encode(size(subject), begin)
    tokens, most = sum(map(len, whole.sequences)), work.service.settings.max_queue_tokens
    if len(planned.cuts) * tokens > most:
        raise TooLarge(
            f"{len(planned.cuts)} variants of {tokens} tokens; at most {most} may wait: explain a part of the text, or "
            f"lower max_variants to {most // tokens}"
        )
    gone = threading.Event()

    def check() -> None:
        if gone.is_set() or time.monotonic() > until:
            raise late()

    try:
        return await work.encode(size(subject) * len(planned.cuts), lambda: planned.encode_all(whole, check), until)
    finally:
        gone.set()


def _word(variants: Variants, cut: tuple[int, ...], worth: dict[tuple[int, ...], float | None]) -> dict[str, object]:
    parts = [variants.parts[index] for index in cut]
    place = Part(parts[0].field, parts[0].start, parts[-1].end)
    text = variants.subject.texts[place.field][place.start : place.end]
    return {"field": place.field, "text": text, "start": place.start, "end": place.end, "score": worth[cut]}


def _phrase(variants: Variants, cut: tuple[int, ...], worth: dict[tuple[int, ...], float | None]) -> dict[str, object]:
    scores = [worth[cut], *(worth[(index,)] for index in cut)]
    together, *apart = scores
    known = together is not None and None not in apart
    return _word(variants, cut, worth) | {"interaction": together - sum(apart) if known else None}  # type: ignore[operator, arg-type]
