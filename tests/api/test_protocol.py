"""Connections of a real server, spoken to byte by byte: limits, upgrades, and exactly one answer to each request."""

import asyncio
import contextlib
import http.client
import io
import json
import logging
import re
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import httpx
import pytest
import uvicorn
from uvicorn._types import ASGIReceiveCallable, ASGISendCallable, Scope

from service.api.protocol import ConnectionLimits, bounded

LIMITS = ConnectionLimits(connections=50, header_bytes=4096, headers=20, header_seconds=5.0)
KEEP_ALIVE = 1  # seconds
MIB = 2**20
BODY = b'{"inputs": "It was not good."}'


@dataclass
class Echo:
    """An app that tells what it was asked.  /refuse answers 413 and reads nothing; /hold waits for ``release``."""

    release: threading.Event = field(default_factory=threading.Event)
    asked: list[str] = field(default_factory=list)
    began: list[float] = field(default_factory=list)

    async def __call__(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        assert scope["type"] == "http"
        self.asked.append(f"{scope['method']} {scope['path']}")
        self.began.append(scope["state"]["began"])
        if scope["path"] == "/refuse":
            await answer(send, 413, {"error": "too large"})
            return
        if scope["path"] == "/hold":
            while not self.release.is_set():  # noqa: ASYNC110  # it is set from another thread
                await asyncio.sleep(0.01)
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                return
            body += message["body"]
            more = message["more_body"]
        names = sorted(name.decode() for name, _ in scope["headers"])
        told = {"method": scope["method"], "path": scope["path"], "size": len(body), "headers": names}
        await answer(send, 200, told | {"body": body[:100].decode()})


async def answer(send: ASGISendCallable, status: int, told: dict[str, Any]) -> None:
    content = json.dumps(told).encode()
    headers = [(b"content-length", str(len(content)).encode()), (b"content-type", b"application/json")]
    if status == 413:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": status, "headers": headers, "trailers": False})
    await send({"type": "http.response.body", "body": content, "more_body": False})


@dataclass
class Listening:
    port: int
    echo: Echo
    server: uvicorn.Server

    def connect(self, seconds: float = 5.0) -> "Client":
        return Client(socket.create_connection(("127.0.0.1", self.port), seconds))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def connections(self) -> int:
        return len(self.server.server_state.connections)


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: Any


@dataclass
class Client:
    """A connection that sends what it is told, and reads answers one at a time."""

    socket: socket.socket
    left: bytes = b""

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *exc: object) -> None:
        self.socket.close()

    def send(self, *parts: bytes, pause: float = 0.0) -> None:
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for part in parts:
            self.socket.sendall(part)
            time.sleep(pause)

    def answer(self) -> Answer:
        """The next answer; a 100 is one, too."""
        while b"\r\n\r\n" not in self.left:
            self._more()
        head, _, self.left = self.left.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        length = int(headers.get("content-length", 0))
        while len(self.left) < length:
            self._more()
        body, self.left = self.left[:length], self.left[length:]
        return Answer(int(first.split()[1]), headers, json.loads(body) if body else None)

    def rest(self) -> bytes:
        """What comes until the other side closes."""
        with contextlib.suppress(ConnectionError):
            while data := self.socket.recv(65_536):
                self.left += data
        return self.left

    def silent(self, seconds: float = 0.2) -> bool:
        """Nothing comes for so long, and nothing has come."""
        self.socket.settimeout(seconds)
        try:
            return not self.left and self.socket.recv(1) is None
        except TimeoutError:
            return True
        finally:
            self.socket.settimeout(5)

    def _more(self) -> None:
        data = self.socket.recv(65_536)
        assert data, f"closed after {self.left!r}"
        self.left += data


@contextlib.contextmanager
def listening(limits: ConnectionLimits = LIMITS) -> Iterator[Listening]:
    echo, listener = Echo(), socket.create_server(("127.0.0.1", 0), backlog=512)
    config = uvicorn.Config(
        echo, http=bounded(limits), ws="none", lifespan="off", log_config=None, access_log=False, server_header=False,
        timeout_keep_alive=KEEP_ALIVE, timeout_graceful_shutdown=1,
    )  # fmt: skip
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        wait_until(lambda: server.started)
        yield Listening(listener.getsockname()[1], echo, server)
    finally:
        echo.release.set()
        server.should_exit = True
        thread.join(10)


