"""Each setting by flag, by environment and by default, and a wrong one by its name."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from pydantic import ValidationError

from service.api.launch import read_settings
from service.errors import ServiceError
from service.settings import PREFIX, Settings

# Of every setting a value that is not its default, as text and as it is read.
OTHER: dict[str, tuple[str, Any]] = {
    "model_repo": ("/srv/models", Path("/srv/models")),
    "host": ("0.0.0.0", "0.0.0.0"),
    "port": ("81", 81),
    "device": ("cuda:1", "cuda:1"),
    "workers": ("3", 3),
    "threads": ("2", 2),
    "cuda_memory_mb": ("512", 512),
    "classify_model": ("topics", "topics"),
    "qa_model": ("reader", "reader"),
    "versions": ("2", 2),
    "watch_seconds": ("0.5", 0.5),
    "token_budget": ("96", 96),
    "layers_per_step": ("2", 2),
    "early_exit": ("false", False),
    "ageing": ("0.25", 0.25),
    "bulk_delay_seconds": ("5", 5.0),
    "max_queue_tokens": ("1000", 1000),
    "deadline_ms": ("1500", 1500),
    "max_body_bytes": ("4096", 4096),
    "max_text_chars": ("100", 100),
    "max_inputs": ("7", 7),
    "max_documents": ("9", 9),
    "drain_seconds": ("4", 4),
    "api_keys": ('["one", "two"]', ["one", "two"]),
    "log_level": ("debug", "debug"),
    "log_format": ("text", "text"),
}
FIELDS = sorted(Settings.model_fields)


@pytest.fixture(autouse=True)
def _own_environment() -> Iterator[None]:
    """Without any of our names in it; whatever a test leaves there goes with it."""
    with mock.patch.dict(os.environ):
        for name in [name for name in os.environ if name.upper().startswith(PREFIX)]:
            del os.environ[name]
        yield


def test_every_setting_has_another_value_here() -> None:
    assert sorted(OTHER) == FIELDS
    assert [name for name in FIELDS if getattr(Settings(), name) == OTHER[name][1]] == []


@pytest.mark.parametrize("name", FIELDS)
def test_the_environment_beats_the_default(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text, value = OTHER[name]
    monkeypatch.setenv(f"ALBERT_SERVE_{name.upper()}", text)
    changed = read_settings({})
    assert changed.model_dump() == Settings.model_construct().model_dump() | {name: value}


@pytest.mark.parametrize("name", FIELDS)
def test_a_flag_beats_the_environment(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text, value = OTHER[name]
    monkeypatch.setenv(f"ALBERT_SERVE_{name.upper()}", "what is not read")
    assert getattr(read_settings({name: text}), name) == value


def test_worker_processes_find_the_flags_in_the_environment() -> None:
    given = read_settings({"port": "81", "api_keys": '["one"]'})
    assert Settings() == given
    assert given.port == 81


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("port", "eighty"),
        ("port", "65536"),
        ("workers", "0"),
        ("ageing", "0"),
        ("watch_seconds", "-1"),
        ("deadline_ms", "0"),
        ("log_level", "loud"),
        ("log_format", "xml"),
        ("api_keys", "secret"),
    ],
)
def test_a_bad_value_is_named(name: str, text: str) -> None:
    with pytest.raises(ServiceError, match=rf"^settings: .*\b{name}\b"):
        read_settings({name: text})


def test_all_bad_values_are_named_at_once() -> None:
    with pytest.raises(ServiceError, match=r"workers: .+; threads: "):
        read_settings({"threads": "-1", "workers": "-1"})


@pytest.mark.parametrize("name", FIELDS)
def test_every_setting_says_what_it_trades(name: str) -> None:
    assert (Settings.model_fields[name].description or "").endswith(".")


def test_settings_do_not_change() -> None:
    read = Settings()
    with pytest.raises(ValidationError, match="frozen"):
        read.port = 1  # type: ignore[misc]
    assert read.port == 8000


def test_an_unknown_setting_is_refused() -> None:
    with pytest.raises(ValidationError, match="no_such"):
        Settings(no_such=1)  # type: ignore[call-arg]
