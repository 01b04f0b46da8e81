"""The page at /, used as people use it, in a real browser."""

import json
import re
import time
from typing import Any

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe

from tests.conftest import ROOT
from tests.documents.made import LINES, pdf, png
from tests.system.conftest import Server, Start

TABS = ("classify", "ask", "explain", "service")
NARROW = {"width": 360, "height": 740}


def open_tab(page: Any, name: str) -> Any:
    page.click(f"#tab-{name}")
    panel = page.locator(f"#{name}")
    panel.wait_for(state="visible")
    return panel


def send(panel: Any) -> Any:
    panel.locator("form button").click()
    panel.locator(".result .item, .result table, .result .error, .result h2, .result > p.note").first.wait_for()
    return panel.locator(".result")


def fill(panel: Any, name: str, text: str) -> None:
    panel.locator(f"[name={name}]").fill(text)


def test_texts_are_classified_with_bars_and_the_time_that_it_took(page: Any, server: Server) -> None:
    panel = open_tab(page, "classify")
    panel.locator("[name=model]").select_option("sentiment")
    fill(panel, "texts", "a gorgeous, witty, seductive movie\nIt was not good.")
    result = send(panel)
    body = {"model": "sentiment", "inputs": ["It was not good."]}
    labels = httpx.post(f"{server.url}/classify", json=body).json()["results"][0]["labels"]

    assert result.locator(".item").count() == 2
    second = result.locator(".item").nth(1)
    assert second.locator("meter").first.get_attribute("aria-label") == labels[0]["label"]
    assert float(second.locator("meter").first.get_attribute("value")) == pytest.approx(labels[0]["score"], abs=0.03)
    assert "7 tokens" in second.inner_text()
    assert "decode" in result.locator("svg").get_attribute("aria-label")


def test_a_bad_text_is_an_error_in_its_own_place(page: Any) -> None:
    panel = open_tab(page, "classify")
    fill(panel, "texts", "fine\n\u200b")
    result = send(panel)

    assert result.locator(".item").count() == 2


def test_answers_are_marked_in_place_and_one_jumps_between_them(page: Any) -> None:
    panel = open_tab(page, "ask")
    fill(panel, "question", "When was the bridge opened?")
    fill(panel, "document", "🎉 The town hall was built in 1887 and the bridge was opened in 1902.")
    fill(panel, "top", "2")
    result = send(panel)

    assert "1902" in result.locator("mark").all_inner_texts()
    result.locator(".item button").nth(1).click()
    assert page.evaluate("document.activeElement.tagName") == "MARK"
    assert result.locator("mark.chosen").count() == 1


def test_no_answer_is_shown_as_what_it_is(page: Any, server: Server) -> None:
    panel = open_tab(page, "ask")
    question, text = "Who painted the ceiling of the chapel?", "Copper conducts electricity better than iron does."
    fill(panel, "question", question)
    fill(panel, "document", text)
    panel.locator("[name=none]").check()
    shown = send(panel).inner_text()
    said = httpx.post(f"{server.url}/qa", json={"question": question, "context": text, "no_answer": True}).json()

    assert ("The documents hold no answer." in shown) == (not said["answers"])
    assert f"chance of no answer: {100 * said['no_answer_score']:.1f} %" in shown


def test_files_are_read_and_what_is_no_text_is_refused_by_name(page: Any) -> None:
    panel = open_tab(page, "ask")
    fill(panel, "document", "")
    fill(panel, "question", "When was the bridge opened?")
    place = panel.locator("[name=files]")
    place.set_input_files({"name": "town.txt", "mimeType": "text/plain", "buffer": b"The bridge was opened in 1902."})
    assert "town.txt" in send(panel).inner_text()
    page.expected_complaints = ("422",)
    place.set_input_files({"name": "photo.txt", "mimeType": "text/plain", "buffer": b"\x89PNG\xff\xfe\x00"})
    assert "not a PDF, not a picture" in send(panel).inner_text()
    place.set_input_files({"name": "book.txt", "mimeType": "text/plain", "buffer": b"a" * (10 * 2**20 + 1)})
    assert "book.txt is larger than 10 MB" in send(panel).inner_text()