def wait_until(condition: Callable[[], object], seconds: float = 5.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


@pytest.fixture(scope="module")
def shared() -> Iterator[Listening]:
    with listening() as started:
        yield started


@pytest.fixture
def server(shared: Listening, caplog: pytest.LogCaptureFixture) -> Iterator[Listening]:
    """One for all tests that change nothing; none of them may leave a traceback in the log."""
    shared.echo.release.clear()
    shared.echo.asked.clear()
    caplog.set_level(logging.WARNING)
    yield shared
    shared.echo.release.set()
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []


def head(path: str = "/x", *lines: str, method: str = "POST", length: int | None = len(BODY)) -> bytes:
    sized = [] if length is None else [f"Content-Length: {length}"]
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: test", *lines, *sized, "", ""]).encode()


PLAIN = head("/next")
UPGRADES = {
    "h2c": ["Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA"],
    "h2c and keep-alive": ["Connection: keep-alive, Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMA"],
    "websocket": [
        "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    ],
    "TLS/1.0": ["Connection: upgrade", "Upgrade: TLS/1.0"],
    "foo": ["connection: UPGRADE", "upgrade: foo"],
    "two headers": ["Connection: keep-alive", "Connection: Upgrade", "Upgrade: h2c"],
}  # fmt: skip
WAYS: dict[str, Callable[[bytes], list[bytes]]] = {
    "at once": lambda request: [request],
    "body later": lambda request: [request[: -len(BODY)], request[-len(BODY) :]],
    "body in two": lambda request: [request[:-10], request[-10:]],
    "head in two": lambda request: [request[:40], request[40:]],
    "byte by byte": lambda request: [request[index : index + 1] for index in range(len(request))],
}


def check_next(client: Client) -> None:
    """The connection is good for another request, and nothing is left of the last."""
    client.send(PLAIN + BODY)
    other = client.answer()
    assert (other.status, other.body["path"], other.body["body"]) == (200, "/next", BODY.decode())
    assert client.silent(0.05)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("upgrade", UPGRADES)
def test_an_upgrade_that_is_not_spoken_is_ignored_and_the_request_answered(
    server: Listening, upgrade: str, way: str
) -> None:
    parts = WAYS[way](head("/x", *UPGRADES[upgrade]) + BODY)
    with server.connect() as client:
        client.send(*parts, pause=0.03 if len(parts) == 2 else 0.0005)
        answer = client.answer()

        assert answer.status == 200
        assert (answer.body["path"], answer.body["body"], answer.body["size"]) == ("/x", BODY.decode(), len(BODY))
        assert "upgrade" not in answer.headers
        check_next(client)
    assert server.echo.asked == ["POST /x", "POST /next"]


@pytest.mark.parametrize("upgrade", UPGRADES)
def test_requests_that_are_sent_ahead_are_answered_in_turn(server: Listening, upgrade: str) -> None:
    one = head("/one", *UPGRADES[upgrade]) + BODY
    two = head("/two", *UPGRADES[upgrade], method="GET", length=None)
    with server.connect() as client:
        client.send(one + two + PLAIN + BODY + one)
        answers = [client.answer() for _ in range(4)]

        assert [answer.status for answer in answers] == [200] * 4
        assert [answer.body["path"] for answer in answers] == ["/one", "/two", "/next", "/one"]
        assert [answer.body["size"] for answer in answers] == [len(BODY), 0, len(BODY), len(BODY)]
        assert client.silent()


def test_a_chunked_body_after_an_upgrade_is_read(server: Listening) -> None:
    chunks = [b"5\r\nhello\r\n", b"6\r\n world\r\n", b"0\r\n\r\n"]
    with server.connect() as client:
        client.send(head("/x", *UPGRADES["h2c"], "Transfer-Encoding: chunked", length=None), *chunks, pause=0.02)
        assert client.answer().body["body"] == "hello world"
        check_next(client)


def test_an_upgrade_on_a_connection_that_is_to_be_closed_gets_its_answer(server: Listening) -> None:
    wish = head("/x", "Connection: close, Upgrade", "Upgrade: h2c")
    for after in (b"", b"\r\n", PLAIN + BODY):
        with server.connect() as client:
            client.send(wish, BODY + after, pause=0.02)
            answer = client.answer()
            assert (answer.status, answer.body["body"]) == (200, BODY.decode())
            assert answer.headers["connection"] == "close"
            assert client.rest() == b""


def test_a_thousand_upgrades_sent_ahead_are_all_answered(server: Listening) -> None:
    with server.connect(20) as client:
        client.send(head("/x", "Connection: Upgrade", "Upgrade: h2c", method="GET", length=None) * 2_000)
        assert {client.answer().status for _ in range(2_000)} == {200}
        check_next(client)


def test_the_limits_hold_for_requests_that_ask_for_an_upgrade(server: Listening) -> None:
    for lines in (["X-Long: " + "x" * 5000], [f"X-{number}: 1" for number in range(30)]):
        with server.connect() as client:
            client.send(head("/x", *UPGRADES["h2c"], *lines) + BODY)
            assert client.answer().status == 431
            assert client.rest() == b""


def test_expect_100_continue_with_an_upgrade(server: Listening) -> None:
    with server.connect() as client:
        client.send(head("/x", *UPGRADES["h2c"], "Expect: 100-continue"))
        assert client.answer().status == 100
        client.send(BODY)
        assert client.answer().body["body"] == BODY.decode()
        check_next(client)


def test_connect_is_refused_and_closed(server: Listening) -> None:
    for more in (b"", b"\x16\x03\x01\x02\x00"):
        with server.connect() as client:
            client.send(head("example.com:443", method="CONNECT", length=None) + more)
            answer = client.answer()
            assert answer.status == 405
            assert answer.body["error"]["code"] == "method_not_allowed"
            assert client.rest() == b""
    assert server.echo.asked == []


@pytest.mark.parametrize(
    "sent",
    [
        b"nonsense\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /\x00 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHo st: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999999\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
)
def test_what_cannot_be_read_is_400_with_an_error_of_the_usual_shape(server: Listening, sent: bytes) -> None:
    with server.connect() as client:
        client.send(sent)
        answer = client.answer()

        assert answer.status == 400
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["connection"] == "close"
        assert set(answer.body["error"]) == {"code", "message", "request_id"}
        assert answer.body["error"]["request_id"] == answer.headers["x-request-id"]
        assert client.rest() == b""
    assert server.echo.asked == []


def test_a_body_that_turns_out_unreadable_closes_the_connection_without_a_second_answer(server: Listening) -> None:
    with server.connect() as client:
        client.send(head("/x", "Transfer-Encoding: chunked", length=None) + b"zz\r\n")
        assert len(re.findall(rb"HTTP/1.1 \d", client.rest())) <= 1


def test_what_follows_a_request_in_work_and_cannot_be_read_does_not_cost_it_its_answer(server: Listening) -> None:
    with server.connect() as client:
        client.send(head("/hold") + BODY)
        wait_until(lambda: server.echo.asked)
        client.send(b"nonsense\r\n\r\n")
        time.sleep(0.1)
        server.echo.release.set()
        answer = client.answer()
        assert (answer.status, answer.body["path"]) == (200, "/hold")
        assert len(re.findall(rb"HTTP/1.1 \d", client.rest())) <= 1


@pytest.mark.parametrize(
    "sent",
    [
        head("/x", "X-Long: " + "x" * 5000) + BODY,
        head("/" + "x" * 5000) + BODY,
        head("/x", *[f"X-{number}: {'x' * 400}" for number in range(12)]) + BODY,
        head("/x", *[f"X-{number}: 1" for number in range(30)]) + BODY,
    ],
    ids=["one header", "path", "together", "number"],
)
def test_a_head_that_is_too_large_is_431(server: Listening, sent: bytes) -> None:
    for parts in ([sent], [sent[start : start + 700] for start in range(0, len(sent), 700)]):
        with server.connect() as client:
            with contextlib.suppress(ConnectionError):
                client.send(*parts, pause=0.002)
            answer = client.answer()
            assert (answer.status, answer.body["error"]["code"]) == (431, "headers_too_large")
            assert answer.headers["connection"] == "close"
            assert client.rest() == b""
    assert server.echo.asked == []


@pytest.mark.parametrize("start", [b"GET /x HTTP/1.1\r\nX-Endless: ", b"GET /", b"GET /x HTTP/1.1\r\n"])
def test_a_head_that_never_ends_is_431_long_before_it_fills_the_memory(server: Listening, start: bytes) -> None:
    sent = 0
    with server.connect() as client:
        client.send(start)
        client.socket.settimeout(0.001)
        while sent < 3 * MIB:
            try:
                sent += client.socket.send(b"x" * 16_384)
                client.left += client.socket.recv(65_536)
                break
            except TimeoutError:
                continue
        client.socket.settimeout(5)
        assert client.answer().status == 431
    assert sent < 2 * MIB


def test_just_below_the_limits_is_answered(server: Listening) -> None:
    lines = [f"X-{number}: {'x' * 180}" for number in range(16)]
    with server.connect() as client:
        client.send(head("/x", *lines) + BODY)
        assert client.answer().status == 200
        check_next(client)


def test_a_head_that_comes_slowly_is_408_however_regularly_it_comes() -> None:
    with listening(ConnectionLimits(50, 4096, 20, header_seconds=0.5)) as server:
        for first in (b"", PLAIN + BODY):
            with server.connect() as client:
                if first:
                    client.send(first)
                    assert client.answer().status == 200
                began = time.monotonic()
                with contextlib.suppress(ConnectionError):
                    for byte in head("/x", "X-Long: " + "x" * 60):
                        client.send(bytes([byte]), pause=0.02)
                answer = client.answer()
                assert (answer.status, answer.body["error"]["code"]) == (408, "request_timeout")
                assert client.rest() == b""
                assert time.monotonic() - began < 5


def test_a_connection_on_which_nothing_comes_is_closed() -> None:
    with listening(ConnectionLimits(50, 4096, 20, header_seconds=0.3)) as server:
        with server.connect() as client:
            began = time.monotonic()
            assert client.rest() == b""
            assert 0.2 < time.monotonic() - began < 2
        wait_until(lambda: server.connections == 0)


@pytest.mark.parametrize("after", [b"", b"\r\n", b"\r\n\r\n"])
def test_a_connection_is_closed_when_no_other_request_comes(server: Listening, after: bytes) -> None:
    with server.connect() as client:
        client.send(PLAIN + BODY)
        assert client.answer().status == 200
        client.send(after)
        assert client.rest() == b""


def test_an_answer_may_take_longer_than_a_head_or_a_pause_between_requests() -> None:
    with listening(ConnectionLimits(50, 4096, 20, header_seconds=0.3)) as server, server.connect() as client:
        client.send(head("/hold") + BODY)
        time.sleep(KEEP_ALIVE + 0.5)
        server.echo.release.set()
        assert client.answer().status == 200


def test_the_connection_that_was_idle_longest_makes_room_for_a_new_one() -> None:
    with listening(ConnectionLimits(4, 4096, 20, header_seconds=10.0)) as server, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(server.connect()) for _ in range(4)]
        for client in (clients[1], clients[2], clients[3], clients[0]):
            client.send(PLAIN + BODY)
            assert client.answer().status == 200
            time.sleep(0.02)
        fresh = stack.enter_context(server.connect())
        fresh.send(PLAIN + BODY)

        assert fresh.answer().status == 200
        assert clients[1].rest() == b""
        for client in (clients[0], clients[2], clients[3]):
            client.send(PLAIN + BODY)
            assert client.answer().status == 200


def test_a_connection_more_than_the_limit_is_503_where_none_is_idle() -> None:
    with listening(ConnectionLimits(4, 4096, 20, header_seconds=10.0)) as server, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(server.connect()) for _ in range(4)]
        for client in clients:
            client.send(head("/hold") + BODY)
        wait_until(lambda: len(server.echo.asked) == 4)
        for sent in (b"", PLAIN + BODY):
            refused = stack.enter_context(server.connect())
            refused.send(sent)
            answer = refused.answer()
            assert (answer.status, answer.body["error"]["code"]) == (503, "too_many_connections")
            assert refused.rest() == b""
        server.echo.release.set()
        assert [client.answer().status for client in clients] == [200] * 4
        again = stack.enter_context(server.connect())
        again.send(PLAIN + BODY)
        assert again.answer().status == 200


def test_many_connections_that_send_nothing_keep_nobody_out() -> None:
    with listening(ConnectionLimits(8, 4096, 20, header_seconds=10.0)) as server, contextlib.ExitStack() as stack:
        for _ in range(200):
            stack.enter_context(server.connect())
        client = stack.enter_context(server.connect())
        client.send(PLAIN + BODY)
        assert client.answer().status == 200
        wait_until(lambda: server.connections <= 8)


def by_urllib(url: str, body: bytes) -> int:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body), timeout=20) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code if json.loads(error.read()) == {"error": "too large"} else 0


