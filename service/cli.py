"""The command line.  Each command imports what it needs when it runs: serving never loads torch."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from service import __version__
from service.errors import ServiceError
from service.settings import Settings


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit status.  Errors that we foresaw are one line on stderr, not a traceback."""
    options = _parser().parse_args(arguments)
    try:
        status: int = options.run(options)
    except ServiceError as error:
        print(f"albert-serve: {error.message}", file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        if str(error.name).partition(".")[0] == "service":
            raise
        print(f"albert-serve: {error.name} is missing; pip install 'albert-serve[cpu,convert]' has it", file=sys.stderr)
        return 1
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="albert-serve", description="Serve ALBERT: classification and answers.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _serve_parser(commands.add_parser("serve", help="start the service"))
    _models_parser(commands.add_parser("models", help="list the model repository and check its files"))
    _convert_parser(commands.add_parser("convert", help="convert a Hugging Face ALBERT checkpoint"))
    _verify_parser(commands.add_parser("verify", help="compare a version with its checkpoint"))
    _evaluate_parser(commands.add_parser("evaluate", help="score a model on a file of examples"))
    _shrink_parser(commands.add_parser("shrink-bert", help="turn a small BERT into an ALBERT checkpoint to start from"))
    _train_parser(commands.add_parser("train", help="fine-tune an ALBERT checkpoint"))
    return parser


def _serve_parser(parser: argparse.ArgumentParser) -> None:
    # Flags, environment and docs all come from the one list of settings.
    for name, field in Settings.model_fields.items():
        flag = f"--{name.replace('_', '-')}"
        parser.add_argument(flag, dest=name, default=None, help=f"{field.description} [{field.default}]")
    parser.add_argument("--get", metavar="PATH", help="start, answer one GET of PATH on stdout, and stop")
    parser.set_defaults(run=_serve)


def _serve(options: argparse.Namespace) -> int:
    from service.api import launch

    given = {name: getattr(options, name) for name in Settings.model_fields if getattr(options, name) is not None}
    settings = launch.read_settings(given)
    return launch.get(settings, options.get) if options.get else launch.serve(settings)


def _repository(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model-repo", type=Path, default=Path("model_repo"), help="the repository [model_repo]")


def _models_parser(parser: argparse.ArgumentParser) -> None:
    _repository(parser)
    parser.set_defaults(run=_models)


def _models(options: argparse.Namespace) -> int:
    from service.repository.store import check_files, read_manifest, versions

    status = 0
    for name, numbers in versions(options.model_repo).items():
        for number in numbers:
            folder = options.model_repo / name / str(number)
            try:
                manifest = read_manifest(folder)
                check_files(folder, manifest)
                print(f"{name}/{number}  {manifest.task}  {json.dumps(manifest.quality)}")
            except ServiceError as error:
                print(f"{name}/{number}  cannot be served: {error.message}")
                status = 1
    return status


def _convert_parser(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", help="folder of the checkpoint, or a hub id")
    parser.add_argument("--name", required=True, help="name of the model in the repository")
    parser.add_argument("--task", choices=("text-classification", "question-answering"), help="if the config is silent")
    parser.add_argument("--window", type=int, help="tokens in a window of a long text")
    parser.add_argument("--overlap", type=int, help="tokens that neighbouring windows share")
    parser.add_argument("--licence", help="licence of the weights, for the manifest")
    parser.add_argument("--evaluate", type=Path, action="append", default=[], metavar="FILE", help="score it on FILE")
    _repository(parser)
    parser.set_defaults(run=_convert)


def _convert(options: argparse.Namespace) -> int:
    from service.conversion.pipeline import Options, convert
    from service.training.evaluate import evaluate

    chosen = Options(options.name, options.task, options.window, options.overlap, options.licence)
    files = options.evaluate
    folder = convert(
        options.checkpoint, options.model_repo, chosen,
        (lambda engine: {file.name: evaluate(engine, file) for file in files}) if files else None,
    )  # fmt: skip
    print(folder)
    return 0


def _verify_parser(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("version", type=Path, help="folder of the version, such as model_repo/sentiment/1")
    parser.add_argument("checkpoint", help="folder or hub id of the checkpoint that it was made from")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N [cpu]")
    parser.set_defaults(run=_verify)


def _verify(options: argparse.Namespace) -> int:
    from service.conversion.pipeline import verify_published

    print(json.dumps(verify_published(options.version, options.checkpoint, options.device), indent=1))
    return 0


def _evaluate_parser(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("version", type=Path, help="folder of the version, such as model_repo/qa/1")
    parser.add_argument(
        "file", type=Path, help="labelled texts (.tsv, .csv, .jsonl) or questions (.json), plain or .xz"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N [auto]")
    parser.set_defaults(run=_evaluate)


def _evaluate(options: argparse.Namespace) -> int:
    from service.runtime.providers import choose
    from service.serving.engine import load
    from service.training.evaluate import evaluate

    print(json.dumps(evaluate(load(options.version, choose(options.device)), options.file), indent=1))
    return 0


def _shrink_parser(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bert", type=Path, help="folder of a post-norm BERT with word pieces")
    parser.add_argument(
        "--texts", type=Path, action="append", required=True, metavar="FILE", help="decide the vocabulary"
    )
    parser.add_argument("--vocabulary", type=int, default=10_240, help="word pieces that stay [10240]")
    parser.add_argument("--out", type=Path, required=True, help="folder of the checkpoint")
    parser.set_defaults(run=_shrink)


def _shrink(options: argparse.Namespace) -> int:
    from service.training.bert import from_bert
    from service.training.datasets import texts_of

    from_bert(options.bert, texts_of(options.texts), options.vocabulary, options.out)
    return 0


def _train_parser(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--task", choices=("text-classification", "question-answering"), required=True)
    parser.add_argument("--init", type=Path, required=True, help="folder of the ALBERT checkpoint to start from")
    parser.add_argument("--train", type=Path, required=True, help="examples to learn from")
    parser.add_argument("--dev", type=Path, help="labelled texts to stop by; readers hold out articles instead")
    parser.add_argument(
        "--out", type=Path, required=True, help="folder of the new checkpoint; a killed run goes on there"
    )
    parser.add_argument("--epochs", type=float, default=2.0, help="passes over the examples [2.0]")
    parser.add_argument("--learning-rate", type=float, default=5e-5, help="at its highest [5e-5]")
    parser.add_argument("--batch-tokens", type=int, default=2048, help="padded tokens in a batch [2048]")
    parser.add_argument("--max-length", type=int, help="longest example in tokens [256 texts, 192 questions]")
    parser.add_argument("--seed", type=int, default=13, help="[13]")
    parser.set_defaults(run=_train)


def _train(options: argparse.Namespace) -> int:
    from service.errors import DataError
    from service.training.finetune import Recipe
    from service.training.run import train_classifier, train_reader

    recipe = Recipe(
        epochs=options.epochs, learning_rate=options.learning_rate, batch_tokens=options.batch_tokens, seed=options.seed
    )
    if options.task == "question-answering":
        score = train_reader(options.init, options.train, options.out, recipe, options.max_length or 192)
    elif options.dev is None:
        raise DataError("a classifier needs --dev, a file of labelled texts to stop by")
    else:
        score = train_classifier(
            options.init, options.train, options.dev, options.out, recipe, options.max_length or 256
        )
    print(f"best score {score:.4f}; checkpoint in {options.out}")
    return 0
