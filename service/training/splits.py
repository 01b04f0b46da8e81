"""Which examples are learnt from, and which are measured on: parts of files, held-out rows."""

import json
import random
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ..errors import DataError
from .datasets import Labelled, Question, read_labelled, read_questions

TEMPLATE_WORDS = 5  # fewer are no template: "room 12" and "room 13" are two texts


def labelled(source: str) -> list[Labelled]:
    """The rows of ``FILE``, or of ``FILE:2/3`` every third row beginning with the second.  DataError where none is."""
    path, part, parts = _source(source)
    rows = read_labelled(path)[part - 1 :: parts]
    if not rows:
        raise DataError(f"{source}: no rows in it")
    return rows


def questions(source: str) -> list[Question]:
    """The questions of ``FILE``; of ``FILE:1/2`` those on every second article, so that no article is on both sides."""
    path, part, parts = _source(source)
    found = read_questions(path)
    titles = sorted({question.title for question in found})
    if len(titles) < parts:
        raise DataError(f"{path}: {len(titles)} articles do not make {parts} parts")
    kept = set(titles[part - 1 :: parts])
    return [question for question in found if question.title in kept]


def _source(source: str) -> tuple[Path, int, int]:
    match = re.fullmatch(r"(.+):(\d{1,9})/(\d{1,9})", source)
    if not match:
        return Path(source), 1, 1
    part, parts = int(match[2]), int(match[3])
    if not 1 <= part <= parts:
        raise DataError(f"{source}: wanted a part such as 1/2, from 1 to the number of parts")
    return Path(match[1]), part, parts


def name(source: str) -> str:
    """The file's name and its part, without the folders, which would tell of the machine."""
    path, part, parts = _source(source)
    return path.name if parts == 1 else f"{path.name}:{part}/{parts}"


def path_of(source: str) -> Path:
    return _source(source)[0]


def is_questions(source: str) -> bool:
    return _source(source)[0].name.removesuffix(".xz").endswith(".json")


def hold_out_articles(found: Sequence[Question], every: int) -> tuple[list[Question], list[Question]]:
    """Split by article: questions on one article never stand on both sides."""
    titles = sorted({question.title for question in found})
    kept = set(titles[::every])
    learnt = [question for question in found if question.title not in kept]
    if not learnt:
        raise DataError("all questions are on one article: a second article is wanted, to stop by")
    return learnt, [question for question in found if question.title in kept]


def hold_out_rows(
    rows: Sequence[Labelled], share: float, seed: int
) -> tuple[list[Labelled], list[Labelled], list[Labelled]]:
    """Rows to learn from, to stop and calibrate by, and to test on; ``share`` is that of the last two together.

    Every label gives its share.  A text that stands twice is on one side only, and so are those that differ in their
    numbers, as messages from one template do; unless a tenth of a label's texts are of one template.
    """
    alike: dict[tuple[str, str], list[Labelled]] = defaultdict(list)
    unique = {(row.text, row.text_pair): row for row in rows}
    _tell_of_contradictions(rows, unique)
    for row in unique.values():
        alike[_template(row.text), _template(row.text_pair or "")].append(row)
    groups: dict[str, list[list[Labelled]]] = defaultdict(list)
    for cluster in alike.values():
        groups[cluster[0].label].append(cluster)
    draw = random.Random(seed)
    learnt: list[Labelled] = []
    dev: list[Labelled] = []
    test: list[Labelled] = []
    for label, clusters in sorted(groups.items()):
        count = sum(map(len, clusters))
        group = [part for one in clusters for part in ([one] if len(one) <= count / 10 else [[row] for row in one])]
        half = max(1, round(share * count / 2))
        draw.shuffle(group)
        parts: list[list[Labelled]] = [[], [], []]
        for cluster in group:
            parts[(len(parts[0]) >= half) + (len(parts[0]) >= half and len(parts[1]) >= half)].extend(cluster)
        if not all(parts):
            raise DataError(f"{count} texts of label {label!r} are too few to hold {share:.0%} of them out")
        dev, test, learnt = dev + parts[0], test + parts[1], learnt + parts[2]
    draw.shuffle(learnt)
    return learnt, dev, test


def _tell_of_contradictions(rows: Sequence[Labelled], kept: Mapping[tuple[str, str | None], Labelled]) -> None:
    twice = {(row.text, row.text_pair) for row in rows if row.label != kept[row.text, row.text_pair].label}
    if twice:
        text = min(twice)[0]
        print(f"{len(twice)} texts have two labels, of which the last counts, such as {text[:60]!r}", file=sys.stderr)


def _template(text: str) -> str:
    """What is the same in texts of several words that differ in their numbers, case and spaces only."""
    words = text.casefold().split()
    return re.sub(r"\d+", "0", " ".join(words)) if len(words) >= TEMPLATE_WORDS else text


def check_not_written(sources: Iterable[str], written: Iterable[Path]) -> None:
    """DataError where a file that is read would be written over."""
    targets = {path.resolve() for path in written}
    for source in sources:
        if path_of(source).resolve() in targets:
            raise DataError(f"{path_of(source)} would be written over: give another folder with --out")


def write_rows(rows: Iterable[Labelled], path: Path) -> None:
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            pair = {"text_pair": row.text_pair} if row.text_pair else {}
            file.write(json.dumps({"label": row.label, "text": row.text} | pair, ensure_ascii=False) + "\n")
