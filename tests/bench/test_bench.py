"""The load generator: it asks as told, leaves nothing out, and says what came back."""

import asyncio
import itertools
import json
from collections import Counter
from pathlib import Path

import pytest

from service.bench.drive import NO_ANSWER, Sample, closed_loop, open_loop
from service.bench.report import summarise, table
from service.bench.traffic import Ask, Kind, endless, read_kind
from service.cli import main
from service.errors import DataError

ASKS = [Ask("a", "/classify", b"{}")]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.anyio
async def test_a_stall_is_paid_by_all_that_came_meanwhile() -> None:
    """The service stands still for 0.4 s once.  A generator that waits for answers would see one slow request."""
    gate = asyncio.Event()

    async def send(ask: Ask) -> int:
        await gate.wait()
        return 200

    asyncio.get_running_loop().call_later(0.4, gate.set)
    samples = await open_loop(send, itertools.cycle(ASKS), rate=100, seconds=0.6)

    early = [one for one in samples if one.due < 0.35]
    assert len(early) > 15
    assert all(one.due + one.seconds >= 0.39 for one in early)
    assert all(one.status == 200 for one in samples)


@pytest.mark.anyio
async def test_requests_come_at_the_rate_by_chance_and_the_same_by_seed() -> None:
    async def send(ask: Ask) -> int:
        return 200

    one, other = [await open_loop(send, itertools.cycle(ASKS), 400, 0.5, seed=3) for _ in range(2)]
    gaps = [b.due - a.due for a, b in itertools.pairwise(one)]

    assert 140 < len(one) < 260
    assert [sample.due for sample in one] == [sample.due for sample in other]
    assert max(gaps) > 3 * sum(gaps) / len(gaps)


@pytest.mark.anyio
async def test_clients_ask_again_when_they_are_answered_and_no_sooner() -> None:
    inside, most = 0, 0

    async def send(ask: Ask) -> int:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        await asyncio.sleep(0.01)
        inside -= 1
        return 200

    samples = await closed_loop(send, itertools.cycle(ASKS), clients=3, seconds=0.2)
    assert most == 3
    assert 6 <= len(samples) <= 63
    assert inside == 0


def sample(due: float, seconds: float, status: int = 200, kind: str = "a") -> Sample:
    return Sample(kind, due, seconds, 0.0, status)


def test_what_came_during_the_warm_up_does_not_count() -> None:
    slow = [sample(0.1 * n, 5.0) for n in range(10)]
    fast = [sample(1 + 0.1 * n, 0.05) for n in range(100)]
    report = summarise([*slow, *fast], warmup=1.0, seconds=11.0)

    assert report["requests"] == 100
    assert report["p50_ms"] == report["p99_ms"] == 50.0
    assert report["answers_per_second"] == pytest.approx(11.0)  # the slow ones were answered within the time, too


def test_what_a_closed_loop_waits_for_in_the_end_counts() -> None:
    quick, put_off = [sample(0.1 * n, 0.05) for n in range(100)], [sample(0.0, 20.0) for _ in range(20)]

    assert summarise([*quick, *put_off], warmup=3.0)["answers_per_second"] == pytest.approx(120 / 20, abs=0.1)
    assert summarise([], warmup=3.0)["answers_per_second"] == 0


def test_errors_are_told_by_status_and_have_no_latency() -> None:
    samples = [sample(1, 0.2), sample(2, 9.0, 429), sample(3, 9.0, 429), sample(4, 9.0, NO_ANSWER, "b")]
    report = summarise(samples, 0.0, 10.0)

    assert report["errors"] == {"no answer": 1, "429": 2}
    assert report["p99_ms"] == 200.0
    other = report["kinds"]["b"]
    assert (other["requests"], other["answers_per_second"], other["p50_ms"]) == (1, 0.0, None)
    shown = table([report | {"load": "3 clients"}])
    assert "| 3 clients | 4 | all |" in shown
    assert "no answer: 1, 429: 2" in shown


def test_kinds_are_mixed_by_their_shares() -> None:
    kinds = [Kind("often", "/classify", [b"1", b"2"], 0.8), Kind("seldom", "/qa", [b"3"], 0.2)]
    drawn = list(itertools.islice(endless(kinds, 5), 5000))

    blocks = [tuple(ask.kind for ask in drawn[start : start + 20]) for start in range(0, 5000, 20)]
    assert all(Counter(block) == {"often": 16, "seldom": 4} for block in blocks)
    assert len(set(blocks)) > 200  # in an order that is chance's
    assert drawn == list(itertools.islice(endless(kinds, 5), 5000))
    assert {ask.body for ask in drawn if ask.kind == "often"} == {b"1", b"2"}


def test_shares_that_do_not_divide_are_kept_in_the_long_run() -> None:
    kinds = [Kind(name, "/classify", [b"1"], share) for name, share in (("a", 1.0), ("b", 1.0), ("c", 1.0))]
    counts = Counter(ask.kind for ask in itertools.islice(endless(kinds, 5), 6000))
    assert all(abs(count - 2000) <= 1 for count in counts.values())


def test_bodies_are_what_the_routes_take(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(
        '{"label": "a", "text": "one"}\n{"label": "b", "text": "two", "text_pair": "three"}\n'
    )
    kind = read_kind("/classify", f"{tmp_path}/rows.jsonl@0.3", {"early_exit": False})

    assert (kind.route, kind.share) == ("/classify", 0.3)
    assert [json.loads(body) for body in kind.bodies] == [
        {"inputs": "one", "early_exit": False},
        {"inputs": {"text": "two", "text_pair": "three"}, "early_exit": False},
    ]
    for wrong in ("@much", "@0", "@-1"):
        with pytest.raises(DataError):
            read_kind("/classify", f"{tmp_path}/rows.jsonl{wrong}", {})


def test_where_nobody_answers_it_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "rows.jsonl").write_text('{"label": "a", "text": "one"}\n{"label": "b", "text": "two"}\n')
    common = ["bench", "http://127.0.0.1:9", "--clients", "1"]

    assert main([*common, "--classify", str(tmp_path / "rows.jsonl")]) == 1
    assert "no albert-serve answers there" in capsys.readouterr().err
    assert main(common) == 2
    assert "--classify" in capsys.readouterr().err
    assert main([*common, "--classify", str(tmp_path / "rows.jsonl"), "--seconds", "2", "--warmup", "2"]) == 2
    assert "--warmup" in capsys.readouterr().err
