"""``serve``: the service.  ``models``: what the repository holds."""

import argparse
import json
from pathlib import Path

from service.errors import ServiceError
from service.settings import Settings


def add_serve(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "checkpoint", nargs="?", metavar="CHECKPOINT",
        help="folder of a checkpoint, or a hub id: converted into a cache, verified, and served alone",
    )  # fmt: skip
    # Flags, environment and docs all come from the one list of settings.
    for name, field in Settings.model_fields.items():
        flag = f"--{name.replace('_', '-')}"
        parser.add_argument(flag, dest=name, default=None, help=f"{field.description} [{field.default}]")
    parser.add_argument("--get", metavar="PATH", help="start, answer one GET of PATH on stdout, and stop")
    parser.set_defaults(run=_serve)


def _serve(options: argparse.Namespace) -> int:
    from service.api import launch

    given = {name: getattr(options, name) for name in Settings.model_fields if getattr(options, name) is not None}
    if options.checkpoint is not None:
        if "model_repo" in given:
            raise ServiceError("give a CHECKPOINT or --model-repo, not both")
        from service.commands.converted import repository_of

        given["model_repo"] = str(repository_of(options.checkpoint))
    settings = launch.read_settings(given)
    return launch.get(settings, options.get) if options.get else launch.serve(settings)


def add_repository(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model-repo", type=Path, default=Path("model_repo"), help="the repository [model_repo]")


def add_models(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model-repo", type=Path, help="the repository [ALBERT_SERVE_MODEL_REPO, or model_repo]")
    parser.set_defaults(run=_models)


def _models(options: argparse.Namespace) -> int:
    from service.api.launch import read_settings
    from service.repository.store import check_files, read_manifest, versions

    status, root = 0, options.model_repo or read_settings({}).model_repo
    for name, numbers in versions(root).items():
        for number in numbers:
            folder = root / name / str(number)
            try:
                manifest = read_manifest(folder)
                check_files(folder, manifest)
                print(f"{name}/{number}  {manifest.task}  {json.dumps(_main_scores(manifest.quality))}")
            except ServiceError as error:
                print(f"{name}/{number}  cannot be served: {error.message}")
                status = 1
    return status


def _main_scores(quality: dict[str, dict[str, object]]) -> dict[str, object]:
    """Of each file its single figures: the ones by group fill a page."""
    return {file: {name: x for name, x in one.items() if isinstance(x, float)} for file, one in quality.items()}
