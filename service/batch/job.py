"""A file answered row by row, with its place kept: a run that was killed goes on, and every row is there once.

Beside the output lie ``OUT.part``, the rows so far, and ``OUT.part.json``, how many of them are whole.  A chunk is
written and flushed to the disk first, then counted; what was written and not counted is cut off at the next start.
"""

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from ..errors import DataError
from .rows import Row, convert, read_chunks

Answer = Callable[[list[Row]], list[Row]]
Answered = Callable[[int], Iterable[list[Row]]]  # given a number of rows, those after it with their answers, in order
Told = Callable[[int], object]


@dataclass(frozen=True, slots=True)
class Job:
    """``facts`` say what makes two runs the same: the model, its version, the options."""

    source: Path
    out: Path
    facts: dict[str, Any]

    @property
    def part(self) -> Path:
        return self.out.with_name(f"{self.out.name}.part")

    @property
    def state(self) -> Path:
        return self.out.with_name(f"{self.out.name}.part.json")

    def run(self, answer: Answer, told: Told = lambda rows: None) -> int:
        """``write`` with one chunk after the other answered here."""
        return self.write(lambda done: map(answer, read_chunks(self.source, done)), told)

    def write(self, answered: Answered, told: Told = lambda rows: None) -> int:
        """Write what is left; how many rows there are.  ``told`` is called with the rows of each chunk, those of an
        earlier run first.  DataError where there is an output already, or a part of another run."""
        if self.out.exists():
            raise DataError(f"{self.out} is there already: give another name, or remove it")
        with self._alone() as file:
            done, size = self._begun()
            file.truncate(size)
            file.seek(size)
            told(done)
            for rows in answered(done):
                lines = [json.dumps(row, ensure_ascii=False).encode(errors="replace") + b"\n" for row in rows]
                file.write(b"".join(lines))
                file.flush()
                os.fsync(file.fileno())
                done += len(rows)
                self._keep(done, file.tell())
                told(len(rows))
        convert(self.part, self.out)
        self.state.unlink(missing_ok=True)
        return done

    @contextlib.contextmanager
    def _alone(self) -> Iterator[IO[bytes]]:
        with self.part.open("ab") as made, self.part.open("r+b") as file:
            try:
                fcntl.flock(made, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise DataError(f"{self.part}: another run is writing it") from None
            yield file

    def _begun(self) -> tuple[int, int]:
        """Rows and bytes that an earlier run finished."""
        if not self.state.exists():
            return 0, 0
        kept = json.loads(self.state.read_text(encoding="utf-8"))
        if kept["of"] != self._digest():
            raise DataError(
                f"{self.part} is of another input, model or option: finish that run, or remove it and {self.state.name}"
            )
        return int(kept["rows"]), int(kept["bytes"])

    def _keep(self, rows: int, size: int) -> None:
        beside = self.state.with_name(f"{self.state.name}.new")
        with beside.open("w", encoding="utf-8") as file:
            json.dump({"of": self._digest(), "rows": rows, "bytes": size}, file)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(self.state)

    def _digest(self) -> str:
        stat = self.source.stat()
        facts = [str(self.source.resolve()), stat.st_size, stat.st_mtime_ns, self.facts]
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
