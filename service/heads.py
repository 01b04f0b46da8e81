"""The table of tasks: for each the head of its graphs, its route, and the setting that names its default model.

Names are Hugging Face's.  A new task is an entry here, a file in ``tasks/``, one in ``api/``, and its checkpoint's
class in ``conversion/checkpoint.py``.
"""

from dataclasses import dataclass
from enum import StrEnum


class Head(StrEnum):
    """What comes out of a row: logits (labels,) of its first token through the pooler; (tokens, labels) of each token;
    of the tokens that are marked the best of the vocabulary, and of the hidden states the mean and the first
    (``runtime/reduction.py``)."""

    POOLED = "pooled"
    TOKENS = "tokens"
    MASKS = "masks"
    STATES = "states"

    @property
    def reads_few(self) -> bool:
        """Does it read some tokens of a row, and not all?"""
        return self in (Head.POOLED, Head.MASKS)


@dataclass(frozen=True, slots=True)
class TaskFacts:
    """``labelled``: its models have labels.  ``least``: tokens of the shortest window that makes sense."""

    head: Head
    route: str
    setting: str
    labelled: bool = False
    least: int = 8


TASKS: dict[str, TaskFacts] = {
    "text-classification": TaskFacts(Head.POOLED, "/classify", "classify_model", labelled=True),
    "question-answering": TaskFacts(Head.TOKENS, "/qa", "qa_model", least=32),
    "token-classification": TaskFacts(Head.TOKENS, "/tokens", "tokens_model", labelled=True, least=32),
    "fill-mask": TaskFacts(Head.MASKS, "/fill-mask", "fill_mask_model"),
    "feature-extraction": TaskFacts(Head.STATES, "/embed", "embed_model"),
    "multiple-choice": TaskFacts(Head.POOLED, "/choose", "choose_model", least=32),
}
