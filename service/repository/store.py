"""The model repository on disk: ``<root>/<name>/<version>/``.  Lists, reads, checks and publishes; loads nothing."""

import contextlib
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from service.errors import RepositoryError
from service.repository.manifest import Manifest

MANIFEST = "manifest.json"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def versions(root: Path) -> dict[str, list[int]]:
    """Every model's versions, oldest first.  RepositoryError where ``root`` is not a folder that can be read."""
    try:
        folders = sorted(path for path in root.iterdir() if path.is_dir() and NAME.fullmatch(path.name))
        found = {folder.name: sorted(_numbers(folder)) for folder in folders}
    except OSError as error:
        raise RepositoryError(
            f"model repository {root}: {error.strerror}. Give the folder with --model-repo or ALBERT_SERVE_MODEL_REPO."
        ) from error
    return {name: numbers for name, numbers in found.items() if numbers}


def _numbers(folder: Path) -> Iterator[int]:
    for path in folder.iterdir():
        if path.is_dir() and re.fullmatch(r"[1-9][0-9]{0,8}", path.name):
            yield int(path.name)


def read_manifest(folder: Path) -> Manifest:
    """The manifest of the version in ``folder``.  RepositoryError names the file and the field that is wrong."""
    path = folder / MANIFEST
    try:
        manifest = Manifest.model_validate_json(path.read_bytes())
    except OSError as error:
        raise RepositoryError(f"{path}: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the whole"
        raise RepositoryError(f"{path}: {where}: {first['msg']}") from error
    if (manifest.name, str(manifest.version)) != (folder.parent.name, folder.name):
        raise RepositoryError(f"{path} says {manifest.name}/{manifest.version}: the folder was renamed or copied")
    return manifest


def check_files(folder: Path, manifest: Manifest) -> None:
    """Compare every file with its checksum.  RepositoryError names the first that is missing or wrong."""
    for name, wanted in manifest.sha256.items():
        try:
            found = sha256(folder / name)
        except OSError as error:
            raise RepositoryError(f"{folder / name}: {error.strerror}, but the manifest names it") from error
        if found != wanted:
            raise RepositoryError(
                f"{folder / name} is damaged: its SHA-256 is {found[:12]}…, the manifest says {wanted[:12]}…. "
                "Copy or convert the version again."
            )


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def staging(root: Path) -> Iterator[Path]:
    """A folder to write a version in, on the repository's own disk; gone afterwards unless it was published."""
    root.mkdir(parents=True, exist_ok=True)
    # The leading dot keeps half-written versions out of every listing.
    folder = Path(tempfile.mkdtemp(prefix=".staging-", dir=root))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def check_name(name: str) -> None:
    """RepositoryError where no model can be called so."""
    if not NAME.fullmatch(name):
        raise RepositoryError(f"{name!r} is no name for a model: letters, digits, '.', '_' and '-', at most 64")


def publish(staged: Path, root: Path, draft: Manifest) -> Path:
    """Give the staged files the next version of ``draft.name`` and put them in place by one rename."""
    check_name(draft.name)
    home = root / draft.name
    home.mkdir(parents=True, exist_ok=True)
    os.chmod(staged, 0o755)  # temporary folders are made for their owner alone
    while True:
        version = max(_numbers(home), default=0) + 1
        write_manifest(staged, draft.model_copy(update={"version": version}))
        try:
            os.rename(staged, home / str(version))
        except OSError:
            if not (home / str(version)).exists():
                raise
            continue  # another process took the number in between
        return home / str(version)


def revise(folder: Path, **changes: Any) -> Path:
    """Publish the version in ``folder`` once more with ``changes`` to its manifest, as the next version.

    Versions are immutable, so what was learnt about one later makes a new one; the large files are linked, not copied.
    """
    manifest = read_manifest(folder)
    root = folder.parent.parent
    with staging(root) as staged:
        for name in manifest.sha256:
            try:
                os.link(folder / name, staged / name)
            except OSError:  # another disk, or one that knows no links
                shutil.copy2(folder / name, staged / name)
        # Checked as a manifest that is read would be: model_copy checks nothing.
        whole = Manifest.model_validate(manifest.model_dump() | changes)
        return publish(staged, root, whole)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    text = json.dumps(manifest.model_dump(mode="json"), indent=1, ensure_ascii=False)
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")
