"""What ``albert-serve convert`` must make of a checkpoint, what it did, and how the two differ."""

import contextlib
import io
import logging
import re
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import onnxruntime
import transformers

from service.cli import main as albert_serve
from service.repository.store import read_manifest
from service.tasks.text import Tokenizer

Build = Callable[[Path], None]
LABELS = ("negative", "positive")
SINGLE, MULTI = "single_label_classification", "multi_label_classification"
ANY = "any"
BAR = re.compile(r"[^\r\n]*\d+%\|[^\r\n\]]*\]|\x1b\[A")  # of tqdm; what is said meanwhile stands behind it


@dataclass(frozen=True, slots=True)
class Converts:
    """It is published with these facts.

    ``problem_type`` ANY is not compared.  The texts of each pair in ``alike`` have the same tokens, those in
    ``unlike`` have others; ``one_token`` are texts of a single token.
    """

    labels: tuple[str, ...] = LABELS
    problem_type: str | None = SINGLE
    alike: tuple[tuple[str, str], ...] = ()
    unlike: tuple[tuple[str, str], ...] = ()
    one_token: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "converts"


@dataclass(frozen=True, slots=True)
class Refused:
    """Nothing is published, and the one line on stderr holds each of ``names``, in whatever case.

    ``early``: it is told before a model is loaded.
    """

    names: tuple[str, ...]
    early: bool = False

    def __str__(self) -> str:
        return f"refused: {', '.join(self.names)}"


@dataclass(frozen=True, slots=True)
class Case:
    """``flags`` go behind ``convert FOLDER``; ``{folder}`` in them is the folder that ``build`` filled."""

    name: str
    build: Build
    outcome: Converts | Refused
    flags: tuple[str, ...] = ()

    def arguments(self, folder: Path, repository: Path) -> list[str]:
        flags = [flag.format(folder=folder) for flag in self.flags]
        return ["convert", str(folder), "--name", "odd", "--model-repo", str(repository), *flags]


@dataclass(frozen=True, slots=True)
class Told:
    """What a command left behind.  ``status`` is None where it raised, ``error`` holds stderr without progress bars."""

    status: int | None
    error: list[str]
    seconds: float
    loaded: bool  # whether a graph or an original was loaded

    @property
    def line(self) -> str:
        return self.error[-1] if self.error else ""


def run(arguments: Sequence[str]) -> Told:
    """``albert-serve`` in this process, with all that a user would see on stderr."""
    began, error = time.perf_counter(), io.StringIO()
    shown = logging.StreamHandler(error)
    with (
        _watched() as loaded, _warnings_to(error), contextlib.redirect_stderr(error),
        contextlib.redirect_stdout(io.StringIO()),
    ):  # fmt: skip
        logging.getLogger("transformers").addHandler(shown)
        try:
            status: int | None = albert_serve(arguments)
        except SystemExit as stopped:  # argparse
            status = int(stopped.code or 0)
        except BaseException as raised:
            if isinstance(raised, KeyboardInterrupt):
                raise
            status = None
            error.write("\n" + traceback.format_exc())
        finally:
            logging.getLogger("transformers").removeHandler(shown)
    lines = [line for line in re.split(r"[\r\n]+", BAR.sub("", error.getvalue())) if line.strip()]
    return Told(status, lines, time.perf_counter() - began, bool(loaded))


@contextlib.contextmanager
def _warnings_to(error: io.StringIO) -> Iterator[None]:
    """As a user sees them, whatever the test runner does with warnings."""

    def show(message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: object) -> None:
        error.write(warnings.formatwarning(message, category, filename, lineno))

    with warnings.catch_warnings(), mock.patch.object(warnings, "showwarning", show):
        warnings.simplefilter("default")
        warnings.filterwarnings("ignore", category=DeprecationWarning)  # as Python does outside __main__
        warnings.filterwarnings("ignore", category=PendingDeprecationWarning)
        warnings.filterwarnings("ignore", category=ImportWarning)
        warnings.filterwarnings("ignore", category=ResourceWarning)
        yield


@contextlib.contextmanager
def _watched() -> Iterator[list[str]]:
    """Notes each model that is loaded, be it a graph or PyTorch's."""
    loaded: list[str] = []
    session, model = onnxruntime.InferenceSession, transformers.PreTrainedModel.__init__

    def noted_session(*given: Any, **named: Any) -> Any:
        loaded.append("graph")
        return session(*given, **named)

    def noted_model(self: Any, *given: Any, **named: Any) -> None:
        loaded.append(type(self).__name__)
        model(self, *given, **named)

    with (
        mock.patch.object(onnxruntime, "InferenceSession", noted_session),
        mock.patch.object(transformers.PreTrainedModel, "__init__", noted_model),
    ):
        yield loaded


def differences(case: Case, told: Told, repository: Path) -> list[str]:
    """What is not as ``case`` wants it, in words; empty where all is."""
    version, wanted = repository / "odd" / "1", case.outcome
    published = (version / "manifest.json").exists()
    if isinstance(wanted, Converts):
        done = told.status == 0 and published
        return _other_facts(wanted, version) if done else [f"status {told.status}, wanted 0 and a version"]
    ways = {
        f"status {told.status}, wanted 1": told.status != 1,
        "published": published,
        f"{len(told.error)} lines on stderr, wanted 1": len(told.error) != 1,
        "the line does not begin with 'albert-serve: '": not told.line.startswith("albert-serve: "),
        "told after a model was loaded": wanted.early and told.loaded,
    }
    unnamed = [f"does not name {name}" for name in wanted.names if name.casefold() not in told.line.casefold()]
    return [way for way, wrong in ways.items() if wrong] + unnamed


def _other_facts(wanted: Converts, version: Path) -> list[str]:
    manifest = read_manifest(version)
    frame = {"cls_token": manifest.tokenizer.cls_token, "sep_token": manifest.tokenizer.sep_token}
    ids = Tokenizer.from_file(version / manifest.tokenizer.file, **frame).ids
    ways = {
        f"labels {manifest.labels}": tuple(manifest.labels) != wanted.labels,
        f"problem_type {manifest.problem_type}": wanted.problem_type not in (manifest.problem_type, ANY),
    }
    ways |= {f"{a!r} is not as {b!r}": list(ids(a)) != list(ids(b)) for a, b in wanted.alike}
    ways |= {f"{a!r} is as {b!r}": list(ids(a)) == list(ids(b)) for a, b in wanted.unlike}
    ways |= {f"{text!r} is not one token": len(ids(text)) != 1 for text in wanted.one_token}
    return [way for way, wrong in ways.items() if wrong]
