"""Flags of ``convert`` that cannot be right, told before the work."""

from collections.abc import Iterator

from tests.odd_checkpoints.changes import CLASSIFIER, READER, base, file, then
from tests.odd_checkpoints.outcomes import Case, Refused

ANSWER = {"text": "the river", "answer_start": 16}
PARAGRAPH = {
    "context": "Nobody knew why the river had changed its course overnight.",
    "qas": [{"id": "1", "question": "what changed", "answers": [ANSWER]}],
}
SQUAD = {"data": [{"title": "rivers", "paragraphs": [PARAGRAPH]}]}


def cases() -> Iterator[Case]:
    for kind, values in (
        ("classifier", ("--window 4", "--window 600", "--window 64 --overlap 64", "--overlap -1")),
        ("reader", ("--window 600", "--window 48 --overlap 48", "--overlap 400")),
    ):
        build = base(READER if kind == "reader" else CLASSIFIER)
        for flags in values:
            name = "--overlap" if "--overlap" in flags else "--window"
            yield Case(f"a {kind}, {flags}", build, Refused((name,), early=True), tuple(flags.split()))
    small = base(READER, max_position_embeddings=16)
    yield Case("a reader of 16 positions, --window 32", small, Refused(("16",), early=True), ("--window", "32"))
    rows = file("rows.tsv", "label\ttext\npositive\tok\nneutral\tfine\nnegative\tbored\n")
    asked = file("asked.json", SQUAD)
    for flag in ("--gate", "--evaluate", "--calibrate", "--exits"):
        for name, kind in (("absent.tsv", "is not there"), ("asked.json", "is of the wrong kind")):
            given = (flag, f"{{folder}}/{name}")
            yield Case(f"{flag} {kind}", then(base(), asked), Refused((name,), early=True), given)
        given = (flag, "{folder}/rows.tsv")
        yield Case(
            f"{flag} has an unknown label", then(base(), rows), Refused(("rows.tsv", "neutral"), early=True), given
        )
        yield Case(f"{flag} is for a classifier", then(base(READER), rows), Refused(("rows.tsv",), early=True), given)
