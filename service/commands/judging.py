"""``compare``, ``robustness`` and ``bias``: which model to take, and what it can be trusted with."""

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UsageError
from .numbers import count
from .serving import add_repository, version_folder

if TYPE_CHECKING:
    from ..serving.engine import Engine

MODEL = "NAME or NAME/VERSION in the repository, or a version's folder"


def add_compare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("models", nargs="+", metavar="MODEL", help=MODEL)
    parser.add_argument("--data", required=True, metavar="FILE[:K/N]", help="what they are scored and timed on")
    _shared(parser)
    parser.set_defaults(run=_compare)


def add_robustness(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help=MODEL)
    parser.add_argument("file", metavar="FILE[:K/N]", help="labelled texts, or questions in SQuAD's form")
    parser.add_argument("--words", metavar="MODEL", help="a model that fills masks, for one word in place of another")
    parser.add_argument("--examples", type=count, default=500, metavar="N", help="of the file, at most [500]")
    _shared(parser)
    parser.set_defaults(run=_robustness)


def add_bias(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help=MODEL)
    _shared(parser)
    parser.set_defaults(run=_bias)


def _shared(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N [auto]")
    parser.add_argument("--json", action="store_true", help="JSON on stdout in place of a table")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="for the JSON and the picture")
    add_repository(parser)


def _compare(options: argparse.Namespace) -> int:
    from tqdm import tqdm

    from ..judging.compare import as_json, compare, table
    from ..judging.pictures import draw_compared

    _make_folder(options)
    folders = [version_folder(model, options.model_repo) for model in options.models]
    found = list(tqdm(compare(folders, options.data, options.device), total=len(folders), unit=" models", leave=False))
    if options.out:
        draw_compared(found, options.out / "compared.png")
    _report(options, "compared", as_json(found), table(found))
    return 0


def _robustness(options: argparse.Namespace) -> int:
    from ..judging.pictures import draw_effects
    from ..judging.robustness import robustness

    _make_folder(options)
    engine = _engine(options.model, options)
    words = _engine(options.words, options) if options.words else None
    effects = list(_bar(robustness(engine, options.file, words, options.examples), "changes"))
    lines = ["| change | examples | before | after | lost |", "|---|---|---|---|---|"]
    for one in effects:
        lost = one.before - one.after
        lines.append(f"| {one.change} | {one.examples} | {one.before:.1f} | {one.after:.1f} | {lost:+.1f} |")
    worst = sorted((one.worst[0] for one in effects if one.worst), key=lambda example: -example.lost)[:5]
    lines.append("")
    lines += [f"- {one.changed[:200]!r}: {one.before!r} became {one.after!r}, right {one.right!r}" for one in worst]
    if options.out:
        draw_effects(effects, str(engine.ref), options.out / "robustness.png")
    _report(options, "robustness", [asdict(one) for one in effects], "\n".join(lines))
    return 0


def _bias(options: argparse.Namespace) -> int:
    from ..judging.bias import bias
    from ..judging.pictures import draw_differences

    _make_folder(options)
    engine = _engine(options.model, options)
    found = list(_bar(bias(engine), "pairs of groups"))
    lines = ["| pair | groups | label | pairs | mean | largest | between |", "|---|---|---|---|---|---|---|"]
    for one in found:
        example = " / ".join(one.example)
        lines.append(
            f"| {one.axis} | {one.groups[0]} - {one.groups[1]} | {one.label or 'preference'} | {one.pairs} | "
            f"{one.mean:+.3f} | {one.largest:+.3f} | {example} |"
        )
    if options.out:
        draw_differences(found, str(engine.ref), options.out / "bias.png")
    _report(options, "bias", [asdict(one) for one in found], "\n".join(lines))
    return 0


def _make_folder(options: argparse.Namespace) -> None:
    """Before the work whose report goes there.  UsageError where it cannot be made."""
    if options.out:
        try:
            options.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"--out {options.out}: no folder can be made there: {error.strerror}") from error


def _bar(values: Iterator[Any], unit: str) -> Iterator[Any]:
    from tqdm import tqdm

    return iter(tqdm(values, unit=f" {unit}", leave=False))


def _report(options: argparse.Namespace, name: str, facts: Any, table: str) -> None:
    if options.out:
        (options.out / f"{name}.json").write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", "utf-8")
    print(json.dumps(facts, indent=1, ensure_ascii=False) if options.json else table)


def _engine(model: str, options: argparse.Namespace) -> "Engine":
    from ..runtime.providers import choose
    from ..serving.loading import LoadOptions, load

    return load(version_folder(model, options.model_repo), LoadOptions(choose(options.device)))
