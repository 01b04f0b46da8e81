"""What is asked: texts and questions from files, mixed by shares."""

import itertools
import json
import random
from collections.abc import Iterator, Sequence as Seq
from dataclasses import dataclass
from typing import Any

from ..errors import DataError
from ..training import splits

BLOCK = 20
MOST = 20_000  # of a file; more would only take memory


@dataclass(frozen=True, slots=True)
class Kind:
    """Requests of one sort: their ``route``, their ready ``bodies``, and their ``share`` of the traffic."""

    name: str
    route: str
    bodies: Seq[bytes]
    share: float = 1.0


@dataclass(frozen=True, slots=True)
class Ask:
    """One request."""

    kind: str
    route: str
    body: bytes


def read_kind(route: str, source: str, options: dict[str, Any]) -> Kind:
    """``source`` is FILE[:K/N][@SHARE]; ``options`` go into every body.  DataError where it cannot be read."""
    path, _, share = source.partition("@")
    try:
        weight = float(share or 1)
    except ValueError:
        raise DataError(f"{source}: wanted FILE@SHARE with a number, such as dev.tsv@0.8") from None
    if weight <= 0:
        raise DataError(f"{source}: a share is more than zero")
    bodies: list[dict[str, Any]]
    if route == "/classify":
        rows = splits.labelled(path)[:MOST]
        pairs = [{"text": row.text} | ({"text_pair": row.text_pair} if row.text_pair else {}) for row in rows]
        bodies = [{"inputs": pair if "text_pair" in pair else pair["text"]} for pair in pairs]
    else:
        bodies = [{"question": one.question, "context": one.context} for one in splits.questions(path)[:MOST]]
    if not bodies:
        raise DataError(f"{path}: nothing to ask")
    name = f"{route[1:]} {splits.name(path)}"
    return Kind(name, route, [json.dumps(body | options).encode() for body in bodies], weight)


def endless(kinds: Seq[Kind], seed: int) -> Iterator[Ask]:
    """Requests by their shares, each file in random order; the same for the same ``seed``.

    The shares hold in every ``BLOCK`` requests: a few long texts more, by chance, would decide a short comparison.
    """
    draw, total = random.Random(seed), sum(kind.share for kind in kinds)
    given = [0] * len(kinds)
    for blocks in itertools.count(1):
        block: list[Kind] = []
        for index, kind in enumerate(kinds):
            more = round(blocks * BLOCK * kind.share / total) - given[index]
            given[index] += more
            block += [kind] * more
        draw.shuffle(block)
        for kind in block:
            yield Ask(kind.name, kind.route, draw.choice(kind.bodies))
