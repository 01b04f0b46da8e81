"""What is loaded follows the repository; a lease keeps a version alive."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from service.errors import ModelNotFound, RepositoryError, Unavailable, WrongTask
from service.metrics import Metrics
from service.serving.registry import Registry
from service.tasks.classification import Classification
from service.tasks.question_answering import QuestionAnswering
from service.types import ModelRef
from tests.fakes import LightEngine, light_engine, until

pytestmark = pytest.mark.anyio


class Shelf:
    """A repository of empty folders and a loader of light engines; ``broken`` versions do not load."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.broken: set[str] = set()
        self.engines: dict[str, LightEngine] = {}
        self.loads: list[str] = []

    def put(self, name: str, version: int) -> None:
        (self.root / name / str(version)).mkdir(parents=True)

    def load(self, folder: Path) -> LightEngine:
        key = f"{folder.parent.name}/{folder.name}"
        self.loads.append(key)
        if key in self.broken:
            raise RepositoryError(f"{key} is damaged")
        self.engines[key] = light_engine(folder.parent.name, int(folder.name))
        return self.engines[key]

    def registry(self, keep: int = 1) -> Registry:
        executor = ThreadPoolExecutor(1)
        return Registry(self.root, self.load, executor, Metrics(CollectorRegistry()), keep)


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path)


def loaded(registry: Registry) -> list[str]:
    return [str(engine.ref) for engine in registry.engines()]


@pytest.mark.parametrize(("keep", "wanted"), [(1, ["a/10", "b/1"]), (2, ["a/9", "a/10", "b/1"])])
async def test_the_newest_versions_are_loaded(shelf: Shelf, keep: int, wanted: list[str]) -> None:
    for version in (2, 9, 10):
        shelf.put("a", version)
    shelf.put("b", 1)
    registry = shelf.registry(keep)
    await registry.sync()

    assert loaded(registry) == wanted
    async with registry.lease("a", None, Classification) as engine:
        assert engine.ref.version == 10


async def test_a_version_that_does_not_load_is_reported_and_the_one_before_it_serves(shelf: Shelf) -> None:
    shelf.put("a", 1)
    shelf.put("a", 2)
    shelf.broken = {"a/2"}
    registry = shelf.registry()
    await registry.sync()
    await registry.sync()

    assert loaded(registry) == ["a/1"]
    assert registry.failures == {ModelRef("a", 2): "a/2 is damaged"}
    assert shelf.loads.count("a/2") == 1  # it is immutable: what failed once is not tried again
    with pytest.raises(ModelNotFound, match="a/2 is damaged"):
        async with registry.lease("a", 2, Classification):
            pass


async def test_a_new_version_replaces_the_old_which_closes_when_its_last_lease_ends(shelf: Shelf) -> None:
    shelf.put("a", 1)
    registry = shelf.registry()
    await registry.sync()
    async with registry.lease("a", None, Classification) as old:
        shelf.put("a", 2)
        await registry.sync()
        assert loaded(registry) == ["a/2"]
        await asyncio.sleep(0)
        assert old is shelf.engines["a/1"]
        assert not shelf.engines["a/1"].closed
    await until(lambda: shelf.engines["a/1"].closed)
    assert not shelf.engines["a/2"].closed


async def test_a_new_version_that_is_broken_leaves_the_old_one_serving(shelf: Shelf) -> None:
    shelf.put("a", 1)
    registry = shelf.registry()
    await registry.sync()
    shelf.broken = {"a/2"}
    shelf.put("a", 2)
    await registry.sync()

    assert loaded(registry) == ["a/1"]


async def test_a_model_that_is_taken_away_goes(shelf: Shelf) -> None:
    shelf.put("a", 1)
    shelf.put("b", 1)
    registry = shelf.registry()
    await registry.sync()
    (shelf.root / "b" / "1").rmdir()
    await registry.sync()

    assert loaded(registry) == ["a/1"]
    await until(lambda: shelf.engines["b/1"].closed)


async def test_an_unknown_model_is_told_what_there_is(shelf: Shelf) -> None:
    shelf.put("a", 1)
    registry = shelf.registry()
    with pytest.raises(Unavailable):
        async with registry.lease("a", None, Classification):
            pass
    await registry.sync()
    for name, version in (("b", None), ("a", 7)):
        with pytest.raises(ModelNotFound, match="a/1"):
            async with registry.lease(name, version, Classification):
                pass
    with pytest.raises(WrongTask, match="text-classification"):
        async with registry.lease("a", None, QuestionAnswering):
            pass


async def test_a_repository_that_is_gone_takes_nothing_away(shelf: Shelf) -> None:
    shelf.put("a", 1)
    registry = shelf.registry()
    await registry.sync()
    registry.root = shelf.root / "nowhere"
    await registry.sync()

    assert loaded(registry) == ["a/1"]
