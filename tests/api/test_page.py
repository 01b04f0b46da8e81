"""GET /: the page and its files, without a browser."""

import re

import httpx
import pytest

from service.api.page import FOLDER

pytestmark = pytest.mark.anyio


async def test_the_page_and_all_that_it_names_is_there_and_guarded(client: httpx.AsyncClient) -> None:
    page = await client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    named = re.findall(r'(?:src|href)="(static/[^"]+)"', page.text)
    scripts = {f"static/js/{path.name}" for path in (FOLDER / "js").iterdir()}

    assert named
    for path in {*named, *scripts}:
        answer = await client.get(f"/{path}")
        assert answer.status_code == 200, path
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
    written = "".join(path.read_text(encoding="utf-8") for path in (FOLDER / "js").iterdir())
    imported = set(re.findall(r'from "\./([^"]+)"', written))
    assert {f"static/js/{name}" for name in imported} <= scripts


@pytest.mark.parametrize("path", ["/static/../app.py", "/static/%2e%2e/api/page.py", "/static/", "/static/none.js"])
async def test_nothing_else_is_served(client: httpx.AsyncClient, path: str) -> None:
    assert (await client.get(path)).status_code == 404


async def test_nothing_in_it_leads_elsewhere() -> None:
    for path in FOLDER.rglob("*.*"):
        found = set(re.findall(r"https?://[^\"'` )]+", path.read_text(encoding="utf-8"))) - {
            "http://www.w3.org/2000/svg"
        }
        assert not found, path
