"""Real sentences of several kinds, our own, and inputs of many lengths made of them, to check conversions on."""

import itertools
from collections.abc import Iterator

SENTENCES = (
    "The ferry leaves at half past six, so we should be on the quay by six.",
    "I have rarely been so bored by a film, and I have seen a great many films.",
    "Who repaired the clock in the tower of the town hall?",
    "A gorgeous, witty and surprisingly tender comedy about three brothers and a boat.",
    "Copper conducts electricity better than iron does, and silver better than copper.",
    "The committee met on 14 March 2019; it approved a budget of 2.75 million euros.",
    "Don't wait for me: the last bus is at 11:40 p.m. & I'm still at work!",
    "In 1887 the engineer Clara Immerwahl-Ortega moved from Wrocław to São Paulo.",
    "She wrote: “We need two thousand bricks, not three.”",
    "email me at anna@example.org or see https://example.org/a?b=c",
    "The recipe asks for 250 g of flour, ½ tsp of salt and a pinch of nutmeg.",
    "Nobody knew why the river had changed its course overnight.",
    "It was not good. It was not even bad. It was nothing at all.",
    "Les élèves ont planté un chêne derrière l'école en 1952.",
    "Der Bahnhof wurde während des Krieges zerstört und 1956 neu gebaut.",
    "昨天下午三点,他们在图书馆门口见面。",
    "外卖送得很快,味道也不错,就是有点咸。",
    "Great service 👍🏽 would come again 🎉",
    "PLEASE DO NOT PARK IN FRONT OF THE GATE",
    "e\u0301tude, nai\u0308ve, cafe\u0301: the same words with combining marks",
    "C++ and C# are two languages; x² + y² = z² is neither.",
    "   tabs\tand   many    spaces\n\nand new lines   ",
    "ok",
    "?",
)  # fmt: skip


def inputs(rounds: int = 12) -> Iterator[str]:
    """Every sentence alone, then texts that grow by about a half each time: up to some two thousand words."""
    yield from SENTENCES
    endless = itertools.cycle(SENTENCES)
    size = 2.0
    for _ in range(rounds):
        yield " ".join(next(endless) for _ in range(int(size)))
        size *= 1.5


def pairs() -> Iterator[tuple[str, str]]:
    """Each text with the one after it."""
    texts = list(inputs(8))
    yield from zip(texts, texts[1:] + texts[:1], strict=True)
