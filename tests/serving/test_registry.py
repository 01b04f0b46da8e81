"""What is loaded follows the repository; a lease keeps a version alive."""

import asyncio
import itertools
import os
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from service.errors import ModelNotFound, RepositoryError, Unavailable, WrongTask
from service.metrics import Metrics
from service.serving.engine import Engine
from service.serving.registry import ABSENT_LOOKS, ABSENT_SECONDS, FIRST_RETRY, LONGEST_RETRY, Registry
from service.serving.unloaded import Unloaded
from service.tasks.classification import Classification
from service.tasks.question_answering import QuestionAnswering
from service.types import ModelRef
from tests.fakes import LightEngine, ManualClock, light_engine, until

pytestmark = pytest.mark.anyio


class Shelf:
    """A repository of small folders, a registry of it and a loader of light engines; ``broken`` versions do not load.

    ``engines`` keeps the last engine of each version that was loaded.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.broken: set[str] = set()
        self.precision = "float32"
        self.engines: dict[str, LightEngine] = {}
        self.loads: list[str] = []
        self.clock = ManualClock()
        self.registry = Registry(root, self.load, Metrics(CollectorRegistry()), clock=self.clock)

    def put(self, key: str, content: str = "first") -> Path:
        folder = self.root / key
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "weights.bin").write_text(content)
        return folder

    def load(self, folder: Path) -> LightEngine:
        key = f"{folder.parent.name}/{folder.name}"
        self.loads.append(key)
        if key in self.broken:
            raise RepositoryError(f"{key} is damaged")
        self.engines[key] = light_engine(folder.parent.name, int(folder.name))
        self.engines[key].precision = self.precision
        return self.engines[key]

    async def look(self, times: int = 1) -> list[str]:
        """What is loaded after so many looks."""
        for _ in range(times):
            if times > 1:
                self.clock.advance(ABSENT_SECONDS / (ABSENT_LOOKS - 1) + 0.1)
            await self.registry.sync()
        return [str(engine.ref) for engine in self.registry.engines()]

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.metrics.registry.get_sample_value(f"albert_{name}", labels)


@pytest.fixture
async def shelf(tmp_path: Path, anyio_backend: str) -> AsyncIterator[Shelf]:
    (tmp_path / "root").mkdir()
    made = Shelf(tmp_path / "root")
    yield made
    made.registry.close()


async def test_all_is_loaded_again_when_asked_and_so_is_what_is_being_loaded(shelf: Shelf) -> None:
    shelf.put("a/1")
    shelf.put("b/1")
    await shelf.look()
    first = dict(shelf.engines)
    shelf.registry.load_again("a")
    await shelf.look()
    assert shelf.loads == ["a/1", "b/1", "a/1"]
    await until(lambda: first["a/1"].closed)

    shelf.registry.load_again()
    load = shelf.load

    def meanwhile(folder: Path) -> LightEngine:
        shelf.registry.loader = load
        shelf.registry.load_again()  # once more, while the first of them is loaded
        return load(folder)

    shelf.registry.loader = meanwhile
    await shelf.look()
    assert shelf.loads[3:] == ["a/1", "b/1"]
    await shelf.look()
    assert shelf.loads[5:] == ["a/1"]
    await shelf.look()
    assert len(shelf.loads) == 6


@pytest.mark.parametrize(("keep", "wanted"), [(1, ["a/10", "b/1"]), (2, ["a/9", "a/10", "b/1"])])
async def test_the_newest_versions_are_loaded(shelf: Shelf, keep: int, wanted: list[str]) -> None:
    for key in ("a/2", "a/9", "a/10", "b/1"):
        shelf.put(key)
    shelf.registry.keep = keep

    assert await shelf.look() == wanted
    assert shelf.value("models_loaded") == len(wanted)
    async with shelf.registry.lease("a", None, Classification) as engine:
        assert engine.ref.version == 10


async def test_what_is_loaded_and_did_not_change_is_not_loaded_again(shelf: Shelf) -> None:
    shelf.put("a/1")
    assert await shelf.look(3) == ["a/1"]
    assert shelf.loads == ["a/1"]


async def test_a_version_that_does_not_load_is_reported_and_the_one_before_it_serves(shelf: Shelf) -> None:
    shelf.put("a/1")
    shelf.put("a/2")
    shelf.broken = {"a/2"}

    assert [await shelf.look() for _ in range(2)][-1] == ["a/1"]
    assert shelf.registry.failures == {ModelRef("a", 2): "a/2 is damaged"}
    assert shelf.value("model_load_failures_total", model="a") == shelf.loads.count("a/2") == 1
    with pytest.raises(ModelNotFound, match="a/2 is damaged"):
        async with shelf.registry.lease("a", 2, Classification):
            pass


async def test_a_loader_that_fails_in_an_unexpected_way_leaves_the_others_serving(shelf: Shelf) -> None:
    shelf.put("a/1")
    shelf.put("b/1")
    make = shelf.registry.loader

    def load(folder: Path) -> Engine:
        if folder.parent.name == "a":
            raise ZeroDivisionError("no")
        return make(folder)

    shelf.registry.loader = load
    assert await shelf.look() == ["b/1"]
    assert shelf.registry.failures == {ModelRef("a", 1): "no"}


async def test_a_version_that_failed_is_tried_again_with_growing_pauses(shelf: Shelf) -> None:
    shelf.put("a/1")
    shelf.broken = {"a/1"}
    tried: list[float] = []
    for _ in range(250):
        await shelf.look()
        if len(shelf.loads) > len(tried):
            tried.append(shelf.clock())
        shelf.clock.advance(FIRST_RETRY)
    pauses = [after - before for before, after in itertools.pairwise(tried)]

    assert pauses == [5.0, 10.0, 20.0, 40.0, 80.0, 160.0, LONGEST_RETRY, LONGEST_RETRY, LONGEST_RETRY]
    assert shelf.value("model_load_failures_total", model="a") == len(tried)
    shelf.broken = set()
    shelf.clock.advance(LONGEST_RETRY)
    assert await shelf.look() == ["a/1"]
    assert shelf.registry.failures == {}


@pytest.mark.parametrize("change", ["written", "replaced", "added", "removed", "touched"])
async def test_a_version_that_failed_is_tried_again_as_soon_as_a_file_of_it_changes(shelf: Shelf, change: str) -> None:
    folder = shelf.put("a/1")
    (folder / "notes").write_text("")
    shelf.broken = {"a/1"}
    assert await shelf.look(2) == []
    shelf.broken = set()
    weights = folder / "weights.bin"
    match change:
        case "written":
            weights.write_text("longer than it was")
        case "replaced":
            (folder / "new").write_text("first")
            os.utime(folder / "new", ns=(weights.stat().st_atime_ns, weights.stat().st_mtime_ns))
            (folder / "new").rename(weights)
        case "added":
            (folder / "manifest.json").write_text("{}")
        case "removed":
            (folder / "notes").unlink()
        case "touched":
            os.utime(weights, (1, 1))

    assert await shelf.look() == ["a/1"]


async def test_a_change_makes_the_pauses_short_again(shelf: Shelf) -> None:
    shelf.put("a/1")
    shelf.broken = {"a/1"}
    for _ in range(4):
        await shelf.look()
        shelf.clock.advance(LONGEST_RETRY)
    await shelf.look()
    shelf.put("a/1", "second")
    await shelf.look()
    tries = len(shelf.loads)
    shelf.clock.advance(FIRST_RETRY)
    await shelf.look()
    assert len(shelf.loads) == tries + 1


async def test_a_failure_of_a_version_that_is_gone_is_forgotten(shelf: Shelf) -> None:
    folder = shelf.put("a/1")
    shelf.broken = {"a/1"}
    await shelf.look()
    shutil.rmtree(folder)
    await shelf.look()
    assert shelf.registry.failures == {}


async def test_a_version_published_again_under_its_number_replaces_what_ran(shelf: Shelf) -> None:
    shelf.put("a/1")
    await shelf.look()
    async with shelf.registry.lease("a", 1, Classification) as old:
        shelf.put("a/1", "second, and different")
        assert await shelf.look() == ["a/1"]
        assert shelf.loads == ["a/1", "a/1"]
        async with shelf.registry.lease("a", 1, Classification) as new:
            assert new is shelf.engines["a/1"]
            assert new is not old
        assert isinstance(old, LightEngine)
        assert not old.closed
    await until(lambda: old.closed)
    assert not shelf.engines["a/1"].closed


async def test_a_version_published_again_that_is_broken_leaves_the_old_one_serving(shelf: Shelf) -> None:
    shelf.put("a/1")
    await shelf.look()
    old = shelf.engines["a/1"]
    shelf.broken = {"a/1"}
    shelf.put("a/1", "broken")

    assert await shelf.look(5) == ["a/1"]
    assert shelf.registry.failures == {ModelRef("a", 1): "a/1 is damaged"}
    async with shelf.registry.lease("a", None, Classification) as engine:
        assert engine is old
    shelf.broken = set()
    shelf.put("a/1", "mended at last")
    assert await shelf.look() == ["a/1"]
    assert shelf.registry.failures == {}
    await until(lambda: old.closed)


async def test_only_the_precision_that_runs_now_is_shown_of_a_version_published_again(shelf: Shelf) -> None:
    shelf.put("a/1")
    await shelf.look()
    shelf.precision = "int8"
    shelf.put("a/1", "in eight bits")
    await shelf.look()
    assert shelf.value("model_precision", model="a", version="1", precision="int8") == 1
    assert not shelf.value("model_precision", model="a", version="1", precision="float32")


async def test_a_newer_version_replaces_the_older_at_once_which_closes_when_its_last_lease_ends(shelf: Shelf) -> None:
    shelf.put("a/1")
    await shelf.look()
    async with shelf.registry.lease("a", None, Classification) as old:
        shelf.put("a/2")
        assert await shelf.look() == ["a/2"]
        await asyncio.sleep(0)
        assert old is shelf.engines["a/1"]
        assert not shelf.engines["a/1"].closed
    await until(lambda: shelf.engines["a/1"].closed)
    assert not shelf.engines["a/2"].closed


async def test_the_old_version_serves_while_the_new_one_loads(shelf: Shelf) -> None:
    shelf.put("a/1")
    await shelf.look()
    served: list[int] = []
    make = shelf.registry.loader

    def load(folder: Path) -> Engine:
        served.append(shelf.registry.engines()[0].ref.version)
        return make(folder)

    shelf.registry.loader = load
    shelf.put("a/2")
    assert await shelf.look() == ["a/2"]
    assert served == [1]


async def test_a_new_version_that_is_broken_leaves_the_old_one_serving(shelf: Shelf) -> None:
    shelf.put("a/1")
    await shelf.look()
    shelf.broken = {"a/2"}
    shelf.put("a/2")

    assert await shelf.look(5) == ["a/1"]


@pytest.mark.parametrize("gone", ["version", "model", "all", "root"])
async def test_what_is_taken_away_serves_for_two_more_looks_and_goes_at_the_third(shelf: Shelf, gone: str) -> None:
    shelf.put("a/1")
    if gone in ("version", "model"):
        shelf.put("b/1")
    await shelf.look()
    for path in {
        "version": [shelf.root / "a" / "1"],
        "model": [shelf.root / "a"],
        "all": list(shelf.root.iterdir()),
        "root": [shelf.root],
    }[gone]:
        shutil.rmtree(path)

    assert "a/1" in await shelf.look(ABSENT_LOOKS - 1)
    assert not shelf.engines["a/1"].closed
    left = {"version": ["b/1"], "model": ["b/1"], "all": [], "root": ["a/1"]}[gone]
    assert await shelf.look() == left  # a root that is not there tells nothing of what is in it
    await until(lambda: shelf.engines["a/1"].closed is (gone != "root"))


async def test_many_looks_in_a_moment_are_no_long_absence(shelf: Shelf) -> None:
    shelf.put("a/1")
    await shelf.look()
    shutil.rmtree(shelf.root / "a")
    for _ in range(3 * ABSENT_LOOKS):
        await shelf.registry.sync()
    assert [str(engine.ref) for engine in shelf.registry.engines()] == ["a/1"]


async def test_looks_that_find_a_version_again_begin_the_count_anew(shelf: Shelf) -> None:
    shelf.put("a/1")
    await shelf.look()
    for _ in range(4):
        (shelf.root / "a").rename(shelf.root / ".away")
        assert await shelf.look(ABSENT_LOOKS - 1) == ["a/1"]
        (shelf.root / ".away").rename(shelf.root / "a")
        assert await shelf.look() == ["a/1"]
    assert shelf.loads == ["a/1"]


async def test_where_the_newest_is_taken_away_the_one_before_it_comes_back_at_the_third_look(shelf: Shelf) -> None:
    shelf.put("a/1")
    shelf.put("a/2")
    await shelf.look()
    shutil.rmtree(shelf.root / "a" / "2")
    assert await shelf.look(ABSENT_LOOKS - 1) == ["a/2"]
    assert await shelf.look() == ["a/1"]


@pytest.fixture
def locked(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> Iterator[set[Path]]:
    """Folders that cannot be read, whoever runs the tests."""
    folders: set[Path] = set()
    iterdir = Path.iterdir

    def refuse(path: Path) -> Iterator[Path]:
        if path in folders:
            raise PermissionError(13, "Permission denied")
        return iterdir(path)

    monkeypatch.setattr(Path, "iterdir", refuse)
    yield folders
    monkeypatch.undo()


async def test_a_model_whose_folder_cannot_be_read_stays_and_the_others_are_followed(
    shelf: Shelf, locked: set[Path]
) -> None:
    shelf.put("a/1")
    shelf.put("b/1")
    await shelf.look()
    locked.add(shelf.root / "a")
    shelf.put("b/2")

    assert await shelf.look(2 * ABSENT_LOOKS) == ["a/1", "b/2"]
    assert shelf.value("repository_failures_total") == 2 * ABSENT_LOOKS
    locked.clear()
    assert await shelf.look() == ["a/1", "b/2"]
    assert shelf.loads.count("a/1") == 1


async def test_a_version_whose_folder_cannot_be_read_keeps_serving_what_was_loaded(
    shelf: Shelf, locked: set[Path]
) -> None:
    folder = shelf.put("a/1")
    await shelf.look()
    locked.add(folder)
    shelf.broken = {"a/1"}

    assert await shelf.look(2 * ABSENT_LOOKS) == ["a/1"]
    shelf.broken = set()
    locked.clear()
    assert await shelf.look() == ["a/1"]
    assert shelf.registry.failures == {}


async def test_a_root_that_cannot_be_read_takes_nothing_away_and_is_counted(
    shelf: Shelf, locked: set[Path], caplog: pytest.LogCaptureFixture
) -> None:
    shelf.put("a/1")
    await shelf.look()
    locked.add(shelf.root)

    assert await shelf.look(2 * ABSENT_LOOKS) == ["a/1"]
    assert shelf.value("repository_failures_total") == 2 * ABSENT_LOOKS
    assert "Permission denied" in caplog.text


async def test_an_empty_repository_is_synced_and_serves_nothing(shelf: Shelf) -> None:
    assert await shelf.look() == []
    assert shelf.registry.synced


async def test_an_unknown_model_is_told_what_there_is(shelf: Shelf) -> None:
    shelf.put("a/1")
    with pytest.raises(Unavailable):
        async with shelf.registry.lease("a", None, Classification):
            pass
    await shelf.look()
    for name, version in (("b", None), ("a", 7)):
        with pytest.raises(ModelNotFound, match="a/1"):
            async with shelf.registry.lease(name, version, Classification):
                pass
    with pytest.raises(WrongTask, match="text-classification"):
        async with shelf.registry.lease("a", None, QuestionAnswering):
            pass


async def test_a_version_closes_only_after_the_last_of_its_leases(shelf: Shelf) -> None:
    shelf.put("a/1")
    await shelf.look()
    async with shelf.registry.lease("a", None, Classification):
        async with shelf.registry.lease("a", None, Classification):
            shelf.put("a/2")
            await shelf.look()
        await asyncio.sleep(0.005)
        assert not shelf.engines["a/1"].closed
    await until(lambda: shelf.engines["a/1"].closed)


def series_of(shelf: Shelf, version: str) -> set[str]:
    """The names of all series that tell of version ``version`` of model a."""
    return {
        sample.name
        for metric in shelf.registry.metrics.registry.collect()
        for sample in metric.samples
        if sample.labels.get("model") == "a" and sample.labels.get("version") == version
    }


async def test_the_series_of_a_version_go_when_it_is_retired(shelf: Shelf) -> None:
    shelf.put("a/1")
    await shelf.look()
    shelf.registry.metrics.steps.labels("a", "1").inc()
    assert {"albert_model_load_seconds", "albert_token_budget", "albert_steps_total"} <= series_of(shelf, "1")
    shelf.put("a/2")
    await shelf.look()
    await until(lambda: shelf.engines["a/1"].closed)
    assert series_of(shelf, "1") == set()
    assert "albert_model_load_seconds" in series_of(shelf, "2")


async def test_the_series_of_a_version_that_runs_on_for_its_last_leases_go_when_it_closes(shelf: Shelf) -> None:
    shelf.put("a/1")
    await shelf.look()
    async with shelf.registry.lease("a", None, Classification):
        shelf.put("a/2")
        await shelf.look()
        shelf.registry.metrics.steps.labels("a", "1").inc()  # a step of the request that is still answered
    await until(lambda: shelf.engines["a/1"].closed)
    assert series_of(shelf, "1") == set()


async def test_closing_closes_every_engine(shelf: Shelf) -> None:
    shelf.put("a/1")
    shelf.put("b/1")
    await shelf.look()
    shelf.registry.close()
    assert all(engine.closed for engine in shelf.engines.values())
    assert shelf.registry.engines() == []


async def test_what_is_unloaded_stays_away_until_it_is_loaded_and_ends_its_requests_first(shelf: Shelf) -> None:
    shelf.put("a/1")
    shelf.put("b/1")
    await shelf.look()
    async with shelf.registry.lease("a", None, Classification):
        await shelf.registry.unload("a")
        await asyncio.sleep(0.005)
        assert not shelf.engines["a/1"].closed
    await until(lambda: shelf.engines["a/1"].closed)

    shelf.put("a/2")
    assert await shelf.look(3) == ["b/1"]
    assert shelf.value("models_loaded") == 1
    await shelf.registry.load("a")
    assert await shelf.look() == ["a/2", "b/1"]


async def test_loading_tries_at_once_what_failed_and_says_why_it_fails_again(shelf: Shelf) -> None:
    shelf.put("a/1")
    shelf.broken.add("a/1")
    await shelf.look()
    with pytest.raises(ModelNotFound, match="a/1 is damaged"):
        await shelf.registry.load("a")
    assert shelf.loads == ["a/1", "a/1"]
    shelf.broken.clear()
    await shelf.registry.load("a")
    assert await shelf.look() == ["a/1"]


@pytest.mark.parametrize("name", ["none", "../root", ""])
async def test_what_is_not_there_is_neither_loaded_nor_unloaded(shelf: Shelf, name: str) -> None:
    for act in (shelf.registry.load, shelf.registry.unload):
        with pytest.raises(ModelNotFound):
            await act(name)
    assert shelf.registry.unloaded.names() == set()


async def test_who_asks_for_a_model_and_leaves_has_it_loaded(shelf: Shelf) -> None:
    shelf.put("a/1")
    await shelf.look()
    await shelf.registry.unload("a")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(shelf.registry.load("a"), 0)
    asked = asyncio.create_task(shelf.registry.load("a"))
    await asyncio.sleep(0)
    asked.cancel()
    await until(lambda: [str(one.ref) for one in shelf.registry.engines()] == ["a/1"])


async def test_looks_at_one_time_load_a_version_once(shelf: Shelf) -> None:
    shelf.put("a/1")
    await asyncio.gather(*(shelf.registry.load("a") for _ in range(5)), shelf.registry.sync())
    assert shelf.loads == ["a/1"]


async def test_the_other_workers_follow_at_their_next_look(shelf: Shelf, tmp_path: Path) -> None:
    other = Shelf(shelf.root)
    for one in (shelf, other):
        one.registry.unloaded = Unloaded(tmp_path)
    shelf.put("a/1")
    await shelf.look()
    await other.look()
    assert not other.registry.unloaded.changed()
    await shelf.registry.unload("a")
    assert other.registry.unloaded.changed()  # so that it looks at once
    assert not other.registry.unloaded.changed()
    assert not shelf.registry.unloaded.changed()
    assert await other.look() == []
    await other.registry.load("a")
    assert shelf.registry.unloaded.changed()
    assert await shelf.look() == ["a/1"]
    other.registry.close()
