"""Texts of a file at a steady rate, each with a deadline: what a program that must keep up does.

    python examples/steady_rate.py reviews.txt --rate 20 [--deadline 2] [--model sentiment] [--url URL]

A text that was not answered in time is counted and left behind: what is late is of no use here.
"""

import argparse
import asyncio
import collections
import sys
import time
from pathlib import Path

from albert_client import AlbertError, AsyncClient, Refused


async def run(texts: list[str], options: argparse.Namespace) -> collections.Counter[str]:
    counts: collections.Counter[str] = collections.Counter()
    seconds: list[float] = []

    async def one(albert: AsyncClient, text: str) -> None:
        began = time.monotonic()
        try:
            result = await albert.classify(text, model=options.model)
        except Refused as error:
            counts[error.code] += 1
        except AlbertError:
            counts["unanswered"] += 1
        else:
            counts[result.label] += 1
            seconds.append(time.monotonic() - began)

    async with AsyncClient(options.url, deadline=options.deadline) as albert, asyncio.TaskGroup() as group:
        began = time.monotonic()
        for number, text in enumerate(texts):
            await asyncio.sleep(max(0.0, began + number / options.rate - time.monotonic()))
            group.create_task(one(albert, text))
    seconds.sort()
    if seconds:
        print(f"{len(seconds)} answers, half of them within {1000 * seconds[len(seconds) // 2]:.0f} ms")
    return counts


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Classify lines at a steady rate.")
    parser.add_argument("file", type=Path)
    parser.add_argument("--rate", type=float, default=10.0, help="texts a second [10]")
    parser.add_argument("--deadline", type=float, default=2.0, help="seconds for each [2]")
    parser.add_argument("--model", default="sentiment", help="[sentiment]")
    parser.add_argument("--url", default="http://localhost:8000", help="[http://localhost:8000]")
    options = parser.parse_args(arguments)
    texts = [line for line in options.file.read_text(encoding="utf-8").splitlines() if line.strip()]
    for name, count in asyncio.run(run(texts, options)).most_common():
        print(f"{count:6}  {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
