"""Texts changed in ways that change nothing of what they say, or that make it harder to find."""

import random
import re
import string
from collections.abc import Callable

from ..training.augment import with_typos

Change = Callable[[str, random.Random], str]
VERB = r"\b(is|was|are|were|do|does|did|has|have|had|would|could|should)"
CONTRACTED = re.compile(rf"{VERB} ?n['\u2019]t\b", re.IGNORECASE)
NEGATED = re.compile(rf"{VERB} not\b", re.IGNORECASE)
PUNCTUATION = str.maketrans("", "", string.punctuation)
FILLER = "This was written on a Tuesday. The page has a margin on both sides. "


def _negation(text: str, draw: random.Random) -> str:
    """ "n't" as "not", and "not" as "n't"."""
    return CONTRACTED.sub(r"\1 not", text) if CONTRACTED.search(text) else NEGATED.sub(r"\1n't", text)


CHANGES: dict[str, Change] = {
    "typos, 10 % of words": lambda text, draw: with_typos(text, 0.1, draw),
    "typos, 30 % of words": lambda text, draw: with_typos(text, 0.3, draw),
    "upper case": lambda text, draw: text.upper(),
    "lower case": lambda text, draw: text.lower(),
    "no punctuation": lambda text, draw: " ".join(text.translate(PUNCTUATION).split()) or text,
    "twice the spaces": lambda text, draw: text.replace(" ", "  "),
    "negation in other words": _negation,
}
LENGTHS: dict[str, Change] = {
    "filler before": lambda text, draw: FILLER + text,
    "filler after": lambda text, draw: f"{text} {FILLER.strip()}",
    "filler on both sides, four times": lambda text, draw: 4 * FILLER + text + " " + 4 * FILLER,
}
