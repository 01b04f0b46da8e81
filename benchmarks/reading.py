"""One question, many documents: how many windows need be read?  F1, exact match and time, by how many of the best are.

    python benchmarks/reading.py --data DATA [--documents 100 500] [--questions 100] --out FOLDER

Questions of SQuAD 1.1's development part, each over its paragraph among others of the same part.  Every window is read
once; what fewer give is the same logits, decoded without the others.
"""

import argparse
import json
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
from models import newest
from packing import machine
from servers import report, show
from tqdm import tqdm

from service.runtime.packing import like_lengths
from service.runtime.providers import choose
from service.serving.engine import Engine
from service.serving.loading import LoadOptions, load
from service.tasks.question_answering import EncodedQuestion
from service.training.scores import exact_match, token_f1

READ = (1_000_000, 100, 50, 20, 10)  # the first: all


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--documents", type=int, nargs="+", default=[100, 500])
    parser.add_argument("--questions", type=int, default=100)
    parser.add_argument("--out", type=Path, default=Path("runs/bench"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    engine = load(newest("qa"), LoadOptions(choose("cpu")))
    paragraphs = [one for article in json.loads((options.data / "squad" / "dev-v1.1.json").read_text())["data"]
                  for one in article["paragraphs"]]  # fmt: skip
    rows: list[dict[str, Any]] = []
    for documents in options.documents:
        rows += measure(engine, paragraphs, documents, options.questions)
        report(options.out, "reading", machine(), rows)


def measure(engine: Engine, paragraphs: list[Any], documents: int, questions: int) -> list[dict[str, Any]]:
    draw = random.Random(documents)
    found: dict[int, list[tuple[float, float, float, float]]] = {most: [] for most in READ}
    for _ in tqdm(range(questions), desc=f"{documents} documents", leave=False):
        chosen = draw.sample(paragraphs, documents)
        asked = draw.choice(chosen[0]["qas"])
        wanted = [one["text"] for one in asked["answers"]]
        texts = [one["context"] for one in chosen]
        draw.shuffle(texts)
        began = time.perf_counter()
        whole = engine.task.encode(asked["question"], texts)
        encoding = time.perf_counter() - began
        logits, reading = run(engine, whole)
        for most in READ:
            began = time.perf_counter()
            part = whole.reading(most)
            ranking = time.perf_counter() - began
            kept = {id(one.sequence): values for one, values in zip(whole.windows, logits, strict=True)}
            began = time.perf_counter()
            answered = engine.task.decode(part, [kept[id(one.sequence)] for one in part.windows])
            decoding = time.perf_counter() - began
            said = answered.answers[0].text if answered.answers else ""
            share = part.tokens / whole.tokens  # of the time that reading took: it goes by tokens
            seconds = encoding + ranking + decoding + share * reading
            found[most].append((token_f1(said, wanted), exact_match(said, wanted), seconds,
                                1000 * (ranking + decoding)))  # fmt: skip
    return [row_of(documents, most, np.array(values)) for most, values in found.items()]


def run(engine: Engine, encoded: EncodedQuestion) -> tuple[list[Any], float]:
    """Logits of every window, and the seconds of it."""
    rows, began = encoded.sequences, time.perf_counter()
    values: dict[int, Any] = {}
    for step in like_lengths(rows, engine.budget):
        values |= dict(zip(step, engine.run([rows[index] for index in step]), strict=True))
    return [values[index] for index in range(len(rows))], time.perf_counter() - began


def row_of(documents: int, most: int, values: Any) -> dict[str, Any]:
    mean = values.mean(axis=0)
    row = {
        "documents": documents, "read": "all" if most == READ[0] else most, "questions": len(values),
        "f1": round(100 * mean[0], 1), "exact_match": round(100 * mean[1], 1), "seconds": round(mean[2], 2),
        "ms_to_rank_and_decode": round(mean[3], 1),
    }  # fmt: skip
    show(row)
    return row


if __name__ == "__main__":
    main()
