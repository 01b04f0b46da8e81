"""A checkpoint as a repository of its own, in the user's cache: what ``serve CHECKPOINT`` serves.

It is converted in a process of its own, so that the service loads neither torch nor transformers, and once: a folder
that did not change is not converted again.
"""

import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

from .. import __version__
from ..errors import CheckpointError
from ..repository.store import versions

PACKAGE = str(__package__).partition(".")[0]  # service in a checkout, albert_serve where it is installed


def repository_of(checkpoint: str) -> Path:
    """Convert where that is not done yet; the repository.  CheckpointError where it cannot be; stderr says why."""
    root = cache() / f"{model_name(checkpoint)}-{_key(checkpoint)}"
    if root.is_dir() and versions(root):
        print(f"albert-serve: {checkpoint} was converted before: {root}", file=sys.stderr)
        return root
    root.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", PACKAGE, "convert", checkpoint, "--name", model_name(checkpoint)]
    if subprocess.run([*command, "--model-repo", str(root)], check=False).returncode:
        raise CheckpointError(f"{checkpoint} was not converted, so there is nothing to serve")
    return root


def cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "albert-serve"


def model_name(checkpoint: str) -> str:
    """The last part of the folder or the hub id, as a model may be called."""
    last = Path(checkpoint).resolve().name if Path(checkpoint).is_dir() else checkpoint.rstrip("/").rpartition("/")[2]
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", last).strip("-._")[:48]
    return name or "model"


def _key(checkpoint: str) -> str:
    """Of what is converted and by which version; the files of a folder by size and time, a hub id by its name."""
    folder = Path(checkpoint)
    facts = [__version__, checkpoint]
    if folder.is_dir():
        facts = [__version__, str(folder.resolve())]
        for path in sorted(folder.iterdir()):
            stat = path.stat()
            facts.append(f"{path.name} {stat.st_size} {stat.st_mtime_ns}")
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:12]
