"""Does what /explain says hold?  Words against random words, and each depth against the last, on labelled texts.

    python benchmarks/faithfulness.py --data FILE[:K/N] [--model model_repo/sentiment/7] [--texts 300]

*Comprehensiveness*: how much the label's score falls when the top words are taken out; *sufficiency*: how much it falls
when only they stay (DeYoung et al. 2020).  Each is the mean over the top 5, 10, 20 and 50 % of a text's words, at least
one.  A faithful explanation has a high comprehensiveness and a low sufficiency.  A depth names no words: of it, how
often its best label is the one in the end, and how far that label's score is from the one in the end.
"""

import argparse
import math
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from models import newest
from tqdm import tqdm

from service.conversion.precision import staged_engine
from service.repository.store import read_manifest
from service.serving.attention import attention_by_layer
from service.serving.depths import logits_by_depth
from service.serving.engine import Engine
from service.tasks.attention import collect, pieces, words_of
from service.tasks.classification import Classification
from service.tasks.explaining import Labelled, Variants
from service.tasks.occlusion import Part, without
from service.training import splits

SHARES = (0.05, 0.1, 0.2, 0.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, metavar="FILE[:K/N]", help="labelled texts")
    parser.add_argument("--model", type=Path, default=newest("sentiment"), help="a version of a classifier")
    parser.add_argument("--texts", type=int, default=300)
    args = parser.parse_args()
    engine = staged_engine(args.model, read_manifest(args.model))
    draw = random.Random(0)
    rows = splits.labelled(args.data)
    rows = draw.sample(rows, min(args.texts, len(rows)))
    table: dict[str, list[tuple[float, float]]] = {"occlusion": [], "attention": [], "random": []}
    depths: list[list[tuple[bool, float]]] = []
    for row in tqdm(rows, unit=" texts"):
        measure(engine, row.text, draw, table)
        depths.append(by_depth(engine, row.text))
    print(f"{engine.ref}, {len(table['random'])} texts of {splits.name(args.data)} with two words or more")
    print("| words chosen by | comprehensiveness | sufficiency |\n|---|---|---|")
    for name, found in table.items():
        taken, kept = np.mean(found, axis=0)
        print(f"| {name} | {taken:.3f} | {kept:.3f} |")
    print("\n| depth | the label of the last | from its score |\n|---|---|---|")
    for depth, one in enumerate(zip(*depths, strict=True), start=1):
        same, apart = np.mean(one, axis=0)
        print(f"| {depth} | {100 * same:.1f} % | {apart:.3f} |")


def measure(engine: Engine, text: str, draw: random.Random, table: dict[str, list[tuple[float, float]]]) -> None:
    assert isinstance(engine.task, Classification)
    subject = Labelled(engine.task, {"text": text})
    variants = Variants.of(subject, 1024, phrases=False)
    if len(variants.parts) < 2:
        return
    score, worth = variants.worth(engine.run(variants.sequences))
    by_worth = sorted(range(len(variants.parts)), key=lambda index: -(worth[(index,)] or 0.0))
    by_chance = draw.sample(by_worth, len(by_worth))
    seen = attention_of_words(engine, subject, variants.parts)
    by_attention = sorted(by_chance, key=lambda index: -seen[index])
    for name, order in (("occlusion", by_worth), ("attention", by_attention), ("random", by_chance)):
        table[name].append(erased(engine, subject, [variants.parts[index] for index in order], score))


def attention_of_words(engine: Engine, subject: Labelled, parts: Sequence[Part]) -> list[float]:
    """The rollout of each word to the token that the label is read from."""
    row = subject.encode(subject.texts).sequences[0]
    found = collect(attention_by_layer(engine.model, engine.attention(), row, lambda work: work()), [], None)
    return words_of(parts, pieces(subject.task.tokenizer, subject.texts), found.rollout[0])


def by_depth(engine: Engine, text: str) -> list[tuple[bool, float]]:
    """At each depth: is its best label the last one's, and how far is that label's score from the last one's?"""
    assert isinstance(engine.task, Classification)
    encoded = engine.task.encode(text)
    found = [
        dict(engine.task.decode(encoded, logits).labels)
        for logits in logits_by_depth(engine.model, encoded.sequences, lambda work: work())
    ]
    label = next(iter(found[-1]))
    return [(next(iter(one)) == label, abs(one[label] - found[-1][label])) for one in found]


def erased(engine: Engine, subject: Labelled, ordered: Sequence[Part], score: float) -> tuple[float, float]:
    """Comprehensiveness and sufficiency of the words in this order; an empty text scores as chance."""
    taken, kept = [], []
    for share in SHARES:
        top = max(1, math.ceil(share * len(ordered)))
        taken.append(score - score_without(engine, subject, ordered[:top]))
        kept.append(score - score_without(engine, subject, ordered[top:]))
    return float(np.mean(taken)), float(np.mean(kept))


def score_without(engine: Engine, subject: Labelled, cut: Sequence[Part]) -> float:
    texts = without(subject.texts, cut)
    if not texts["text"].strip():
        return 1 / len(subject.task.labels)
    encoded = subject.encode(texts)
    return subject.score(encoded, engine.run(encoded.sequences), cut)


if __name__ == "__main__":
    main()
