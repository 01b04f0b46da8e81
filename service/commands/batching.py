"""``batch``: a file of rows answered without a service, on this machine or over a Ray cluster."""

import argparse
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UsageError
from .numbers import count
from .serving import version_folder

if TYPE_CHECKING:
    from ..batch.answering import Columns
    from ..batch.job import Answered


NAMED = "--text, --text-pair, --question and --context say which columns are read."


def add_batch(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", type=Path, metavar="IN", help="rows: .jsonl, .csv, .tsv or .parquet")
    parser.add_argument("out", type=Path, metavar="OUT", help="the same rows with their answers; a killed run goes on")
    parser.add_argument("--model", required=True, help="NAME or NAME/VERSION in the repository, or a version's folder")
    parser.add_argument("--model-repo", type=Path, default=Path("model_repo"), help="the repository [model_repo]")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N [auto]")
    parser.add_argument("--text", default="text", metavar="COLUMN", help="of a classifier's text [text]")
    parser.add_argument("--text-pair", default="text_pair", metavar="COLUMN", help="of the second text [text_pair]")
    parser.add_argument("--question", default="question", metavar="COLUMN", help="of the question [question]")
    parser.add_argument("--context", default="context", metavar="COLUMN", help="of the text to look in [context]")
    parser.add_argument("--prefix", default="", help="before the names of the columns that are added [none]")
    parser.add_argument("--no-answer", action="store_true", help="a context may hold no answer")
    ray = parser.add_argument_group("over a Ray cluster")
    ray.add_argument(
        "--ray",
        nargs="?",
        const="auto",
        metavar="ADDRESS",
        help="its address [that of this node's cluster]",
    )
    ray.add_argument("--ray-cpus", type=count, default=1, metavar="N", help="CPU cores of a worker [1]")
    ray.add_argument("--ray-gpus", type=_share, default=0.0, metavar="SHARE", help="of GPUs a worker, such as 0.5 [0]")
    ray.add_argument(
        "--ray-workers", type=count, default=0, metavar="N", help="at most so many [as many as fit the cluster]"
    )
    parser.set_defaults(run=_batch)


def _share(text: str) -> float:
    number = float(text)
    if not (0 < number < 1 or (number >= 1 and number.is_integer())):
        raise argparse.ArgumentTypeError("wanted a part of a GPU, such as 0.25, or a whole number of them")
    return number


def _batch(options: argparse.Namespace) -> int:
    try:
        from tqdm import tqdm
    except ModuleNotFoundError:
        raise UsageError("batch takes the extra 'batch' of this package, which is not installed") from None
    from ..batch.answering import KINDS, Columns
    from ..batch.job import Job
    from ..batch.rows import check_kind, survey
    from ..repository.store import read_manifest

    for path in (options.source, options.out):
        check_kind(path)
    if options.source.resolve() == options.out.resolve():
        raise UsageError("IN and OUT are one file")
    total, names = survey(options.source)
    folder = version_folder(options.model, options.model_repo)
    manifest = read_manifest(folder)
    if manifest.task not in KINDS:
        raise UsageError(f"{options.model} does {manifest.task}; batch answers rows by {', '.join(KINDS)}")
    model = f"{manifest.name}/{manifest.version}"
    columns = Columns(options.text, options.text_pair, options.question, options.context, options.prefix)
    columns.check_apart(manifest.task, names)
    if missing := sorted(columns.read(manifest.task) - names) if total else []:
        raise UsageError(f"{options.source}: no row has a column {missing[0]!r}; they have {sorted(names)}. {NAMED}")
    settings: dict[str, Any] = {"no_answer": True} if options.no_answer else {}
    answered = (_on_a_cluster if options.ray else _here)(options, folder, columns, settings)
    job = Job(options.source, options.out, {"model": model, "columns": str(columns), "options": settings})
    try:
        with tqdm(total=total, desc=model, unit=" rows") as bar:
            rows = job.write(answered, bar.update)
    except KeyboardInterrupt:
        print(f"interrupted; the same command goes on where it was ({options.out}.part)")
        return 130
    print(f"{rows} rows in {options.out}")
    return 0


def _here(options: argparse.Namespace, folder: Path, columns: "Columns", settings: dict[str, Any]) -> "Answered":
    from ..batch.answering import answer_rows
    from ..batch.rows import read_chunks
    from ..runtime.providers import choose
    from ..serving.loading import LoadOptions, load

    engine = load(folder, LoadOptions(choose(options.device)))
    return lambda done: (answer_rows(engine, rows, columns, settings) for rows in read_chunks(options.source, done))


def _on_a_cluster(
    options: argparse.Namespace, folder: Path, columns: "Columns", settings: dict[str, Any]
) -> "Answered":
    try:
        import ray.data  # noqa: F401
    except ModuleNotFoundError:
        raise UsageError("--ray takes the extra 'ray' of this package, which is not installed") from None
    from ..batch.cluster import Cluster, Share

    share = Share(options.ray_cpus, options.ray_gpus, options.ray_workers)
    device = "cuda" if options.ray_gpus and options.device == "auto" else options.device
    return partial(Cluster(options.ray, folder, columns, settings, device, share).answers, options.source)
