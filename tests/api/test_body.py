"""A body is bounded in size, time, memory and complexity before anything is made of it."""

import asyncio
import json
import time
import tracemalloc
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings as hypothesis_settings, strategies as st
from starlette.requests import Request

from service.api import body
from service.api.body import MOST_VALUES, BodyLimits, has_more_values, parse_json, read_body
from service.api.lifecycle import Lifecycle, State
from service.errors import Cancelled, MalformedBody, RequestTimeout, TooLarge, Unavailable
from service.settings import Settings
from tests.api.test_bad_input import check_error
from tests.conftest import serving

MIB = 2**20
QUICK = 0.2  # seconds
Part = tuple[float, bytes] | float  # a pause and bytes; a pause alone, and then the client leaves


def many(item: str, count: int) -> str:
    return ",".join([item] * count)


def object_of(count: int) -> str:
    return "{" + ",".join(f'"k{number}":1' for number in range(count)) + "}"


HOSTILE = {
    "5,000 numbers": '{"inputs":[' + many("1", 5_000) + "]}",
    "200,000 numbers": '{"inputs":[' + many("1", 200_000) + "]}",
    "1,000 numbers": '{"inputs":[' + many("1", 1_000) + "]}",
    "numbers for documents": '{"question":"q","documents":[' + many("1", 500) + "]}",
    "unknown keys": object_of(5_000),
    "100,000 unknown keys": object_of(100_000),
    "an input of many keys": '{"inputs":' + object_of(3_000) + "}",
    "inputs of many keys": '{"inputs":[' + many(object_of(30), 200) + "]}",
    "inputs of too many keys": '{"inputs":[' + many(object_of(500), 30) + "]}",
    "documents of many keys": '{"question":"q","documents":[' + many(object_of(30), 200) + "]}",
    "an unknown field of many keys": '{"inputs":"x","more":' + object_of(3_000) + "}",
    "lists in an unknown field": '{"inputs":"x","more":[' + many("[[]]", 9_000) + "]}",
    "lists for a text": '{"inputs":{"text":[' + many("[]", 9_000) + "]}}",
    "lists for a question": '{"question":[' + many("[]", 9_000) + '],"context":"x"}',
    "deep lists": "[" * 50_000,
    "deep lists that end": "[" * 9_000 + "]" * 9_000,
    "deep objects": '{"a":' * 9_000 + "1" + "}" * 9_000,
    "deep inputs": '{"inputs":' * 900 + "1" + "}" * 900,
    "8 MiB of lists": "[" + many("[]", (8 * MIB - 2) // 3) + "]",
    "8 MiB of objects": "[" + many("{}", (8 * MIB - 2) // 3) + "]",
    "8 MiB of lists as inputs": '{"inputs":[' + many("[]", (8 * MIB - 20) // 3) + "]}",
    "8 MiB of empty strings": '{"inputs":[' + many('""', (8 * MIB - 20) // 3) + "]}",
    "8 MiB of marks": "[" * (8 * MIB),
    "8 MiB of one number": "9" * (8 * MIB),
    "8 MiB of long numbers": "[" + many("9" * 4_200, 1_900) + "]",
    "8 MiB of long fractions": "[" + many("0." + "3" * 4_000, 2_000) + "]",
    "8 MiB of blanks": " " * (8 * MIB),
    "8 MiB of backslashes": '{"inputs":"' + "\\\\" * (4 * MIB - 20) + '"}',
    "8 MiB of quotes in a text": '{"inputs":"' + '\\"' * (4 * MIB - 20) + '"}',
    "8 MiB in an unknown field": '{"' + "x" * (8 * MIB - 20) + '":1}',
}


async def ticks(stalls: list[float]) -> None:
    """How late the event loop comes back, at most."""
    while True:
        began = time.perf_counter()
        try:
            await asyncio.sleep(0.005)
        finally:
            stalls.append(time.perf_counter() - began)


@pytest.mark.anyio
@pytest.mark.parametrize("route", ["/classify", "/qa"])
async def test_hostile_bodies_are_refused_quickly_and_with_short_messages(
    client: httpx.AsyncClient, route: str
) -> None:
    slow = {}
    for name, content in HOSTILE.items():
        sent = content.encode()
        assert len(sent) <= 8 * MIB
        seconds = []
        for _ in range(3):
            began = time.perf_counter()
            response = await client.post(route, content=sent)
            seconds.append(time.perf_counter() - began)
            assert response.status_code in (400, 413, 422), name
            assert len(response.json()["error"]["message"]) < 500, name
            if seconds[-1] < QUICK:
                break
        if min(seconds) > QUICK:
            slow[name] = round(min(seconds), 3)
    assert slow == {}


@pytest.mark.anyio
async def test_a_hostile_body_does_not_hold_up_the_others(client: httpx.AsyncClient) -> None:
    for name in ("8 MiB of lists as inputs", "8 MiB of empty strings", "8 MiB of long numbers"):
        worst = []
        for _ in range(3):
            stalls: list[float] = []
            watcher = asyncio.create_task(ticks(stalls))
            await asyncio.sleep(0)
            await client.post("/classify", content=HOSTILE[name].encode())
            watcher.cancel()
            await asyncio.wait([watcher])
            worst.append(max(stalls))
        assert min(worst) < 0.1, name


def test_counting_takes_little_memory_for_itself() -> None:
    content = b"[" + b"{}," * (8 * MIB // 3)
    tracemalloc.start()
    try:
        assert has_more_values(content, MOST_VALUES)
        assert not has_more_values(content, len(content))
        assert tracemalloc.get_traced_memory()[1] < 4 * len(content)
    finally:
        tracemalloc.stop()


@pytest.mark.anyio
async def test_limits_that_are_raised_are_not_undone_by_the_limit_of_values(settings: Settings) -> None:
    pairs = [{"text": "It was not good.", "text_pair": "Nobody knew."}] * 6_000
    async with serving(settings.model_copy(update={"max_inputs": 6_000})) as client:
        response = await client.post("/classify", json={"inputs": pairs, "model": "nope"})

        check_error(response, 404, "model_not_found")


@pytest.mark.anyio
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"])
async def test_json_in_another_encoding_than_utf_8_is_400(encoding: str) -> None:
    """In it, characters of a text may hold the bytes of quotes and brackets, which the limit of values goes by."""
    with pytest.raises(MalformedBody):
        await parse_json('{"inputs": "x"}'.encode(encoding))


@pytest.mark.anyio
async def test_no_encoding_hides_values_from_the_limit() -> None:
    hidden = ('["\u0022\u2200",' + many("[]", 300_000) + "]").encode("utf-16-le")
    with pytest.raises((TooLarge, MalformedBody)):
        await parse_json(hidden)


def naive_count(text: str) -> int:
    """One character after the other."""
    count, inside, escaped = 0, False, False
    for character in text:
        if character == '"' and not escaped:
            inside = not inside
        elif character in "[{,:" and not inside:
            count += 1
        escaped = character == "\\" and not escaped
    return count


def has_exactly(text: str, count: int) -> bool:
    return not has_more_values(text.encode(), count) and (not count or has_more_values(text.encode(), count - 1))


@pytest.fixture(params=[1, 2, 3, 7, body.PIECE])
def _piece(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A body is read in pieces; strings and runs of backslashes may go over their ends."""
    monkeypatch.setattr(body, "PIECE", request.param)


@pytest.mark.usefixtures("_piece")
@hypothesis_settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text('"\\[{,:]}a é', min_size=1, max_size=60))
def test_values_are_counted_as_by_a_plain_reading(text: str) -> None:
    assert has_exactly(text, naive_count(text))


@pytest.mark.usefixtures("_piece")
@pytest.mark.parametrize("before", range(6))
@pytest.mark.parametrize("start", ['"', '["', '[,:"a', ""])
def test_a_quote_after_a_run_of_backslashes_is_escaped_where_their_number_is_odd(start: str, before: int) -> None:
    text = start + "\\" * before + '",[{:"'
    assert has_exactly(text, naive_count(text))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text('"\\[{,:]}a\n\u2028é', max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text('"\\,:a', max_size=4), inner, max_size=4),
    max_leaves=30,
)


def size_of(value: Any) -> int:
    """Its brackets, commas and colons."""
    if isinstance(value, dict):
        return 1 + max(0, len(value) - 1) + len(value) + sum(map(size_of, value.values()))
    if isinstance(value, list):
        return 1 + max(0, len(value) - 1) + sum(map(size_of, value))
    return 0


@hypothesis_settings(deadline=None, max_examples=300)
@given(JSON, st.booleans())
def test_what_stands_in_strings_is_no_value(value: Any, ascii_only: bool) -> None:
    assert has_exactly(json.dumps(value, ensure_ascii=ascii_only), size_of(value))


@pytest.mark.anyio
async def test_a_long_text_full_of_marks_is_one_value() -> None:
    text = '[{,:"\\' * 100_000
    assert await parse_json(json.dumps({"inputs": text}).encode()) == {"inputs": text}
    with pytest.raises(TooLarge, match=str(MOST_VALUES)):
        await parse_json(("[" + many("1", 70_000) + "]").encode())


def request(*parts: Part, length: int | None = None) -> Request:
    """A request whose body comes in ``parts``; after the last one, unless it leaves, it is complete."""
    left = list(parts)
    due: list[float] = []

    async def receive() -> dict[str, Any]:
        """As a server's: who gives up waiting for a part, and comes back, finds it when it is there."""
        part = left[0]
        due[:] = due or [time.monotonic() + (part if isinstance(part, float) else part[0])]
        await asyncio.sleep(due[0] - time.monotonic())
        left.pop(0)
        due.clear()
        if isinstance(part, float):
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": part[1], "more_body": bool(left)}

    headers = [] if length is None else [(b"content-length", str(length).encode())]
    return Request({"type": "http", "headers": headers}, receive)


def stalled(first: bytes = b"{") -> Request:
    async def receive() -> dict[str, Any]:
        if parts:
            return {"type": "http.request", "body": parts.pop(), "more_body": True}
        await asyncio.sleep(60)
        raise AssertionError("nobody waits so long")

    parts = [first]
    return Request({"type": "http", "headers": []}, receive)


def dribbling(gap: float) -> Request:
    """A byte now and then, for ever."""

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(gap)
        return {"type": "http.request", "body": b" ", "more_body": True}

    return Request({"type": "http", "headers": []}, receive)


def limits(largest: int = MIB, memory: int = 8 * MIB, seconds: float = 10.0) -> BodyLimits:
    return BodyLimits(largest, memory, seconds)


async def read(one: Request, given: BodyLimits, life: Lifecycle | None = None, seconds: float = 20.0) -> bytes:
    async with asyncio.timeout(3):
        return await read_body(one, given, life or Lifecycle(), time.monotonic() + seconds)


@pytest.fixture(autouse=True)
def _looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body, "LOOK_SECONDS", 0.02)


@pytest.mark.anyio
async def test_a_body_in_parts_is_put_together() -> None:
    given = limits()
    assert await read(request((0, b"ab"), (0.05, b""), (0.01, b"c")), given) == b"abc"
    assert await read(request((0, b"")), given) == b""
    assert given.held == 0


@pytest.mark.anyio
@pytest.mark.parametrize("make", [stalled, lambda: dribbling(0.005)], ids=["stalled", "dribbling"])
async def test_a_body_that_does_not_come_in_time_is_408(make: Callable[[], Request]) -> None:
    given = limits(seconds=0.2)
    began = time.monotonic()
    with pytest.raises(RequestTimeout, match="body_seconds"):
        await read(make(), given)
    assert 0.15 < time.monotonic() - began < 1
    assert given.held == 0


@pytest.mark.anyio
@pytest.mark.parametrize("make", [stalled, lambda: dribbling(0.005)], ids=["stalled", "dribbling"])
async def test_a_body_is_waited_for_until_the_deadline_at_most(make: Callable[[], Request]) -> None:
    began = time.monotonic()
    with pytest.raises(RequestTimeout):
        await read(make(), limits(), seconds=0.2)
    assert time.monotonic() - began < 1


@pytest.mark.anyio
@pytest.mark.parametrize("make", [stalled, lambda: dribbling(0.005)], ids=["stalled", "dribbling"])
async def test_a_body_that_is_on_its_way_when_the_service_drains_is_503(make: Callable[[], Request]) -> None:
    life = Lifecycle()
    reading = asyncio.create_task(read(make(), limits(), life))
    await asyncio.sleep(0.05)
    life.advance(State.STOPPING)
    await asyncio.sleep(0.05)
    assert not reading.done()  # still answers
    life.advance(State.DRAINING)
    with pytest.raises(Unavailable, match="stopping"):
        await reading


@pytest.mark.anyio
async def test_a_client_that_leaves_is_no_error_of_the_service() -> None:
    with pytest.raises(Cancelled):
        await read(request((0, b"ab"), 0.01), limits())


@pytest.mark.anyio
async def test_a_body_above_the_limit_is_413_as_soon_as_that_is_known() -> None:
    given = limits(largest=100)
    with pytest.raises(TooLarge, match="100 bytes"):
        await read(request((0, b"x" * 60), (0, b"x" * 60), 60.0), given)
    with pytest.raises(TooLarge, match="max_body_bytes"):
        await read(request(60.0, length=101), given)
    assert await read(request((0, b"x" * 100), length=100), given) == b"x" * 100
    assert given.held == 0


@pytest.mark.anyio
async def test_bodies_that_hold_too_much_memory_together_are_503() -> None:
    given = limits(memory=1000)
    first = asyncio.create_task(read(request((0, b"x" * 599), (0.3, b"x"), length=600), given))
    await asyncio.sleep(0.05)
    with pytest.raises(Unavailable, match="max_body_memory"):
        await read(request((0, b"x" * 500), length=500), given)
    assert await read(request((0, b"x" * 400), length=400), given) == b"x" * 400
    await first
    assert given.held == 0
    # One alone is always read, whatever it holds.
    assert len(await read(request((0, b"x" * 5000), length=5000), given)) == 5000


@pytest.mark.anyio
async def test_bodies_that_announce_no_length_count_for_what_they_hold() -> None:
    given = limits(memory=400_000)
    growing = [request((0, b"x" * 300_000), (0.2, b"")) for _ in range(4)]
    outcomes = await asyncio.gather(*(read(one, given) for one in growing), return_exceptions=True)

    assert sum(isinstance(one, bytes) for one in outcomes) <= 2
    assert any(isinstance(one, Unavailable) for one in outcomes)
    assert given.held == 0


@pytest.mark.anyio
async def test_a_chunked_body_above_the_limit_is_413_and_the_next_request_is_answered(
    client: httpx.AsyncClient,
) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(10):
            yield b" " * 1_000_000

    check_error(await client.post("/classify", content=chunks()), 413, "too_large")
    assert (await client.post("/classify", json={"inputs": "ok"})).status_code == 200
