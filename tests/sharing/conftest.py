"""A model process in this process, and workers that are connected to it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from service.api.computing import choose_device
from service.api.lifecycle import Lifecycle
from service.api.model_process import holding
from service.settings import Settings
from service.sharing.host import Host
from service.sharing.remote import RemoteDevice, RemoteEngine
from tests.fakes import until

Hold = Callable[[], AbstractAsyncContextManager[Host]]


@pytest.fixture(scope="session")
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """As in production."""
    return "asyncio", {"use_uvloop": True}


def hold_of(settings: Settings, path: Path) -> AbstractAsyncContextManager[Host]:
    return holding(settings, choose_device(settings, 1), path, Lifecycle())


@pytest.fixture
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Short enough for a socket."""
    return tmp_path_factory.mktemp("s") / "models"


@pytest.fixture
def hold(settings: Settings, path: Path) -> Hold:
    """A model process of ``settings``, one after the other as often as it is called."""
    return lambda: hold_of(settings, path)


@pytest.fixture
async def host(hold: Hold, anyio_backend: str) -> AsyncIterator[Host]:
    async with hold() as host:
        yield host


@contextlib.asynccontextmanager
async def worker_at(path: Path) -> AsyncIterator[RemoteDevice]:
    device = RemoteDevice(path)
    async with device.running():
        await until(lambda: not device.down)
        yield device


async def load(device: RemoteDevice, folder: Path) -> RemoteEngine:
    """In a thread, as the registry does it."""
    engine = await asyncio.get_running_loop().run_in_executor(None, device.load, folder)
    assert isinstance(engine, RemoteEngine)
    return engine
