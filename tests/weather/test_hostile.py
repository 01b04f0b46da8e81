"""Hostile and clumsy clients: the work that a body can cause is bounded, and ``/health/live`` answers meanwhile."""

import asyncio
import contextlib
import random
import socket
import time
from collections.abc import Iterator

import httpx
import pytest

from tests.weather.conftest import Serve
from tests.weather.harness import SHORT, Probe, Service, ask, clients, is_ready, wait_until

MOST = 8 * 2**20 - 64
SOON = 0.5  # seconds; on an idle machine it is a tenth, on a busy one of two cores it may be more
WORST_BODIES = {
    "numbers": b'{"inputs": [' + b"1," * (MOST // 2 - 20) + b"1]}",
    "few numbers": b'{"inputs": [' + b"1," * 4999 + b"1]}",
    "objects": b'{"inputs": [' + b"{}," * (MOST // 3 - 20) + b"1]}",
    "lists": b'{"inputs": [' + b"[]," * (MOST // 3 - 20) + b"1]}",
    "strings": b'{"inputs": [' + b'"",' * (MOST // 3 - 20) + b"1]}",
    "keys": b"{" + b",".join(b'"%d":1' % number for number in range(500_000)) + b"}",
    "a wide object in a list": b'{"inputs": [{' + b",".join(b'"%d":1' % number for number in range(500_000)) + b"}]}",
    "depth": b'{"inputs": ' + b"[" * 4_000_000,
    "a long number": b'{"inputs": 1' + b"0" * (MOST - 20) + b"}",
    "escapes": b'{"inputs": "' + b"\\u0041" * (MOST // 6 - 20) + b'"}',
    "surrogates": b'{"inputs": "' + b"\\ud800" * (MOST // 6 - 20) + b'"}',
    "half an object": b'{"inputs": "' + b"x" * (MOST - 20),
    "no text": b"\xff" * MOST,
    "white space": b" " * MOST,
}
WORST_TEXTS = {
    "no space": "x" * 400_000,
    "combining marks": "e" + "\u0301" * 399_999,
    "emoji": "\U0001f468\u200d\U0001f469" * 133_000,
    "ideographs": "\u6c34" * 400_000,
}


@pytest.fixture(scope="module")
def started(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    from tests.weather.harness import service

    repository = request.getfixturevalue("repository")
    with service(repository, tmp_path_factory.mktemp("hostile") / "log") as one:
        yield one


@pytest.mark.parametrize("name", WORST_BODIES)
def test_the_worst_body_of_each_shape_is_answered_soon_and_holds_nobody_up(started: Service, name: str) -> None:
    with Probe(started.url) as probe:
        began = time.monotonic()
        status = httpx.post(f"{started.url}/classify", content=WORST_BODIES[name], timeout=30).status_code
        seconds = time.monotonic() - began

    assert 400 <= status < 500
    assert seconds < 3
    assert probe.worst < SOON


@pytest.mark.parametrize("name", WORST_TEXTS)
def test_twelve_of_the_longest_texts_at_once_hold_nobody_up(started: Service, name: str) -> None:
    text = WORST_TEXTS[name]
    bodies = [
        ("/qa", {"question": text, "context": SHORT}),
        ("/qa", {"question": SHORT, "context": text}),
        ("/classify", {"inputs": text}),
    ]

    async def send() -> list[int]:
        async with clients() as session:
            deadline = {"X-Deadline-Ms": "4000"}
            asked = [ask(session, started.url, body, path, **deadline) for path, body in bodies * 4]
            return [answer.status for answer in await asyncio.gather(*asked)]

    with Probe(started.url) as probe:
        statuses = asyncio.run(send())

    assert set(statuses) <= {200, 413, 422, 429, 504}
    assert probe.worst < SOON


def test_a_thousand_bad_requests_leave_the_service_as_it_was(started: Service) -> None:
    draw = random.Random(3)
    assert is_ready(started)
    descriptors, threads = started.descriptors(), started.threads()
    for _ in range(200):
        rubbish(started.port, draw)
    memory = started.memory()
    for _ in range(1000):
        rubbish(started.port, draw)

    wait_until(lambda: started.descriptors() <= descriptors + 2, 20, started)
    assert started.threads() <= threads + 8  # the executor's own, of which there are few
    assert started.memory() < 1.05 * memory
    assert is_ready(started)
    assert "Traceback" not in started.log.read_text()


LENGTHS = [b"-1", b"1e3", b"99999999999999999999", b"0x12", b"18, 18", b"17", b""]


def rubbish(port: int, draw: random.Random) -> None:
    """One request with something wrong in it."""
    head = b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Length: 18\r\n\r\n" + b'{"inputs": "good"}'
    kind = draw.randrange(6)
    if kind == 0:
        data = draw.randbytes(draw.randrange(1, 300))
    elif kind == 1:
        data = head[: draw.randrange(len(head))]
    elif kind == 2:
        place = draw.randrange(len(head))
        data = head[:place] + draw.randbytes(1) + head[place + 1 :]
    elif kind == 3:
        data = head.replace(
            b"18", draw.choice([b"-1", b"1e3", b"99999999999999999999", b"0x12", b"18, 18", b"17", b""])
        )
    elif kind == 4:
        data = head.replace(b"Content-Length: 18", b"Transfer-Encoding: chunked") + b"\r\nzz\r\n"
    else:
        data = head.replace(b"Host: x", b"X: " + b"y" * draw.randrange(100_000))
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 5) as connection:
        connection.settimeout(0.02)
        connection.sendall(data)
        with contextlib.suppress(TimeoutError):
            connection.recv(4096)


def test_idle_connections_make_room_and_few_descriptors_are_enough(serve: Serve) -> None:
    started = serve("--header-seconds", "30", before="ulimit -n 256;")
    idle = [socket.create_connection(("127.0.0.1", started.port)) for _ in range(400)]

    async def asked() -> list[int]:
        async with clients() as session:
            return [(await ask(session, started.url, {"inputs": SHORT})).status for _ in range(10)]

    assert asyncio.run(asked()) == [200] * 10
    for connection in idle:
        connection.close()


def test_slow_heads_and_bodies_are_closed_in_time(serve: Serve) -> None:
    started = serve("--header-seconds", "1", "--body-seconds", "1", "--keep-alive-seconds", "1")
    before = started.descriptors()
    head = b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n"
    slow = [socket.create_connection(("127.0.0.1", started.port)) for _ in range(150)]
    for number, connection in enumerate(slow):
        connection.sendall((b"", head, head + b"\r\n{")[number % 3])

    wait_until(lambda: started.descriptors() <= before + 2, 8, started)
    assert is_ready(started)
    for connection in slow:
        connection.close()


def test_stalled_bodies_do_not_hold_up_the_end(serve: Serve) -> None:
    started = serve("--drain-seconds", "20")
    connection = socket.create_connection(("127.0.0.1", started.port))
    connection.sendall(b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{")
    time.sleep(0.3)
    began = time.monotonic()

    assert started.stop() == 0
    assert time.monotonic() - began < 5
    assert b" 503 " in connection.recv(4096)
    connection.close()


def test_one_answer_to_a_request_that_asks_for_another_protocol(started: Service) -> None:
    body = b'{"inputs": "It was not good."}'
    head = (
        b"POST /classify HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
        b"HTTP2-Settings: AAMAAABkAAQAAP__\r\nContent-Length: %d\r\n\r\n" % len(body)
    )
    with socket.create_connection(("127.0.0.1", started.port)) as connection:
        connection.settimeout(2)
        connection.sendall(head)
        time.sleep(0.1)
        connection.sendall(body)
        time.sleep(0.3)
        answer = connection.recv(65536)

    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.count(b"HTTP/1.1") == 1


def test_a_client_of_another_maker_sees_the_refusal_of_a_body_that_is_too_large(started: Service) -> None:
    answer = httpx.post(f"{started.url}/classify", content=b"x" * 30_000_000, timeout=30)

    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "too_large"