def by_http_client(url: str, body: bytes) -> int:
    with contextlib.closing(http.client.HTTPConnection(url.split("/")[2], timeout=20)) as connection:
        connection.request("POST", "/refuse", body)
        response = connection.getresponse()
        assert json.loads(response.read()) == {"error": "too large"}
        return response.status


def by_httpx(url: str, body: bytes) -> int:
    return httpx.post(url, content=body, timeout=20).status_code


def by_httpx_chunked(url: str, body: bytes) -> int:
    parts = (body[start : start + 65_536] for start in range(0, len(body), 65_536))
    return httpx.post(url, content=parts, timeout=20).status_code


def by_aiohttp(url: str, body: bytes) -> int:
    async def ask() -> int:
        async with aiohttp.ClientSession() as session, session.post(url, data=io.BytesIO(body)) as response:
            assert await response.json() == {"error": "too large"}
            return response.status

    return asyncio.run(ask())


def by_sending_all_first(url: str, body: bytes) -> int:
    """As plain clients do: nothing is read before all is sent."""
    with Client(socket.create_connection(("127.0.0.1", int(url.split(":")[2].split("/")[0])), 20)) as client:
        client.send(head("/refuse", length=len(body)))
        time.sleep(0.2)
        client.send(body)
        answer = client.answer()
        assert client.rest() == b""
        return answer.status


