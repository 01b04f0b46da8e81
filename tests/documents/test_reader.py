"""The process that reads files: bounded, killed where it hangs, and started again."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from service.documents import reader as module
from service.documents.reader import DocumentReader
from service.errors import DeadlineExceeded, InvalidRequest, QueueFull, TooLarge, Unavailable
from tests.documents.made import LINES, pdf, picture, saved

pytestmark = pytest.mark.anyio
FILE = pdf([LINES])


def made(**changes: Any) -> DocumentReader:
    return DocumentReader(**({"seconds": 20.0, "pages": 10, "chars": 100_000, "memory": 4096} | changes))


@pytest.fixture
async def reader() -> AsyncIterator[DocumentReader]:
    one = made()
    yield one
    await one.close()


def soon(seconds: float = 20) -> float:
    return time.monotonic() + seconds


async def test_what_is_read_there_is_here(reader: DocumentReader) -> None:
    found = await reader.read(FILE, soon())
    at = found.text.index("1902")
    place = found.place(at, at + 4)

    assert place is not None
    assert len(place.boxes) == 1
    assert (await reader.picture(FILE, 1, soon())).startswith(b"\x89PNG")


async def test_one_process_reads_file_after_file(reader: DocumentReader) -> None:
    found = await asyncio.gather(*(reader.read(f"text {number}".encode(), soon()) for number in range(8)))

    assert [one.text for one in found] == [f"text {number}" for number in range(8)]
    first = reader._process
    await reader.read(FILE, soon())
    assert reader._process is first


async def test_a_bad_file_harms_no_other(reader: DocumentReader) -> None:
    with pytest.raises(InvalidRequest, match="damaged"):
        await reader.read(FILE[:200], soon())
    with pytest.raises(TooLarge, match="12 pages"):
        await reader.read(pdf([["a"]] * 12), soon())
    assert "1887" in (await reader.read(FILE, soon())).text


async def test_a_process_that_dies_is_replaced(reader: DocumentReader) -> None:
    await reader.read(b"text", soon())
    assert reader._process
    reader._process.kill()
    await reader._process.wait()
    assert (await reader.read(b"again", soon())).text == "again"


async def test_a_process_that_is_killed_in_the_middle_is_no_fault_of_the_file(reader: DocumentReader) -> None:
    await reader.read(b"text", soon())
    process = reader._process
    assert process
    reading = asyncio.create_task(reader.read(pdf([LINES], pictures=True), soon()))
    await asyncio.sleep(0.1)
    process.kill()
    with pytest.raises(Unavailable, match="stopped from outside; try again"):
        await reading
    assert (await reader.read(b"again", soon())).text == "again"


async def test_what_takes_too_long_is_killed() -> None:
    slow = made(seconds=0.01)
    with pytest.raises(TooLarge, match=r"takes more than 0\.01 s \(document_seconds\)"):
        await slow.read(FILE, soon())
    assert slow._process is None
    await slow.close()


async def test_the_deadline_is_the_requests(reader: DocumentReader) -> None:
    await reader.read(b"text", soon())
    before = reader._process
    with pytest.raises(DeadlineExceeded):
        await reader.read(pdf([LINES] * 5, pictures=True), soon(0.05))
    assert reader._process is not before  # it does not go on for nobody
    assert (await reader.read(b"again", soon())).text == "again"


async def test_so_many_wait_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_WAITING", 3)
    causes: list[str] = []
    reader = made(on_refusal=causes.append)
    waiting = [asyncio.create_task(reader.read(FILE, soon())) for _ in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(QueueFull) as refused:
        await reader.read(FILE, soon())
    assert refused.value.retry_after
    assert causes == ["documents"]
    await asyncio.gather(*waiting)
    await reader.close()


async def test_memory_is_bounded() -> None:
    small = made(memory=512)
    try:
        with pytest.raises((InvalidRequest, TooLarge)):
            await small.read(pdf([LINES], pictures=True), soon())
    finally:
        await small.close()


async def test_an_idle_process_goes(monkeypatch: pytest.MonkeyPatch, reader: DocumentReader) -> None:
    monkeypatch.setattr(module, "IDLE_SECONDS", 0.05)
    await reader.read(b"text", soon())
    process = reader._process
    assert process
    await asyncio.wait_for(process.wait(), 5)
    assert reader._process is None
    assert (await reader.read(b"again", soon())).text == "again"


@pytest.mark.parametrize(
    ("number", "error", "said"),
    [(signal.SIGSEGV, InvalidRequest, "it ended the process"), (signal.SIGABRT, TooLarge, "document_memory_mb")],
)
async def test_a_file_that_ends_the_process_is_refused(
    reader: DocumentReader, number: int, error: type[Exception], said: str
) -> None:
    await reader.read(b"text", soon())
    reading = asyncio.create_task(reader.read(pdf([LINES], pictures=True), soon()))
    await asyncio.sleep(0.1)
    assert reader._process
    reader._process.send_signal(number)
    with pytest.raises(error, match=said):
        await reading
    assert (await reader.read(b"again", soon())).text == "again"


async def test_who_stops_the_service_stops_no_file(reader: DocumentReader) -> None:
    """Ctrl-C and systemd tell all processes of the group."""
    await reader.read(b"text", soon())
    assert reader._process
    assert os.getpgid(reader._process.pid) != os.getpgid(0)
    reading = asyncio.create_task(reader.read(pdf([LINES], pictures=True), soon()))
    await asyncio.sleep(0.1)
    for number in (signal.SIGINT, signal.SIGTERM):
        reader._process.send_signal(number)
    assert "1887" in (await reading).text


async def test_the_memory_of_a_large_file_is_not_kept(reader: DocumentReader) -> None:
    await reader.read(saved(picture(LINES, (7000, 7000)), compress_level=1), soon())
    assert reader._process is None
    assert (await reader.read(b"again", soon())).text == "again"
