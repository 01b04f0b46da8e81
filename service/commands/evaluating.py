"""``evaluate``: how good a version, or a running service, is on a file; and what can be fitted on it."""

import argparse
import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DataError, UsageError
from .numbers import finite, share
from .serving import add_repository, version_folder

if TYPE_CHECKING:
    from ..training.predictors import Predictor


def add_evaluate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model", help="a version's folder, or NAME or NAME/VERSION in the repository; with --url its name there"
    )
    parser.add_argument(
        "files", nargs="+", metavar="FILE[:K/N]",
        help="labelled texts (.tsv, .csv, .jsonl) or questions (.json), plain or .xz; K/N: one part of it",
    )  # fmt: skip
    parser.add_argument("--url", help="ask a running service instead of loading the version")
    parser.add_argument("--api-key", help="of the service, where it wants one")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N [auto]")
    parser.add_argument("--typos", type=share, default=0.0, help="mistype this share of the longer words first [0]")
    parser.add_argument("--json", action="store_true", help="JSON on stdout in place of a table")
    parser.add_argument("--out", type=Path, help="folder for the JSON and the pictures")
    parser.add_argument("--calibrate", action="store_true", help="fit what scores mean on the files")
    parser.add_argument("--exits", action="store_true", help="choose an early exit on the file")
    parser.add_argument("--gate", type=finite, default=0.5, help="points that an early exit may lose [0.5]")
    add_repository(parser)
    parser.set_defaults(run=_evaluate)


def _evaluate(options: argparse.Namespace) -> int:
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
    _check(options)
    if options.calibrate or options.exits:
        return _fit(options)
    from ..training.evaluate import Request, evaluate, table, write_json
    from ..training.splits import path_of

    reports: list[dict[str, Any]] = []
    with _predictor(options) as predictor:
        if missing := [path for path in map(path_of, options.files) if not path.exists()]:
            raise DataError(f"{missing[0]}: there is no such file")
        for source in options.files:
            request = Request(source, options.typos, options.out)
            reports.append(evaluate(predictor, request))
            write_json(reports[-1], request)
    shown = reports[0] if len(reports) == 1 else reports
    print(json.dumps(shown, indent=1) if options.json else "\n\n".join(table(report) for report in reports))
    return 0


def _check(options: argparse.Namespace) -> None:
    """What can be told before the work."""
    from ..training import splits

    if options.typos and (options.calibrate or options.exits):
        raise UsageError("--typos is for measuring; scores and exits are fitted on texts as they are")
    names = [splits.name(source) for source in options.files]
    if options.out and len(set(names)) < len(names):
        raise DataError(f"two files have one name ({', '.join(names)}), and reports go by it: rename one of them")


@contextlib.contextmanager
def _predictor(options: argparse.Namespace) -> Iterator["Predictor"]:
    from ..training.predictors import Local, Remote

    if options.url:
        with Remote.connected(options.url, options.model, options.api_key) as remote:
            yield remote
        return
    from ..runtime.providers import choose
    from ..serving.loading import LoadOptions, load

    device = choose(options.device)
    yield Local(load(version_folder(options.model, options.model_repo), LoadOptions(device)))


def _fit(options: argparse.Namespace) -> int:
    """Fit, and publish the version again with what was found: versions do not change.

    What was measured or fitted with another temperature does not hold any more, and goes.
    """
    from ..conversion.precision import staged_engine
    from ..repository.store import read_manifest, revise
    from ..runtime.providers import choose
    from ..serving.loading import LoadOptions, load
    from ..training.calibration import calibrate
    from ..training.exits import fit_exits
    from ..training.predictors import check_fitted

    if options.url:
        raise DataError("what is fitted goes into a manifest: give the folder of a version, not --url")
    device = choose(options.device)
    folder = version_folder(options.model, options.model_repo)
    engine = load(folder, LoadOptions(device))
    check_fitted(engine)
    changes: dict[str, Any] = {}
    if options.calibrate:
        changes = {"exits": None, "quality": {}} | calibrate(engine, options.files)
        engine = staged_engine(folder, read_manifest(folder).model_copy(update=changes), device)
    if options.exits:
        if len(options.files) > 1:
            raise DataError("an early exit is chosen on one file")
        picture = options.out / "exits.png" if options.out else None
        changes |= fit_exits(engine, options.files[0], options.gate, picture)
    print(json.dumps(changes, indent=1))
    print(revise(folder, **changes))
    return 0
