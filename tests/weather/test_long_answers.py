"""A text as long as is taken, before a model that gives every word of it back: nobody else waits for that answer."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.conversion.pipeline import Options, convert
from tests.checkpoints import save_checkpoint
from tests.weather.harness import Probe, Service, service
from tests.weather.test_hostile import SOON, WORST_TEXTS

LONGEST = {"ideographs": WORST_TEXTS["ideographs"], "sentences": "Ab. Cd? " * 50_000}


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    root: Path = tmp_path_factory.mktemp("long")
    words = dict(enumerate(["NOUN", "VERB", "NAME"]))  # no label begins a span, so each word is one
    labels: dict[str, Any] = {"id2label": words, "label2id": {label: index for index, label in words.items()}}
    source = save_checkpoint(root / "source", "AlbertForTokenClassification", **labels)
    convert(str(source), root / "repository", Options("tokens"))
    with service(root / "repository", root / "log") as one:
        yield one


@pytest.mark.parametrize("name", LONGEST)
def test_a_label_for_every_word_of_a_book_holds_nobody_up(started: Service, name: str) -> None:
    with Probe(started.url) as probe:
        answer = httpx.post(f"{started.url}/tokens", json={"inputs": LONGEST[name]}, timeout=120)

    assert answer.status_code == 200
    assert len(answer.json()["results"][0]["spans"]) >= 100_000
    assert probe.worst < SOON
