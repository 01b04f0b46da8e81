"""``convert`` and ``verify``: checkpoints into versions of the repository."""

import argparse
import json
from collections.abc import Callable, Collection, Iterable, Sequence as Seq
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DataError, RepositoryError
from ..heads import TASKS
from .numbers import finite
from .serving import add_repository

if TYPE_CHECKING:
    from ..conversion.checkpoint import Checkpoint
    from ..serving.engine import Engine
    from ..types import Sequence

FORMATS = ("checkpoint", "onnx", "torch", "triton")
RANGED = 256  # sequences that ranges are measured on
PRECISIONS = ("fp32", "fp16", "int8", "auto")


def add_convert(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", help="folder of the checkpoint, or a hub id")
    parser.add_argument("--name", required=True, help="name of the model in the repository")
    add_publishing(parser)
    parser.set_defaults(run=lambda options: publish(options.checkpoint, options.name, options))


def add_publishing(parser: argparse.ArgumentParser) -> None:
    """What convert and train --publish share."""
    choices = tuple(TASKS)
    parser.add_argument("--task", choices=choices, help="if the config is silent")
    parser.add_argument("--window", type=int, help="tokens in a window of a long text")
    parser.add_argument("--overlap", type=int, help="tokens that neighbouring windows share")
    parser.add_argument("--licence", help="licence of the weights, for the manifest")
    parser.add_argument(
        "--precision", choices=PRECISIONS, default="auto", help="auto: the fastest that passes the gate [auto]"
    )
    several: dict[str, Any] = {"action": "append", "default": [], "metavar": "FILE[:K/N]"}
    parser.add_argument("--gate", **several, help="real data on which a lower precision must hold its score")
    parser.add_argument("--gate-points", type=finite, default=0.5, help="what it may lose there [0.5]")
    told = "measure the ranges of eight bits on its first texts: faster; takes --gate"
    parser.add_argument("--ranges", metavar="FILE[:K/N]", help=told)
    parser.add_argument("--calibrate", **several, help="fit what scores mean on FILE")
    parser.add_argument("--exits", metavar="FILE[:K/N]", help="choose an early exit on FILE")
    parser.add_argument("--evaluate", **several, help="score it on FILE")
    add_repository(parser)


def add_export(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source", help="NAME or NAME/VERSION in the repository, the folder of a version or a checkpoint, or a hub id"
    )
    parser.add_argument("--format", choices=FORMATS, default="checkpoint", help="what to write [checkpoint]")
    parser.add_argument("--out", type=Path, required=True, help="folder that is empty or not there")
    parser.add_argument("--name", help="name of Triton's model [the source's]")
    add_repository(parser)
    parser.set_defaults(run=_export)


def _export(options: argparse.Namespace) -> int:
    from ..conversion.formats import export

    report = export(options.source, options.format, options.out, options.model_repo, options.name)
    print(json.dumps(report, indent=1))
    print(options.out)
    return 0


def publish(checkpoint: str, name: str, options: argparse.Namespace) -> int:
    from ..conversion.pipeline import Options, convert
    from ..conversion.precision import Gate

    check_publishing(name, options)
    rows = ranging(options.ranges) if options.ranges else None
    gate = Gate(options.gate_points, gate_scores(options.gate), rows) if options.gate else None
    chosen = Options(name, options.task, options.window, options.overlap, options.licence, options.precision, gate)

    def check(read: "Checkpoint") -> None:
        check_files(options, read.task, read.labels)

    print(convert(checkpoint, options.model_repo, chosen, measures(options), check))
    return 0


def check_publishing(name: str, options: argparse.Namespace) -> None:
    """What can be told before the work is done.  RepositoryError, CheckpointError or DataError says what is wrong."""
    from ..conversion.precision import check_wish
    from ..repository.store import check_name
    from ..training.splits import name as name_of

    check_name(name)
    if options.model_repo.exists() and not options.model_repo.is_dir():
        raise RepositoryError(f"--model-repo {options.model_repo}: it is a file; wanted a folder, there or to be made")
    check_wish(options.precision, gated=bool(options.gate))
    if options.ranges and not options.gate:
        raise DataError(
            "--ranges: eight bits with fixed ranges are published only where they keep their score: --gate FILE"
        )
    for sources in (options.gate, options.evaluate):
        names = [name_of(source) for source in sources]
        if len(set(names)) < len(names):
            raise DataError(f"two files have one name ({', '.join(names)}), and figures go by it: rename one of them")


def check_files(options: argparse.Namespace, task: str, labels: Seq[str], written: Collection[Path] = ()) -> None:
    """Every file that the model is to be measured or fitted on, but those that are ``written`` meanwhile.

    DataError names flag and file.
    """
    from ..training import splits
    from ..training.checked_files import check_both_kinds, check_examples

    exits = "--exits-on" if "teach_exits" in options else "--exits"  # train has another --exits
    flags = {"--gate": options.gate, "--calibrate": options.calibrate, "--evaluate": options.evaluate}
    flags["--ranges"] = [options.ranges] if options.ranges else []
    flags[exits] = [options.exits] if options.exits else []
    for flag, sources in flags.items():
        for source in sources:
            if splits.path_of(source) not in written:
                check_examples(flag, source, task, labels)
    if options.calibrate and task == "question-answering":
        questions = [question for source in options.calibrate for question in splits.questions(source)]
        check_both_kinds(f"--calibrate {', '.join(options.calibrate)}", questions)


def measures(options: argparse.Namespace) -> list[Callable[["Engine"], dict[str, Any]]]:
    """What is found out about a model before it is published; each adds to its manifest, in this order."""
    from ..training.calibration import calibrate
    from ..training.evaluate import Request, evaluate
    from ..training.exits import fit_exits
    from ..training.predictors import Local

    found: list[Callable[[Engine], dict[str, Any]]] = []
    if options.calibrate:
        found.append(lambda engine: calibrate(engine, options.calibrate))
    if options.exits:
        found.append(lambda engine: fit_exits(engine, options.exits))
    if options.evaluate:
        requests = [Request(source) for source in options.evaluate]
        found.append(lambda engine: {"quality": {one.name: evaluate(Local(engine), one) for one in requests}})
    return found


def gate_scores(sources: list[str]) -> Callable[["Engine"], dict[str, float]]:
    """The score of each file, in points, by a name that says what it is."""
    from ..training.evaluate import Request, evaluate
    from ..training.predictors import Local

    def scores(engine: "Engine") -> dict[str, float]:
        found = {}
        for source in sources:
            report = evaluate(Local(engine), Request(source))
            kind, value = ("F1", report["f1"]) if "questions" in report else ("accuracy", 100 * report["accuracy"])
            found[f"{kind} on {report['data']}"] = round(float(value), 2)
        return found

    return scores


def ranging(source: str) -> Callable[["Engine"], list["Sequence"]]:
    """Sequences of the first texts of ``source``, as ``engine`` reads them."""
    from ..training import splits
    from ..training.predictors import classification, encode_questions, encode_texts, reader

    def rows(engine: "Engine") -> list["Sequence"]:
        encoded: Iterable[Any]
        if splits.is_questions(source):
            encoded = encode_questions(reader(engine), splits.questions(source)[:RANGED])
        else:
            encoded = encode_texts(classification(engine), splits.labelled(source)[:RANGED])
        return [row for item in encoded for row in item.sequences][:RANGED]

    return rows


def add_verify(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("version", type=Path, help="folder of the version, such as model_repo/sentiment/1")
    parser.add_argument("checkpoint", help="folder or hub id of the checkpoint that it was made from")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N [cpu]")
    parser.set_defaults(run=_verify)


def _verify(options: argparse.Namespace) -> int:
    from ..conversion.pipeline import verify_published

    print(json.dumps(verify_published(options.version, options.checkpoint, options.device), indent=1))
    return 0
