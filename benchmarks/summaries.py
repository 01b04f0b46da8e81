"""Do chosen sentences say more of a text than its first ones?

    python benchmarks/summaries.py VERSION TEXTS [--articles 200]

TEXTS: a paragraph a line, an empty line between articles, such as Wikipedia's.  The first paragraph of an article
stands for a summary by a person; of the rest (its first 40 sentences) as many sentences are chosen as that has, by
``/summarize``'s code, the first ones, or any.  ROUGE-1 and ROUGE-2 (Lin 2004): the F1 of words and of pairs of words
that both have.
"""

import argparse
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby, pairwise
from pathlib import Path

import numpy as np
from tqdm import tqdm

from service.runtime.providers import choose as choose_device
from service.serving.loading import LoadOptions, load
from service.tasks.embedding import Embedding
from service.tasks.sentences import choose, sentences
from service.training.datasets import read_lines
from service.training.predictors import run_each

MOST, LEAST = 40, 12  # sentences of an article's rest
LEADS = range(2, 6)  # sentences that a first paragraph may have


def articles(path: Path) -> Iterator[tuple[str, str]]:
    """(first paragraph, rest) of those that are long enough."""
    for blank, group in groupby(read_lines([path]), key=lambda line: not line):
        if blank:
            continue
        first, *rest = group
        text = "\n\n".join(rest)
        if len(sentences(first)) in LEADS and len(sentences(text)) >= LEAST:
            yield first, text


def rouge(given: str, wanted: str, size: int) -> float:
    a, b = (Counter(_runs(text.lower().split(), size)) for text in (given, wanted))
    return 2 * sum((a & b).values()) / max(1, sum(a.values()) + sum(b.values()))


def _runs(words: Sequence[str], size: int) -> list[tuple[str, ...]]:
    return [(word,) for word in words] if size == 1 else list(pairwise(words))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("version", type=Path)
    parser.add_argument("texts", type=Path)
    parser.add_argument("--articles", type=int, default=200)
    options = parser.parse_args()
    engine = load(options.version, LoadOptions(choose_device("cpu")))
    task = engine.task
    assert isinstance(task, Embedding)
    scores: dict[str, list[tuple[float, float]]] = {}
    draw = random.Random(7)
    found = zip(range(options.articles), articles(options.texts), strict=False)
    for _, (lead, text) in tqdm(found, total=options.articles, unit=" articles"):
        spans = sentences(text)[:MOST]
        parts = [text[span.start : span.end] for span in spans]
        count = len(sentences(lead))
        encoded = [task.encode(part) for part in parts]
        vectors = np.stack([task.decode(*one) for one in run_each(engine, encoded)])
        ways = {
            "first": range(count), "any": draw.sample(range(len(parts)), count),
            "/summarize": [one.index for one in choose(vectors, list(map(len, parts)), count=count)],
            "without redundancy's price": [
                one.index for one in choose(vectors, list(map(len, parts)), count=count, redundancy=0.0)
            ],
        }  # fmt: skip
        for way, chosen in ways.items():
            said = " ".join(parts[index] for index in sorted(chosen))
            scores.setdefault(way, []).append((rouge(said, lead, 1), rouge(said, lead, 2)))
    print(f"{engine.ref}, {options.articles} articles\n\n| sentences | ROUGE-1 | ROUGE-2 |\n|---|---|---|")
    for way, values in scores.items():
        one, two = 100 * np.mean(values, axis=0)
        print(f"| {way} | {one:.1f} | {two:.1f} |")


if __name__ == "__main__":
    main()