@pytest.mark.parametrize(
    "ask", [by_urllib, by_http_client, by_httpx, by_httpx_chunked, by_aiohttp, by_sending_all_first]
)
def test_a_client_that_is_refused_while_it_sends_twenty_megabytes_reads_the_answer(
    server: Listening, ask: Callable[[str, bytes], int]
) -> None:
    for _ in range(3):
        assert ask(f"{server.url}/refuse", b"x" * (20 * MIB)) == 413
    wait_until(lambda: server.connections == 0)


def test_a_refused_client_that_sends_for_ever_or_nothing_more_is_let_go(server: Listening) -> None:
    with server.connect() as quiet, server.connect() as endless:
        for client in (quiet, endless):
            client.send(head("/refuse", length=10**12))
            assert client.answer().status == 413
        sent = 0
        endless.socket.settimeout(15)
        with contextlib.suppress(ConnectionError):
            while sent < 200 * MIB:
                endless.socket.sendall(b"x" * MIB)
                sent += MIB
        assert sent < 150 * MIB
        wait_until(lambda: server.connections == 0, 5)


def test_what_is_sent_after_a_refusal_is_never_a_request(server: Listening) -> None:
    with server.connect() as client:
        client.send(head("/refuse", length=1000), PLAIN + BODY, pause=0.05)
        assert client.answer().status == 413
        assert client.rest() == b""
    assert server.echo.asked == ["POST /refuse"]


