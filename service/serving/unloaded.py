"""Which models were unloaded by hand: they stay away, whatever the repository has, until they are loaded again.

With several workers in a folder that they share, so that each finds it at its next look.
"""

import contextlib
import os
from dataclasses import dataclass, field
from pathlib import Path

PREFIX = "unloaded-"


@dataclass(slots=True)
class Unloaded:
    """``folder``: that of all workers; None with one."""

    folder: Path | None = None
    _names: set[str] = field(default_factory=set)

    def names(self) -> set[str]:
        if self.folder is None:
            return set(self._names)
        with contextlib.suppress(OSError):
            self._names = {name.removeprefix(PREFIX) for name in os.listdir(self.folder) if name.startswith(PREFIX)}
        return set(self._names)

    def add(self, name: str) -> None:
        """``name`` is one of a model that is loaded, so it is no path."""
        self._names.add(name)
        if self.folder is not None:
            (self.folder / f"{PREFIX}{name}").touch()

    def remove(self, name: str) -> None:
        self._names.discard(name)
        if self.folder is not None and name in self.names():
            (self.folder / f"{PREFIX}{name}").unlink(missing_ok=True)
