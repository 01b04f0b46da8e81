"""The pictures of the page in the README, taken of a real service with the shipped models.

make pictures
"""

import contextlib
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.conftest import ROOT
from tests.documents.made import pdf
from tests.e2e.conftest import CHROMIUM
from tests.system.conftest import kill, start_server, wait_until_ready

FOLDER = ROOT / "docs" / "images"
WIDTH, MOST_HEIGHT = 960, 1240
ASKED = "When was the bridge opened?"
TOWN = (
    "The town hall was built in 1887, two years after the railway came."
    "The bridge over the river was opened in 1902, by the mayor and her son."
    "The first tram crossed it in the spring of 1904."
)


def main() -> None:
    from playwright.sync_api import sync_playwright

    if CHROMIUM is None:
        sys.exit("no Chromium here: make browser")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright, contextlib.ExitStack() as stack:
        server = start_server(ROOT / "model_repo", Path(folder) / "log")
        stack.callback(kill, server)
        wait_until_ready(server)
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": 700}, locale="en-US")
        page.goto(server.url)
        page.wait_for_selector("#state:has-text('Ready')")
        for name, fields in {
            "classify": {
                "texts": "a gorgeous, witty, seductive movie\nIt was not good.\nFree entry! Text WIN to 80086"
            },
            "ask": {"question": ASKED, "document": ""},
            "explain": {"text": "It was not good, but the music is wonderful."},
        }.items():
            use(page, name, fields)
            take(page, name)
        page.click("#tab-service")
        page.wait_for_timeout(5000)
        take(page, "service")
        browser.close()


def use(page: Any, name: str, fields: dict[str, str]) -> None:
    page.click(f"#tab-{name}")
    panel = page.locator(f"#{name}")
    if name != "ask":
        panel.locator("[name=model]").select_option("sentiment")
    else:
        data = pdf([[line.strip() + "." for line in TOWN.split(".") if line]])
        panel.locator("[name=files]").set_input_files({"name": "town.pdf", "mimeType": "", "buffer": data})
        panel.locator("[name=top]").fill("1")
    for field, text in fields.items():
        panel.locator(f"[name={field}]").fill(text)
    panel.locator("form button").click()
    panel.locator(".result meter, .result svg").first.wait_for()
    page.wait_for_timeout(1500)


def take(page: Any, name: str) -> None:
    path: Path = FOLDER / f"page-{name}.png"
    height = min(MOST_HEIGHT, page.evaluate("document.documentElement.scrollHeight"))
    page.screenshot(path=path, full_page=True, clip={"x": 0, "y": 0, "width": WIDTH, "height": height})
    print(f"{path.relative_to(ROOT)}: {path.stat().st_size // 1024} KiB")


if __name__ == "__main__":
    main()
