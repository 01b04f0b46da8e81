"""The client for programs that wait, before a real server process."""

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from albert_client import AsyncClient, Client, Refused, Retries, Unanswered
from albert_client.progress import reporting

from tests.system.conftest import Server, Start, free_port, start

__all__ = ["start"]
TEXT = "Clara repaired the clock in 1887."


@pytest.fixture(scope="module")
def server(start: Start, repository: Path) -> Server:
    return start(repository, "--api-keys", '["let-me-in"]')


@pytest.fixture
def albert(server: Server) -> Iterator[Client]:
    with Client(server.url, api_key="let-me-in") as client:
        yield client


def test_all_that_it_can_ask(albert: Client) -> None:
    one = albert.classify("It was good.")
    assert [found.label for found in albert.classify_many(["It was good."] * 3, part=2)] == [one.label] * 3  # type: ignore[union-attr]
    best = albert.ask("Who?", TEXT).best
    assert best is not None
    assert TEXT[best.start : best.end] == best.text
    assert len(albert.ask_many([("Who?", TEXT), ("When?", [TEXT, TEXT])])) == 2
    assert albert.explain("It was good.").label == one.label
    assert {model.name for model in albert.models()} == {"qa", "sentiment"}


def test_threads_may_share_it(albert: Client) -> None:
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(albert.classify("good").label)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(found) == 8


def test_the_services_own_words_are_raised(server: Server, albert: Client) -> None:
    with pytest.raises(Refused, match=r"empty.* \(422 invalid_request\)"):
        albert.classify("")
    with pytest.raises(Refused, match=r"\(401 unauthorized\)") as refused, Client(server.url) as stranger:
        stranger.classify("good")
    assert "let-me-in" not in repr(vars(refused.value))
    assert "let-me-in" not in repr(albert._connection)


def test_a_deadline_is_kept_by_the_service_too(albert: Client) -> None:
    with pytest.raises(Refused) as refused:
        albert.classify_many(["word " * 400] * 500, part=500, priority="interactive", deadline=0.3)
    assert refused.value.status in (429, 503, 504)
    with pytest.raises(ValueError, match="deadline"):
        albert.classify("good", deadline=0)


def test_where_nobody_answers_it_says_so() -> None:
    with (
        Client(f"http://127.0.0.1:{free_port()}") as client,
        pytest.raises(Unanswered, match="no albert-serve answers"),
    ):
        client.models(deadline=0.5)
    with pytest.raises(ValueError, match="does not begin with http"):
        Client("localhost:8000")


def test_progress_is_a_bar_a_function_or_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with reporting(True, 4) as advance:
        advance(4)
    assert "4/4" in capsys.readouterr().err
    with reporting(False, 4) as advance:
        advance(4)
    assert capsys.readouterr().err == ""


class Dripping:
    """A server that sends its answer byte by byte, for ever."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._drip, args=(connection,), daemon=True).start()

    @staticmethod
    def _drip(connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            connection.recv(4096)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
            while True:
                connection.sendall(b" ")
                time.sleep(0.1)

    def close(self) -> None:
        self._listener.close()


def test_who_sends_byte_by_byte_is_cut_off_by_the_clock() -> None:
    server = Dripping()
    began = time.monotonic()
    with Client(server.url, retries=Retries(1)) as client, pytest.raises(Unanswered, match="in time"):
        client.models(deadline=0.5)
    assert time.monotonic() - began < 5

    async def ask() -> None:
        async with AsyncClient(server.url, retries=Retries(1)) as client:
            await client.models(deadline=0.5)

    with pytest.raises(Unanswered, match="in time"):
        asyncio.run(ask())
    assert time.monotonic() - began < 8
    server.close()