def test_expect_100_continue_is_honoured_and_not_where_the_request_is_refused(server: Listening) -> None:
    with server.connect() as client:
        client.send(head("/x", "Expect: 100-continue"))
        assert client.answer().status == 100
        client.send(BODY)
        assert client.answer().body["body"] == BODY.decode()
        check_next(client)
    with server.connect() as client:
        client.send(head("/refuse", "Expect: 100-continue", length=20 * MIB))
        assert client.answer().status == 413
        assert client.rest() == b""


def test_a_request_begins_with_its_first_byte(server: Listening) -> None:
    for lines in ([], UPGRADES["h2c"]):
        server.echo.began.clear()
        request = head("/x", *lines) + BODY
        with server.connect() as client:
            time.sleep(0.1)
            sent = time.monotonic()
            client.send(request[:5], request[5:30], request[30:], pause=0.1)
            assert client.answer().status == 200
        (began,) = server.echo.began
        assert -0.01 < began - sent < 0.09


def test_plain_old_requests_are_answered(server: Listening) -> None:
    with server.connect() as client:
        client.send(b"GET /old HTTP/1.0\r\n\r\n")
        assert client.answer().body["path"] == "/old"
        assert client.rest() == b""
    with server.connect() as client:
        client.send(head("/head", method="HEAD", length=None))
        client.socket.settimeout(0.3)
        with pytest.raises(TimeoutError):
            client.rest()
        assert client.left.startswith(b"HTTP/1.1 200 ")
        assert client.left.endswith(b"\r\n\r\n")


def test_refusals_of_connections_are_logged_and_rate_limited(
    server: Listening, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(30):
        with server.connect() as client:
            client.send(b"nonsense\r\n\r\n")
            assert client.answer().status == 400
    assert len([record for record in caplog.records if record.name == "service.api.protocol"]) <= 1
