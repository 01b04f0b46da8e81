"""Each setting by flag, by environment and by default, and a wrong one by its name."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from pydantic import ValidationError

from service.api.launch import read_settings
from service.cli import main
from service.errors import ServiceError
from service.settings import PREFIX, Settings, unknown_variables

# Of every setting a value that is not its default, as text and as it is read.
OTHER: dict[str, tuple[str, Any]] = {
    "model_repo": ("/srv/models", Path("/srv/models")),
    "share_models": ("yes", "yes"),
    "api_key_file": ("/run/keys.toml", Path("/run/keys.toml")),
    "admin_keys": ("root", ["root"]),
    "unix_socket": ("/run/albert.sock", Path("/run/albert.sock")),
    "tls_certificate": ("/run/tls.crt", Path("/run/tls.crt")),
    "tls_key": ("/run/tls.key", Path("/run/tls.key")),
    "tracing": ("true", True),
    "grpc_port": ("9001", 9001),
    "admin_port": ("9000", 9000),
    "cors_origins": ("https://a.example,https://b.example", ["https://a.example", "https://b.example"]),
    "root_path": ("/albert", "/albert"),
    "host": ("0.0.0.0", "0.0.0.0"),
    "port": ("81", 81),
    "device": ("cuda:1", "cuda:1"),
    "workers": ("3", 3),
    "threads": ("2", 2),
    "spin": ("true", True),
    "cuda_memory_mb": ("512", 512),
    "classify_model": ("topics", "topics"),
    "qa_model": ("reader", "reader"),
    "tokens_model": ("tagger", "tagger"),
    "fill_mask_model": ("words", "words"),
    "embed_model": ("vectors", "vectors"),
    "choose_model": ("chooser", "chooser"),
    "versions": ("2", 2),
    "watch_seconds": ("0.5", 0.5),
    "token_budget": ("96", 96),
    "layers_per_step": ("2", 2),
    "early_exit": ("false", False),
    "ageing": ("0.25", 0.25),
    "bulk_delay_seconds": ("2.5", 2.5),
    "max_queue_tokens": ("1000", 1000),
    "cache_mb": ("16", 16),
    "cache_seconds": ("5", 5),
    "deadline_ms": ("1500", 1500),
    "max_body_bytes": ("4096", 4096),
    "max_text_chars": ("100", 100),
    "max_inputs": ("7", 7),
    "read_windows": ("7", 7),
    "max_documents": ("9", 9),
    "drain_seconds": ("4", 4),
    "document_seconds": ("12.5", 12.5),
    "document_pages": ("12", 12),
    "document_memory_mb": ("1024", 1024),
    "max_body_memory": ("9000", 9000),
    "max_connections": ("12", 12),
    "max_header_bytes": ("2048", 2048),
    "max_headers": ("20", 20),
    "max_requests": ("50", 50),
    "header_seconds": ("1.5", 1.5),
    "body_seconds": ("2.5", 2.5),
    "keep_alive_seconds": ("3.5", 3.5),
    "shutdown_delay_seconds": ("0.5", 0.5),
    "step_timeout_seconds": ("4.5", 4.5),
    "bulk_deadline_ms": ("2500", 2500),
    "precision": ("float32", "float32"),
    "cpu_features": ("vnni", "vnni"),
    "required_models": ('["topic"]', ["topic"]),
    "api_keys": ('["one", "two"]', ["one", "two"]),
    "log_level": ("debug", "debug"),
    "log_format": ("text", "text"),
    "access_log": ("true", True),
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
        ("api_keys", "fine,,fine"),
        ("api_keys", ","),
        ("api_keys", "[1"),
        ("api_keys", '[""]'),
        ("api_keys", '["fine", ""]'),
        ("api_keys", '["two words"]'),
        ("api_keys", '["clé"]'),
        ("api_keys", '["line\\n"]'),
        ("header_seconds", "0"),
        ("max_header_bytes", "10"),
        ("max_connections", "0"),
        ("precision", "float16"),
    ],
)
def test_a_bad_value_is_named(name: str, text: str) -> None:
    with pytest.raises(ServiceError, match=rf"^settings: .*\b{name}\b"):
        read_settings({name: text})


def test_an_empty_variable_means_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty host would listen on every interface."""
    for name in FIELDS:
        monkeypatch.setenv(f"ALBERT_SERVE_{name.upper()}", "")

    assert read_settings({}) == Settings.model_construct()


@pytest.mark.parametrize("given", ["tcp://10.96.12.7:8000", "udp://10.96.12.7:8000"])
def test_what_kubernetes_sets_for_a_service_of_this_name_stops_nobody(
    monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    monkeypatch.setenv("ALBERT_SERVE_PORT", given)
    others = ["SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_HTTP", "PORT_8000_TCP", "PORT_8000_TCP_ADDR"]

    assert read_settings({}).port == 8000
    assert read_settings({"port": "81"}).port == 81
    assert unknown_variables({f"ALBERT_SERVE_{name}": "x" for name in others}) == {}


@pytest.mark.parametrize(
    ("text", "keys"),
    [("one", ["one"]), ("one,two", ["one", "two"]), (' ["a,b"] ', ["a,b"]), ("one, two", ["one", "two"])],
)
def test_keys_come_with_commas_or_as_json(text: str, keys: list[str]) -> None:
    assert read_settings({"api_keys": text}).api_keys == keys


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


def test_a_variable_that_is_no_setting_is_named_with_the_nearest_one() -> None:
    environment = {
        "ALBERT_SERVE_WORKER": "2", "ALBERT_SERVE_MAX_BODY_BYTE": "1", "albert_serve_drain_second": "1",
        "ALBERT_SERVE_ZZZZ": "1", "ALBERT_SERVE_PORT": "1", "albert_serve_host": "x", "ALBERT_OTHER": "1", "PATH": "/",
    }  # fmt: skip
    assert unknown_variables(environment) == {
        "ALBERT_SERVE_MAX_BODY_BYTE": "ALBERT_SERVE_MAX_BODY_BYTES",
        "ALBERT_SERVE_WORKER": "ALBERT_SERVE_WORKERS",
        "ALBERT_SERVE_ZZZZ": None,
        "albert_serve_drain_second": "ALBERT_SERVE_DRAIN_SECONDS",
    }


@pytest.mark.parametrize(
    ("given", "required"),
    [("[]", []), ('["spam"]', ["spam"]), ("spam, topic", ["spam", "topic"])],
)
def test_required_models_come_with_commas_or_as_json(given: str, required: list[str]) -> None:
    assert read_settings({"required_models": given}).required_models == required


@pytest.mark.parametrize(("name", "value"), [("PORT", "eighty"), ("API_KEYS", "[secret")])
def test_listing_models_with_a_setting_that_is_wrong_is_one_line(
    repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, value: str
) -> None:
    monkeypatch.setenv(f"ALBERT_SERVE_{name}", value)
    status = main(["models"])
    assert status == 2
    assert name.lower() in capsys.readouterr().err
