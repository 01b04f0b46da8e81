"""Simple text augmentation: words left out, neighbours swapped, letters mistyped.  Off unless it is asked for."""

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Augmentation:
    """Chances per word: ``drop`` leaves it out, ``swap`` exchanges it with the next (Wei and Zou 2019)."""

    drop: float = 0.0
    swap: float = 0.0

    def __bool__(self) -> bool:
        return bool(self.drop or self.swap)

    def apply(self, text: str, draw: random.Random) -> str:
        """At least one word stays."""
        words = text.split()
        for index in range(len(words) - 1):
            if draw.random() < self.swap:
                words[index], words[index + 1] = words[index + 1], words[index]
        kept = [word for word in words if draw.random() >= self.drop]
        return " ".join(kept or words[:1])


def with_typos(text: str, rate: float, draw: random.Random) -> str:
    """Two neighbouring letters exchanged, or one left out, in a share ``rate`` of the words of four letters or more."""
    return " ".join(_mistyped(word, draw) if draw.random() < rate else word for word in text.split(" "))


def _mistyped(word: str, draw: random.Random) -> str:
    if len(word) < 4 or not word.isalpha():
        return word
    place = draw.randrange(1, len(word) - 2)
    if draw.random() < 0.5:
        return word[:place] + word[place + 1] + word[place] + word[place + 2 :]
    return word[:place] + word[place + 1 :]
