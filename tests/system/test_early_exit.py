"""The shipped sentiment model in a real service: what is plain leaves early, unless all layers are asked for."""

import httpx
import pytest

from tests.conftest import ROOT
from tests.system.conftest import Server, Start
from tests.system.test_server import samples

TEXTS = ["a wonderful, funny and moving film", "dull, ugly and far too long", "the best thing i have seen in years"]


@pytest.fixture(scope="module")
def server(start: Start) -> Server:
    return start(ROOT / "model_repo")


def layers(url: str, fate: str) -> float:
    """Layers times tokens of ``sentiment`` so far."""
    found = samples(url)
    return sum(
        value
        for (name, labels), value in found.items()
        if name == "albert_layers_total" and {("model", "sentiment"), ("fate", fate)} <= labels
    )


def ask(server: Server, **options: object) -> list[str]:
    response = httpx.post(f"{server.url}/classify", json={"inputs": TEXTS, "top_k": 1} | options, timeout=30)
    assert response.status_code == 200
    return [result["labels"][0]["label"] for result in response.json()["results"]]


def test_plain_texts_leave_early_and_full_depth_can_be_had(server: Server) -> None:
    saved, ran = layers(server.url, "saved"), layers(server.url, "run")
    assert ask(server) == ["positive", "negative", "positive"]
    saved_early, ran_early = layers(server.url, "saved") - saved, layers(server.url, "run") - ran
    assert saved_early > 0

    assert ask(server, early_exit=False) == ["positive", "negative", "positive"]
    assert layers(server.url, "saved") == saved + saved_early
    assert layers(server.url, "run") - ran == 2 * ran_early + saved_early