@pytest.mark.parametrize("kind", ["pdf", "png"])
def test_an_answer_in_a_file_is_boxed_on_its_page(page: Any, kind: str) -> None:
    panel = open_tab(page, "ask")
    fill(panel, "document", "")
    fill(panel, "question", "When was the bridge opened?")
    data = pdf([["Contents"], LINES]) if kind == "pdf" else png(LINES)
    panel.locator("[name=files]").set_input_files({"name": f"town.{kind}", "mimeType": "", "buffer": data})
    fill(panel, "top", "1")
    result = send(panel)
    image, box = result.locator("figure img"), result.locator("figure rect.found")
    image.wait_for()

    assert result.locator("mark").inner_text() == "1902"
    assert f"town.{kind}, page {2 if kind == 'pdf' else 1}" in result.inner_text()
    assert image.evaluate("img => img.complete && img.naturalWidth > 500")
    around, within = image.bounding_box(), box.bounding_box()
    assert around["x"] < within["x"] < within["x"] + within["width"] < around["x"] + around["width"]
    assert around["y"] < within["y"] < within["y"] + within["height"] < around["y"] + around["height"] / 2
    serious = [one["id"] for one in Axe().run(page).response["violations"] if one["impact"] in ("serious", "critical")]
    assert not serious


def test_words_are_shaded_by_what_they_are_worth_and_the_decision_is_drawn(page: Any) -> None:
    panel = open_tab(page, "explain")
    panel.locator("[name=model]").select_option("sentiment")
    fill(panel, "text", "It was not good.")
    panel.locator("[name=phrases]").check()
    result = send(panel)
    weights = {
        one.inner_text(): float(one.evaluate("e => e.style.getPropertyValue('--weight')"))
        for one in result.locator(".text span").all()
    }

    assert max(weights, key=lambda word: weights[word]) == "not"
    assert "negative" in result.locator("h2").first.inner_text()
    assert "not good" in result.locator("table").first.inner_text()
    assert result.locator("svg[aria-label*='negative']").count() == 1
    assert result.locator("table").last.locator("tbody tr").count() == 6


def test_an_answer_is_explained_too(page: Any) -> None:
    panel = open_tab(page, "explain")
    panel.locator("[name=model]").select_option("sentiment")
    assert not panel.locator("[name=question]").is_visible()
    panel.locator("[name=model]").select_option("qa")
    fill(panel, "question", "When was the bridge opened?")
    fill(panel, "text", "The bridge was opened in 1902.")
    result = send(panel)

    assert "1902" in result.locator("h2").first.inner_text()
    assert result.locator(".text").count() == 4  # the question and the context, by occlusion and by rollout


def test_attention_is_shown_by_layer_and_head(page: Any, server: Server) -> None:
    panel = open_tab(page, "explain")
    panel.locator("[name=model]").select_option("sentiment")
    fill(panel, "text", "It was not good.")
    result = send(panel)
    asked = {"text": "It was not good.", "model": "sentiment", "method": "attention", "layers": [2], "heads": [3]}
    (layer,) = httpx.post(f"{server.url}/explain", json=asked).json()["attention"]
    result.get_by_label("Layer").select_option("2")
    with page.expect_response("**/explain"):
        result.get_by_label("Head").select_option("3")
    page.wait_for_timeout(200)
    cells = [float(one.get_attribute("fill-opacity")) for one in result.locator("rect.cell").all()]

    assert cells == pytest.approx([weight for row in layer["weights"][0] for weight in row])
    assert "→" in result.locator("svg:has(rect.cell)").get_attribute("aria-label")


def test_the_service_tab_lives(page: Any, server: Server) -> None:
    panel = open_tab(page, "service")
    panel.locator("table").first.wait_for()
    httpx.post(f"{server.url}/classify", json={"inputs": ["ok"] * 50})
    end = time.monotonic() + 15
    while not re.search(r"a second\s+(0\.)?[1-9]", panel.inner_text()):
        assert time.monotonic() < end, panel.inner_text()
        page.wait_for_timeout(100)

    assert "int8" in panel.inner_text() or "float32" in panel.inner_text()
    assert "sentiment" in panel.inner_text()


@pytest.mark.parametrize("name", ["classify", "ask", "explain"])
def test_every_panel_shows_commands_that_do_the_same(page: Any, server: Server, name: str) -> None:
    panel = open_tab(page, name)
    panel.locator("summary").click()
    curl, python = panel.locator("pre").all_inner_texts()
    address, body = re.fullmatch(r"curl (\S+) -d '(.+)'", curl, re.DOTALL).groups()  # type: ignore[union-attr]

    assert httpx.post(address, content=body.replace("'\\''", "'")).status_code == 200
    assert json.loads(body.replace("'\\''", "'")) == json.loads(json.loads(re.search(r"loads\((\".*\")\)", python)[1]))  # type: ignore[index]


