"""Multiple choice: which of several texts goes on best from another, such as a reply from a dialogue.

Each choice is read together with the prompt; the scores of all choices add up to one (Zellers et al. 2018).
"""

from collections.abc import Sequence as Seq
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..errors import InvalidRequest, TextTooLong
from ..types import Floats, Sequence
from .classification import activate
from .text import Tokenizer, cut_pair

LongPrompt = Literal["keep_end", "truncate", "error"]


@dataclass(frozen=True, slots=True)
class EncodedChoices:
    """One sequence a choice."""

    sequences: list[Sequence]
    truncated: bool

    @property
    def tokens(self) -> int:
        return sum(map(len, self.sequences))


@dataclass(frozen=True, slots=True)
class MultipleChoice:
    tokenizer: Tokenizer
    max_length: int
    temperature: float = 1.0

    def encode(self, prompt: str, choices: Seq[str], long_prompt: LongPrompt = "keep_end") -> EncodedChoices:
        """``keep_end``: of a prompt that is too long the end is read, which a dialogue's last turn is in; ``truncate``
        cuts both texts as transformers does.  InvalidRequest for a text without any token, TextTooLong."""
        first = self.tokenizer.ids(prompt)
        every = [self.tokenizer.ids(choice) for choice in choices]
        if not len(first):
            raise InvalidRequest("the prompt is empty, or holds nothing that the model has a token for")
        for index, one in enumerate(every):
            if not len(one):
                raise InvalidRequest(f"choices.{index}: empty, or nothing that the model has a token for")
        room = self.max_length - 3
        longest = max(map(len, every))
        cut = len(first) + longest > room
        if cut and long_prompt == "error":
            raise TextTooLong(
                f"prompt and longest choice have {len(first) + longest + 3} tokens, the model sees {self.max_length}"
            )
        if cut and long_prompt == "keep_end":
            if longest > room - 8:
                raise TextTooLong(f"a choice has {longest} tokens, which leaves no room for a prompt: shorten it")
            first = first[-(room - longest) :]  # the same prompt for all: their scores are compared
        rows = [
            self.tokenizer.frame(*cut_pair(first, one, room)) if cut else self.tokenizer.frame(first, one)
            for one in every
        ]
        return EncodedChoices(rows, cut)

    def decode(self, encoded: EncodedChoices, logits: Seq[Floats]) -> list[float]:
        """The score of each choice, in their order."""
        values = np.array([float(one[0]) for one in logits], dtype=np.float64) / self.temperature
        return list(map(float, activate(values, "softmax")))
