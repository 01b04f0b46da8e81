"""What a call may say beside its texts.  What is not said is the service's default; its ``/docs`` explain each.

``deadline`` is in seconds, for the call with all its attempts; the client's own where it is not said.
"""

from collections.abc import Sequence
from typing import Literal, TypedDict

Priority = Literal["interactive", "bulk"]


class Options(TypedDict, total=False):
    model: str
    version: int
    priority: Priority
    deadline: float


class ClassifyOptions(Options, total=False):
    top_k: int
    activation: Literal["softmax", "sigmoid", "none"]
    long_text: Literal["truncate", "windows", "error"]
    early_exit: bool


class AskOptions(Options, total=False):
    top_k: int
    no_answer: bool
    no_answer_threshold: float
    max_answer_tokens: int
    read: int
    texts: bool
    pictures: bool
    early_exit: bool


class ListOptions(Options, total=False):
    """Of spans, whose call says no more."""

    early_exit: bool


class FillMaskOptions(ListOptions, total=False):
    top_k: int


class EmbedOptions(ListOptions, total=False):
    normalize: bool
    long_text: Literal["truncate", "windows", "error"]


class ChooseOptions(ListOptions, total=False):
    long_prompt: Literal["keep_end", "truncate", "error"]


class SummarizeOptions(ListOptions, total=False):
    sentences: int
    share: float
    redundancy: float


class ExplainOptions(Options, total=False):
    text_pair: str
    question: str
    context: str
    method: Literal["occlusion", "attention", "depth"]
    label: str
    phrases: bool
    max_variants: int
    dry_run: bool
    layers: Sequence[int]
    heads: Sequence[int]
