"""``serve``: the service.  ``models``: what the repository holds."""

import argparse
import json
from pathlib import Path
from typing import get_args

from ..errors import RepositoryError, ServiceError, UsageError
from ..settings import PREFIX, Settings

# What a number of a setting counts, by the end of its name.
UNITS = {"seconds": "SECONDS", "ms": "MILLISECONDS", "mb": "MIB", "tokens": "TOKENS"}
UNITS |= dict.fromkeys(("bytes", "memory"), "BYTES")


def add_serve(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "checkpoint", nargs="?", metavar="CHECKPOINT",
        help="folder of a checkpoint, or a hub id: converted into a cache, verified, and served alone",
    )  # fmt: skip
    # Flags, environment and docs all come from the one list of settings.
    for name, field in Settings.model_fields.items():
        default = field.default if field.default not in ("", None, []) else "none"
        told = f"{field.description} [{default}; {PREFIX}{name.upper()}]".replace("%", "%%")
        choices = ("true", "false") if field.annotation is bool else get_args(field.annotation)
        closed = choices and all(isinstance(one, str) for one in choices)
        parser.add_argument(
            f"--{name.replace('_', '-')}", dest=name, default=None, help=told, choices=choices if closed else None,
            metavar=None if closed else _metavar(name, field.annotation),
        )  # fmt: skip
    parser.add_argument("--get", metavar="PATH", help="start, answer one GET of PATH on stdout, and stop")
    parser.set_defaults(run=_serve)


def _metavar(name: str, kind: object) -> str:
    if kind in (int, float):
        return UNITS.get(name.rpartition("_")[2], "N")
    return "FOLDER" if kind is Path else "TEXT"


def _serve(options: argparse.Namespace) -> int:
    from ..api import launch

    given = {name: getattr(options, name) for name in Settings.model_fields if getattr(options, name) is not None}
    if options.checkpoint is not None:
        if "model_repo" in given:
            raise UsageError("give a CHECKPOINT or --model-repo, not both")
        from .converted import repository_of

        given["model_repo"] = str(repository_of(options.checkpoint))
    settings = launch.read_settings(given)
    return launch.get(settings, options.get) if options.get else launch.serve(settings)


def add_repository(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model-repo", type=Path, default=Path("model_repo"), help="the repository [model_repo]")


def add_models(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model-repo", type=Path, help="the repository [ALBERT_SERVE_MODEL_REPO, or model_repo]")
    parser.set_defaults(run=_models)


def _models(options: argparse.Namespace) -> int:
    from ..api.launch import read_settings
    from ..repository.store import check_files, read_manifest, versions

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


def version_folder(model: str, root: Path) -> Path:
    """The folder of NAME or NAME/VERSION in the repository ``root``, or of a version itself.  RepositoryError."""
    from ..repository.store import find_version

    folder = find_version(model, root)
    if folder is None:
        raise RepositoryError(f"no model {model!r} in {root}, and no folder of a version")
    return folder
