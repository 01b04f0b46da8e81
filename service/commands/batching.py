"""``batch``: a file of rows answered on this machine, without a service."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import RepositoryError, UsageError

if TYPE_CHECKING:
    from ..serving.engine import Engine


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
    parser.add_argument("--no-answer", action="store_true", help="a context may hold no answer")
    parser.set_defaults(run=_batch)


def _batch(options: argparse.Namespace) -> int:
    try:
        from tqdm import tqdm
    except ModuleNotFoundError:
        raise UsageError("batch takes the extra 'batch' of this package, which is not installed") from None
    from ..batch.answering import Columns, answer_rows
    from ..batch.job import Job
    from ..batch.rows import check_kind, count

    for path in (options.source, options.out):
        check_kind(path)
    if options.source.resolve() == options.out.resolve():
        raise UsageError("IN and OUT are one file")
    total = count(options.source)
    engine = _engine(options)
    columns = Columns(options.text, options.text_pair, options.question, options.context)
    settings: dict[str, Any] = {"no_answer": True} if options.no_answer else {}
    facts = {"model": str(engine.ref), "columns": str(columns), "options": settings}
    try:
        with tqdm(total=total, desc=str(engine.ref), unit=" rows") as bar:
            rows = Job(options.source, options.out, facts).run(
                lambda chunk: answer_rows(engine, chunk, columns, settings), bar.update
            )
    except KeyboardInterrupt:
        print(f"interrupted; the same command goes on where it was ({options.out}.part)")
        return 130
    print(f"{rows} rows in {options.out}")
    return 0


def _engine(options: argparse.Namespace) -> "Engine":
    from ..repository.store import find_version
    from ..runtime.providers import choose
    from ..serving.loading import LoadOptions, load

    folder = find_version(options.model, options.model_repo)
    if folder is None:
        raise RepositoryError(f"no model {options.model!r} in {options.model_repo}, and no folder of a version")
    return load(folder, LoadOptions(choose(options.device)))
