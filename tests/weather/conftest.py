"""Real processes, each fault injected for real."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.weather.harness import Service, service

Serve = Callable[..., Service]


@pytest.fixture
def serve(repository: Path, tmp_path: Path) -> Iterator[Serve]:
    """Starts services for the tiny models; all end with the test."""
    with ExitStack() as stack:

        def started(*flags: str, where: Path | None = None, **options: Any) -> Service:
            return stack.enter_context(service(where or repository, tmp_path / "log", *flags, **options))

        yield started


@pytest.fixture
def copied(repository: Path, tmp_path: Path) -> Path:
    """A repository of its own, to be damaged."""
    return Path(shutil.copytree(repository, tmp_path / "repository"))