def test_it_works_by_keyboard_alone(page: Any) -> None:
    page.focus("#tab-classify")
    for name in ("ask", "explain", "service", "classify"):
        page.keyboard.press("ArrowRight")
        assert page.evaluate("document.activeElement.id") == f"tab-{name}"
        assert page.locator(f"#{name}").is_visible()
    for _ in range(2):  # model, texts
        page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.name") == "texts"
    page.keyboard.press("Control+A")
    page.keyboard.type("truly dreadful")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.locator("#classify .result .item").wait_for()
    assert "truly dreadful" in page.locator("#classify .result").inner_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [None, NARROW], ids=["wide", "narrow"])
def test_nobody_is_shut_out(page: Any, size: dict[str, int] | None, scheme: str) -> None:
    """axe finds nothing serious in any tab, and nothing runs over the edge of a phone."""
    page.emulate_media(color_scheme=scheme)
    if size:
        page.set_viewport_size(size)
    for name in TABS:
        panel = open_tab(page, name)
        if name != "service":
            send(panel)
        found = Axe().run(page).response["violations"]
        serious = [one["id"] for one in found if one["impact"] in ("serious", "critical")]
        assert not serious, f"{name}: {serious}"
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), name


def test_it_speaks_chinese(page: Any) -> None:
    page.select_option("#language", "zh")

    assert page.inner_text("#tab-ask") == "提问"
    assert page.get_attribute("html", "lang") == "zh-Hans"
    assert page.evaluate("import('./static/js/text.js').then(m => m.names())") == []
    page.reload()
    assert page.inner_text("#tab-ask") == "提问"


def test_a_script_in_a_text_does_nothing(page: Any, server: Server) -> None:
    hostile = "<script>window.hurt = 1</script><img src=x onerror='window.hurt = 1'> good"
    for name, field in {"classify": "texts", "ask": "document", "explain": "text"}.items():
        panel = open_tab(page, name)
        fill(panel, field, hostile)
        assert "<script>" in send(panel).inner_text() or name == "ask"
    assert page.evaluate("window.hurt") is None
    policy = httpx.get(server.url).headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


def test_right_to_left_and_mixed_scripts_and_emoji_keep_their_offsets(page: Any) -> None:
    panel = open_tab(page, "ask")
    fill(panel, "question", "When was the bridge opened?")
    fill(panel, "document", "👍🏽👨‍👩‍👧 مرحبا بالعالم שלום 你好。 The bridge was opened in 1902. नमस्ते")
    assert "1902" in send(panel).locator("mark").all_inner_texts()


def test_nothing_is_asked_of_anyone_else(page: Any, server: Server) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.reload()
    for name in TABS:
        open_tab(page, name)
    page.wait_for_timeout(500)

    assert asked
    assert all(url.startswith((server.url, "data:")) for url in asked)


def test_what_is_typed_stays_when_the_service_goes_away(start: Start, browser: Any) -> None:
    server = start(ROOT / "model_repo")
    page = browser.new_page()
    page.goto(server.url)
    page.wait_for_selector("#state:has-text('Ready')")
    panel = open_tab(page, "classify")
    fill(panel, "texts", "my long text")
    server.stop()
    assert "cannot be reached" in send(panel).inner_text()
    page.wait_for_selector("#state:has-text('does not answer')", timeout=15_000)

    assert panel.locator("[name=texts]").input_value() == "my long text"
    page.close()


def test_a_key_is_asked_for_where_keys_are_on(start: Start, browser: Any) -> None:
    server = start(ROOT / "model_repo", "--api-keys", '["let-me-in"]')
    page = browser.new_page()
    page.goto(server.url)
    page.wait_for_selector("#state:has-text('Authorization')")
    page.fill("#key", "let-me-in")
    page.press("#key", "Tab")
    page.wait_for_selector("#state:has-text('Ready')")
    panel = open_tab(page, "classify")
    assert send(panel).locator("meter").count() == 4
    assert "let-me-in" not in panel.locator("pre").first.inner_text()
    page.close()


def test_errors_are_the_services_own_words(page: Any) -> None:
    page.expected_complaints = ("422",)
    panel = open_tab(page, "ask")
    fill(panel, "question", "")
    assert "the question is empty" in send(panel).inner_text()
