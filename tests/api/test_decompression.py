"""A compressed body is read as if it were not, and bounded as if it were not."""

import gzip
import json
import time
import tracemalloc
import zlib

import httpx
import pytest
from hypothesis import given, settings as hypothesis_settings, strategies as st

from service.api.body import BodyLimits
from service.api.decompression import _unpacked, decompress
from service.errors import MalformedBody, TooLarge
from tests.api.test_bad_input import check_error

pytestmark = pytest.mark.anyio
LIMITS = BodyLimits(largest=2**20, memory=2**22, seconds=1.0)
BODY = json.dumps({"inputs": ["It was not good."] * 20}).encode()
RAW = zlib.compressobj(wbits=-15)
PACKED = {
    "gzip": gzip.compress(BODY),
    "GZip": gzip.compress(BODY),
    "x-gzip": gzip.compress(BODY[:50]) + gzip.compress(BODY[50:]),
    "deflate": zlib.compress(BODY),
    "Deflate": RAW.compress(BODY) + RAW.flush(),
    "identity": BODY,
}


@pytest.mark.parametrize("encoding", PACKED)
async def test_the_answer_is_that_to_the_plain_body(client: httpx.AsyncClient, encoding: str) -> None:
    plain = await client.post("/classify", content=BODY)
    packed = await client.post("/classify", content=PACKED[encoding], headers={"Content-Encoding": encoding})

    assert packed.status_code == 200
    assert packed.json() == plain.json()


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip", "compress"])
async def test_another_encoding_is_415_and_says_which_are_taken(client: httpx.AsyncClient, encoding: str) -> None:
    response = await client.post("/classify", content=BODY, headers={"Content-Encoding": encoding})

    check_error(response, 415, "unsupported_encoding")
    assert response.headers["accept-encoding"] == "gzip, deflate"


@pytest.mark.parametrize("route", ["/classify", "/qa", "/explain"])
@pytest.mark.parametrize("body", [gzip.compress(BODY)[:-9], b"\x1f\x8b" + b"x" * 40, BODY, gzip.compress(BODY) + b"!"])
async def test_damaged_cut_off_or_plain_is_400(client: httpx.AsyncClient, route: str, body: bytes) -> None:
    response = await client.post(route, content=body, headers={"Content-Encoding": "gzip"})

    check_error(response, 400, "malformed_body")


async def test_a_bomb_is_413_at_once_and_takes_no_memory() -> None:
    bomb = gzip.compress(bytes(200 * 2**20), 9)
    tracemalloc.start()
    began = time.perf_counter()
    with pytest.raises(TooLarge, match="max_body_bytes"):
        await decompress(bomb, "gzip", LIMITS)
    seconds, (_, most) = time.perf_counter() - began, tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert seconds < 0.5
    assert most < 4 * LIMITS.largest


async def test_many_small_members_are_bounded_together() -> None:
    with pytest.raises(TooLarge):
        await decompress(gzip.compress(bytes(100_000)) * 11, "gzip", LIMITS)


async def test_empty_members_by_the_thousand_cost_nothing() -> None:
    began = time.perf_counter()
    with pytest.raises(MalformedBody):
        await decompress(gzip.compress(b"") * 50_000, "gzip", LIMITS)
    assert time.perf_counter() - began < 0.5


@given(body=st.binary(max_size=300), window=st.sampled_from([31, 15, -15]))
@hypothesis_settings(deadline=None)
def test_whatever_is_packed_comes_out_or_is_refused(body: bytes, window: int) -> None:
    packer = zlib.compressobj(wbits=window)
    packed = packer.compress(body) + packer.flush()
    assert _unpacked(packed, (window,), LIMITS) == body
    for cut in range(0, len(packed) - 1, 7):
        if packed[:cut]:
            with pytest.raises(MalformedBody):
                _unpacked(packed[:cut], (window,), LIMITS)
