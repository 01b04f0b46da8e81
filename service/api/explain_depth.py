"""``POST /explain`` with ``"method": "depth"``: what the model would answer after each turn of its layers."""

from typing import Any

from ..errors import TooLarge
from ..serving.engine import Engine
from ..tasks.exits import exit_signal
from ..tasks.explaining import Asked, Labelled
from ..types import Floats
from .explain_schemas import ExplainRequest
from .explain_subject import encode
from .qa import shown_answer
from .work import RequestWork

MOST_DEPTH_TOKENS = 4096  # a layer of them is what goes to the device's thread at once


async def by_depth(
    work: RequestWork, engine: Engine, subject: Labelled | Asked, body: ExplainRequest
) -> dict[str, object]:
    encoded = await encode(work, subject)
    rows = encoded.sequences
    tokens = sum(map(len, rows))
    if tokens > MOST_DEPTH_TOKENS:
        raise TooLarge(f"the text has {tokens} tokens; depth explains at most {MOST_DEPTH_TOKENS}: send a part of it")
    by_depth = await work.run_aside(lambda piece: engine.logits_by_depth(rows, work.deadline, piece))
    depths = [{"depth": depth} | _at_depth(subject, encoded, logits) for depth, logits in enumerate(by_depth, start=1)]
    policy = engine.stepping.exits
    signals = [exit_signal(logits[0], engine.manifest.temperature) for logits in by_depth]
    leaves = policy.depth(signals) if policy and len(rows) == 1 else len(by_depth)
    return {"depths": depths, "leaves_at": leaves, "tokens": tokens}


def _at_depth(subject: Labelled | Asked, encoded: Any, logits: list[Floats]) -> dict[str, object]:
    if isinstance(subject, Labelled):
        done = subject.task.decode(encoded, logits)
        return {"labels": [{"label": label, "score": score} for label, score in done.labels]}
    found = subject.task.decode(encoded, logits)
    return {"answers": [shown_answer(one, 0) for one in found.answers], "no_answer_score": found.no_answer_score}
