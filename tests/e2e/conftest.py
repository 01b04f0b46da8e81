"""A headless Chromium, Debian's own, before a real service with the shipped models."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.system.conftest import Server, Start, start

__all__ = ["start"]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def server(start: Start) -> Server:
    return start(ROOT / "model_repo")


@pytest.fixture(scope="package")
def browser() -> Iterator[Any]:
    """Closed with the last test of this folder: its event loop runs in this thread, and no other may meanwhile."""
    if CHROMIUM is None:
        pytest.skip("no Chromium here: make browser, or apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def page(browser: Any, server: Server, tmp_path: Path) -> Iterator[Any]:
    """A page that has loaded; what the browser complains of on the way fails the test."""
    context = browser.new_context(locale="en-US")
    opened = context.new_page()
    complaints: list[str] = []
    opened.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.goto(server.url)
    opened.wait_for_selector("#state:has-text('Ready')")
    yield opened
    opened.screenshot(path=tmp_path / "end.png")
    context.close()
    expected = getattr(opened, "expected_complaints", ())
    assert not [text for text in complaints if not any(part in text for part in expected)], complaints
