"""The command line.  Each command imports what it needs when it runs: serving never loads torch."""

import argparse
import sys
from collections.abc import Sequence

from . import __version__
from .commands import batching, benching, converting, evaluating, judging, keys, serving, starting, training
from .errors import ServiceError, UsageError

USAGE = 2  # as argparse has it
SHELLS = ("bash", "zsh")
EXTRAS = {"onnxruntime": "cpu", "aiohttp": "bench", "ray": "ray", "grpc": "grpc", "google": "grpc"} | dict.fromkeys(
    ("pypdfium2", "rapidocr", "PIL"), "documents"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit status.  Errors that we foresaw are one line on stderr, not a traceback."""
    options = parser().parse_args(arguments)
    try:
        status: int = options.run(options)
    except ServiceError as error:
        print(f"albert-serve: {error.message}", file=sys.stderr)
        return USAGE if isinstance(error, UsageError) else 1
    except OSError as error:  # a disk that is full, a file that is not there: said by the system in its own words
        print(f"albert-serve: {error}", file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        if str(error.name).partition(".")[0] == __package__:
            raise
        print(
            f"albert-serve: {error.name} is missing: install this package with its extra {_extra(str(error.name))!r}, "
            "from where it came from (in a checkout: make install)",
            file=sys.stderr,
        )
        return 1
    return status


def _extra(module: str) -> str:
    return EXTRAS.get(module.partition(".")[0], "convert")


def parser() -> argparse.ArgumentParser:
    root = argparse.ArgumentParser(prog="albert-serve", description="Serve ALBERT: classification and answers.")
    root.add_argument("--version", action="version", version=__version__)
    commands = root.add_subparsers(required=True, metavar="COMMAND")
    serving.add_serve(commands.add_parser("serve", help="start the service"))
    serving.add_models(commands.add_parser("models", help="list the model repository and check its files"))
    keys.add_key(commands.add_parser("key", help="a new API key, and its entry for api_key_file"))
    converting.add_convert(commands.add_parser("convert", help="convert a Hugging Face ALBERT checkpoint"))
    converting.add_verify(commands.add_parser("verify", help="compare a version with its checkpoint"))
    converting.add_export(commands.add_parser("export", help="a model as a checkpoint, ONNX, PyTorch or Triton"))
    evaluating.add_evaluate(commands.add_parser("evaluate", help="score a version or a service, calibrate, fit exits"))
    judging.add_compare(commands.add_parser("compare", help="models side by side on one file"))
    judging.add_robustness(commands.add_parser("robustness", help="what changed texts do to a model's score"))
    judging.add_bias(commands.add_parser("bias", help="what a name or a group alone does to a model's answers"))
    benching.add_bench(commands.add_parser("bench", help="load a running service and measure it"))
    batching.add_batch(commands.add_parser("batch", help="answer a file of rows, here or over a Ray cluster"))
    training.add_train(commands.add_parser("train", help="fine-tune an ALBERT checkpoint"))
    training.add_pretrain(commands.add_parser("pretrain", help="an ALBERT from plain text"))
    training.add_split(commands.add_parser("split", help="labelled texts in three: to learn, to stop by, to test on"))
    starting.add_new(commands.add_parser("new-model", help="an ALBERT with random weights and a trimmed vocabulary"))
    starting.add_shrink(commands.add_parser("shrink-bert", help="turn a small BERT into an ALBERT checkpoint"))
    starting.add_share(commands.add_parser("share-layer", help="one shared layer out of several, to distil into"))
    completion = commands.add_parser("completion", help="what completes these commands in a shell")
    completion.add_argument("shell", choices=SHELLS, help='eval "$(albert-serve completion bash)" in ~/.bashrc')
    completion.set_defaults(run=_complete)
    return root


def _complete(options: argparse.Namespace) -> int:
    import shtab

    print(shtab.complete(parser(), options.shell))
    return 0
