"""The page before a service that has a model for masks, and before one that has none."""

from typing import Any

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe

from service.conversion.pipeline import Options, convert
from tests.api.test_heads import CLASSES
from tests.checkpoints import save_checkpoint
from tests.conftest import ROOT
from tests.e2e.test_page import fill, open_tab, send
from tests.system.conftest import Server, Start


@pytest.fixture(scope="module")
def server(start: Start, tmp_path_factory: pytest.TempPathFactory) -> Server:
    root = tmp_path_factory.mktemp("heads")
    kind, config = CLASSES["fill-mask"]
    convert(str(save_checkpoint(root / "source", kind, **config)), root / "repository", Options("fill-mask"))
    return start(root / "repository")


@pytest.fixture(scope="module")
def without(start: Start) -> Server:
    return start(ROOT / "model_repo")


def test_each_mask_has_its_words_and_the_likeliest_text(page: Any, server: Server) -> None:
    text = "it was [MASK] and [MASK]"
    panel = open_tab(page, "fill")
    fill(panel, "texts", text)
    fill(panel, "words", "3")
    result = send(panel)
    body = {"inputs": text, "top_k": 3}
    masks = httpx.post(f"{server.url}/fill-mask", json=body).json()["results"][0]["masks"]

    shown = [meter.get_attribute("aria-label") for meter in result.locator("meter").all()]
    assert shown == [word["word"] for mask in masks for word in mask["words"]]
    assert masks[0]["words"][0]["text"] in result.inner_text()
    assert not [one["id"] for one in Axe().run(page).response["violations"] if one["impact"] in ("serious", "critical")]


def test_a_text_without_a_mask_is_an_error_in_its_own_place(page: Any) -> None:
    panel = open_tab(page, "fill")
    fill(panel, "texts", "it was [MASK]\nit was good")
    result = send(panel)

    assert result.locator(".item").count() == 2
    assert "[MASK]" in result.locator(".item").nth(1).locator(".error").inner_text()


def test_only_what_can_be_explained_is_offered_to_be(page: Any) -> None:
    assert page.locator("#explain select option").count() == 0


def test_without_a_model_for_masks_nothing_offers_to_fill_them(page: Any, without: Server) -> None:
    page.goto(f"{without.url}/#fill")
    page.wait_for_selector("#state:has-text('Ready')")

    assert page.locator("#tab-fill").is_hidden()
    assert page.locator("#classify").is_visible()
    page.focus("#tab-ask")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.id") == "tab-explain"
