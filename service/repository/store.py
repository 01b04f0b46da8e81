"""The model repository on disk: ``<root>/<name>/<version>/``.  Lists, reads, checks and publishes; loads nothing."""

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ..errors import RepositoryError
from .manifest import Manifest

MANIFEST = "manifest.json"
LARGEST_MANIFEST = 16 * 2**20  # bytes
Fingerprint = tuple[tuple[str, int, int, int], ...]  # of each file: name, size, time of change, number on its disk
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class Listing:
    """One look at a repository: every model's versions, oldest first, and the folders that could not be read."""

    models: dict[str, list[int]]
    unreadable: dict[str, str]

    def of(self, name: str) -> list[int]:
        return self.models.get(name, [])


def look(root: Path) -> Listing:
    """RepositoryError where ``root`` is not a folder that can be read; a folder in it that cannot be keeps none out."""
    try:
        folders = sorted(path for path in root.iterdir() if NAME.fullmatch(path.name))
    except OSError as error:
        raise RepositoryError(
            f"model repository {root}: {error.strerror}. Give the folder with --model-repo or ALBERT_SERVE_MODEL_REPO."
        ) from error
    models: dict[str, list[int]] = {}
    unreadable: dict[str, str] = {}
    for folder in folders:
        try:
            if folder.is_dir() and (numbers := sorted(_numbers(folder))):
                models[folder.name] = numbers
        except OSError as error:
            unreadable[folder.name] = error.strerror or str(error)
    return Listing(models, unreadable)


def versions(root: Path) -> dict[str, list[int]]:
    """Every model's versions, oldest first, of what can be read.  RepositoryError as ``look``."""
    return look(root).models


def find_version(source: str, root: Path) -> Path | None:
    """The folder of the version that ``source`` names: the folder itself, or NAME or NAME/VERSION in ``root``.

    None where it names none; RepositoryError where ``root`` has the model but not the version.
    """
    folder = Path(source)
    if folder.is_dir():
        return folder if (folder / MANIFEST).exists() else None
    name, _, number = source.partition("/")
    numbers = versions(root).get(name, []) if root.is_dir() else []
    if not numbers or not (number.isdecimal() or not number):
        return None
    if number and int(number) not in numbers:
        raise RepositoryError(f"{root}: {name} has no version {number}; it has {', '.join(map(str, numbers))}")
    return root / name / (number or str(numbers[-1]))


def fingerprint(folder: Path) -> Fingerprint:
    """What tells whether a file of the version in ``folder`` changed, was replaced, came or went."""
    try:
        stats = {path.name: path.stat() for path in folder.iterdir()}
    except OSError as error:
        return ((error.strerror or str(error), 0, 0, 0),)
    return tuple(sorted((name, one.st_size, one.st_mtime_ns, one.st_ino) for name, one in stats.items()))


def _numbers(folder: Path) -> Iterator[int]:
    for path in folder.iterdir():
        if path.is_dir() and re.fullmatch(r"[1-9][0-9]{0,8}", path.name):
            yield int(path.name)


def read_manifest(folder: Path) -> Manifest:
    """The manifest of the version in ``folder``.  RepositoryError names the file and the field that is wrong."""
    path = folder / MANIFEST
    try:
        manifest = Manifest.model_validate_json(_read(path, LARGEST_MANIFEST))
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
    for name in manifest.sha256:
        read_file(folder, manifest, name)


def read_files(folder: Path, manifest: Manifest) -> dict[str, bytes]:
    """Every file that the manifest names, in memory: what was checked is what is served, whatever the disk does next.

    RepositoryError as ``check_files``.
    """
    return {name: read_file(folder, manifest, name) for name in manifest.sha256}


def read_file(folder: Path, manifest: Manifest, name: str) -> bytes:
    """One file, compared with its checksum.  RepositoryError where it is missing or damaged."""
    wanted = manifest.sha256[name]
    try:
        content = _read(folder / name)
    except OSError as error:
        raise RepositoryError(f"{folder / name}: {error.strerror}, but the manifest names it") from error
    found = hashlib.sha256(content).hexdigest()
    if found != wanted:
        raise RepositoryError(
            f"{folder / name} is damaged: its SHA-256 is {found[:12]}…, the manifest says {wanted[:12]}…. "
            "Copy or convert the version again."
        )
    return content


def _read(path: Path, most: int | None = None) -> bytes:
    """A regular file, of at most so many bytes: a device or a pipe would never end.  OSError as the system words it."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a regular file")
    if most is not None and status.st_size > most:
        raise OSError(errno.EFBIG, f"larger than {most} bytes")
    return path.read_bytes()


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
