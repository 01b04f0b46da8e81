"""A log line is one line, and says which request it belongs to."""

import json
import logging
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest

from service.errors import InferenceFailed
from service.logs import LimitedLog, configure, log_for_request, request_id

NAMES = ("uvicorn", "uvicorn.error", "uvicorn.access", "")


@pytest.fixture(autouse=True)
def _unchanged_logging() -> Iterator[None]:
    """Put the process's logging back as it was."""
    loggers = [logging.getLogger(name) for name in NAMES]
    before = [(one.handlers[:], one.level, one.propagate, one.disabled) for one in loggers]
    yield
    for one, (handlers, level, propagate, disabled) in zip(loggers, before, strict=True):
        one.handlers[:], one.level, one.propagate, one.disabled = handlers, level, propagate, disabled
    logging.getLogger().setLevel(before[-1][1])  # forgets what was remembered of the level


@pytest.fixture
def request_seven() -> Iterator[None]:
    token = request_id.set("seven")
    yield
    request_id.reset(token)


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().err.splitlines()


def entry(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    (line,) = lines(capsys)
    read: dict[str, Any] = json.loads(line)
    return read


def test_a_json_line_says_what_where_and_when(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info", "json")
    logging.getLogger("service.test").warning('%d "texts"\nof größe', 3)
    read = entry(capsys)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", read.pop("time"))
    assert read == {"level": "warning", "logger": "service.test", "message": '3 "texts"\nof größe'}


@pytest.mark.usefixtures("request_seven")
def test_a_json_line_carries_the_request_id(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info", "json")
    logging.getLogger("service.test").info("hello")
    assert entry(capsys)["request_id"] == "seven"


@pytest.mark.usefixtures("request_seven")
def test_a_readable_line_carries_the_request_id(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info", "text")
    logging.getLogger("service.test").info("hello")
    (line,) = lines(capsys)
    assert "hello" in line
    assert "seven" in line


def test_a_readable_line_outside_any_request_needs_no_id(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info", "text")
    logging.getLogger("service.test").info("hello")
    (line,) = lines(capsys)
    assert line.endswith("service.test: hello")


def test_a_traceback_stays_within_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info", "json")
    try:
        raise KeyError("cause")
    except KeyError:
        logging.getLogger("service.test").exception("failed")
    read = entry(capsys)
    assert read["message"] == "failed"
    assert "KeyError: 'cause'" in read["exception"]


def test_less_than_the_level_is_not_logged(capsys: pytest.CaptureFixture[str]) -> None:
    configure("warning", "text")
    logging.getLogger("service.test").info("quiet")
    logging.getLogger("service.test").warning("loud")
    (line,) = lines(capsys)
    assert "loud" in line


def test_configuring_again_does_not_double_the_lines(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info", "text")
    configure("info", "json")
    logging.getLogger("service.test").info("once")
    assert entry(capsys)["message"] == "once"


def test_the_servers_own_lines_have_the_same_form(capsys: pytest.CaptureFixture[str]) -> None:
    logging.getLogger("uvicorn.error").addHandler(logging.StreamHandler())
    configure("info", "json")
    logging.getLogger("uvicorn.error").info("started")
    logging.getLogger("uvicorn.access").info("GET / 200")
    assert entry(capsys)["message"] == "started"


def test_a_line_about_another_request_carries_that_ones_id(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info", "json")
    failure = InferenceFailed("the model failed on this text")
    failure.__cause__ = RuntimeError("no such matrix")
    token = request_id.set("seven")
    log_for_request(logging.getLogger("service.test"), "eight", "m/1 failed", failure)
    request_id.reset(token)
    read = entry(capsys)
    assert read["request_id"] == "eight"
    assert read["message"] == "m/1 failed: no such matrix"
    assert "RuntimeError" in read["exception"]


@pytest.mark.usefixtures("request_seven")
def test_work_that_is_no_ones_has_no_id(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info", "json")
    log_for_request(logging.getLogger("service.test"), "", "m/1 failed", RuntimeError("why"))
    assert "request_id" not in entry(capsys)


def test_lines_of_a_kind_are_limited_and_those_left_out_are_counted(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    configure("info", "text")
    limited = LimitedLog(logging.getLogger("service.test"), seconds=10.0)
    for _ in range(50):
        limited.warning("full", "the queue is %s", "full")
    limited.warning("late", "too late")
    now += 10.1
    limited.warning("full", "the queue is %s", "full")
    limited.warning("full", "the queue is %s", "full")
    shown = [line.partition("service.test: ")[2] for line in lines(capsys)]
    assert shown[:2] == ["the queue is full", "too late"]
    assert len(shown) == 3
    assert "49 more" in shown[2]
