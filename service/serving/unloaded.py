"""Which models were unloaded by hand: they stay away, whatever the repository has, until they are loaded again.

With several workers in a folder that they share; each sees there that something was loaded or unloaded by another.
"""

import contextlib
import os
from dataclasses import dataclass, field
from pathlib import Path

PREFIX = "unloaded-"
ASKED = "asked"  # written at each change


@dataclass(slots=True)
class Unloaded:
    """``folder``: that of all workers; None with one."""

    folder: Path | None = None
    _names: set[str] = field(default_factory=set)
    _seen: int = 0

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
            self._touch(self.folder)

    def remove(self, name: str) -> None:
        """And whatever there is under this name is loaded."""
        self._names.discard(name)
        if self.folder is not None:
            if name in self.names():
                (self.folder / f"{PREFIX}{name}").unlink(missing_ok=True)
            self._touch(self.folder)

    def changed(self) -> bool:
        """Has another worker been asked to load or unload since the last call?"""
        if self.folder is None:
            return False
        before, self._seen = self._seen, self._stamp(self.folder)
        return self._seen != before

    def _touch(self, folder: Path) -> None:
        (folder / ASKED).write_bytes(b"")
        self._seen = self._stamp(folder)

    @staticmethod
    def _stamp(folder: Path) -> int:
        with contextlib.suppress(OSError):
            return (folder / ASKED).stat().st_mtime_ns
        return 0
