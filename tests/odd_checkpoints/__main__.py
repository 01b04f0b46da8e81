"""Converts every odd checkpoint, or those whose name holds a NAME, and prints a table.

    python -m tests.odd_checkpoints [NAME ...]

The exit status is 1 where an outcome is not the one that is wanted.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
import transformers
from tqdm import tqdm

from service.repository.store import read_manifest
from tests.odd_checkpoints import CASES, Case, differences, run
from tests.odd_checkpoints.originals import largest_difference

TOLERANCE = 1e-4


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="only cases whose name holds one of these")
    chosen = parser.parse_args().names
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()  # of the checkpoints that are made
    wanted = [case for case in CASES if not chosen or any(name in case.name for name in chosen)]
    bad = 0
    for case in (bar := tqdm(wanted, desc="checkpoints", unit=" cases", disable=None)):
        with tempfile.TemporaryDirectory() as place:
            told, wrong = _judged(case, Path(place))
        bad += bool(wrong)
        bar.write(_row(case, told, wrong), file=sys.stdout)
    print(f"{len(wanted)} checkpoints, {bad} with another outcome than is wanted")
    return 1 if bad else 0


def _judged(case: Case, place: Path) -> tuple[str, list[str]]:
    """What is told of the outcome, and what is wrong with it."""
    checkpoint, repository = place / "checkpoint", place / "repository"
    case.build(checkpoint)
    told = run(case.arguments(checkpoint, repository))
    wrong = differences(case, told, repository)
    version = repository / "odd" / "1"
    if not version.exists():
        return told.line.removeprefix("albert-serve: ").replace(f"{place}/", "")[:300], wrong
    difference = largest_difference(checkpoint, version)
    if not difference < TOLERANCE:
        wrong.append(f"logits differ by {difference:.1g}")
    ids = read_manifest(version).parity["ids"]
    others = ", ".join(f"{name} {count}" for name, count in ids["different"].items())
    return f"logits {difference:.1e}; of {ids['texts']} texts other ids from {others}", wrong


def _row(case: Case, told: str, wrong: Sequence[str]) -> str:
    outcome = f"WRONG ({'; '.join(wrong)})" if wrong else str(case.outcome).partition(":")[0]
    return f"{case.name:<52} {outcome:<9} {told}"


if __name__ == "__main__":
    sys.exit(main())
