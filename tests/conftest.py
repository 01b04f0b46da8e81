"""Fixtures that stack: checkpoint -> repository -> app -> client."""

import asyncio
import contextlib
import os
import tempfile
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"  # no test may reach a network
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import httpx
import pytest
import torch
from fastapi import FastAPI

from service.api.app import create_app
from service.api.computing import choose_device
from service.api.lifecycle import Lifecycle
from service.api.model_process import holding
from service.conversion.pipeline import Options, convert
from service.runtime import processor
from service.settings import Settings
from tests.checkpoints import save_checkpoint
from tests.fakes import until

ROOT = Path(__file__).resolve().parent.parent
# Tiny models gain nothing from threads, and on a busy machine each of torch's barriers waits for its turn.
torch.set_num_threads(1)
SENTIMENT: dict[str, Any] = {"id2label": {0: "negative", 1: "positive"}, "label2id": {"negative": 0, "positive": 1}}


SHARE_MODELS = False
CPU_FEATURES = "auto"  # what server processes are started with, too


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--share-models", action="store_true", help="apps get their models from a model process")
    parser.addoption("--cpu-features", default="auto", help="run as on a processor with these: auto, none, vnni ...")


def pytest_configure(config: pytest.Config) -> None:
    global CPU_FEATURES, SHARE_MODELS
    SHARE_MODELS = config.getoption("--share-models")
    CPU_FEATURES = config.getoption("--cpu-features")
    processor.assume(CPU_FEATURES)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with a tiny classifier ``sentiment`` and a tiny reader ``qa``, converted and verified."""
    root = tmp_path_factory.mktemp("repository")
    checkpoints = tmp_path_factory.mktemp("checkpoints")
    classifier = save_checkpoint(checkpoints / "classifier", problem_type="single_label_classification", **SENTIMENT)
    reader = save_checkpoint(checkpoints / "reader", "AlbertForQuestionAnswering", seed=1)
    convert(str(classifier), root, Options("sentiment", window=32))
    convert(str(reader), root, Options("qa", window=48, overlap=16))
    return root


@pytest.fixture
def settings(repository: Path) -> Settings:
    """Of a service that does not look at its repository again and does not measure."""
    return Settings(
        model_repo=repository,
        cpu_features=CPU_FEATURES,
        device="cpu",
        watch_seconds=0,
        token_budget=128,
        log_format="text",
    )


@contextlib.asynccontextmanager
async def started(settings: Settings) -> AsyncIterator[FastAPI]:
    """An app for ``settings``, with its models loaded; ``app.state.loop`` runs those of ``app.state.models``."""
    if SHARE_MODELS:
        async with sharing(settings) as app:
            yield app
        return
    app = create_app(settings)
    async with app.router.lifespan_context(app):
        app.state.loop, app.state.models = app.state.service.device, app.state.service.registry
        await app.state.service.registry.wait()
        yield app


@contextlib.asynccontextmanager
async def sharing(settings: Settings) -> AsyncIterator[FastAPI]:
    """The same as a worker whose models are in a model process, which here is in this one."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "models.socket"
        async with holding(settings, choose_device(settings, 1), path, Lifecycle()) as host:
            app = create_app(settings, models_at=path)
            async with app.router.lifespan_context(app):
                app.state.loop, app.state.models, app.state.host = host.device, host.registry, host
                await app.state.service.registry.wait()
                await until(lambda: not app.state.service.device.down)
                yield app


@contextlib.asynccontextmanager
async def speaking_to(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an app in this process."""
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://test") as client:
        yield client


@contextlib.asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an app for ``settings``, with its models loaded."""
    async with started(settings) as app, speaking_to(app) as client:
        yield client


async def hold_device(app: FastAPI) -> tuple["asyncio.Future[object]", threading.Event]:
    """Keep the thread of the app's device busy until the event is set."""
    entered, release = threading.Event(), threading.Event()

    def wait() -> bool:
        entered.set()
        return release.wait(20)

    loop = asyncio.get_running_loop()
    held = loop.run_in_executor(None, app.state.loop.between_steps, wait)
    await until(entered.is_set)
    return held, release


@pytest.fixture
async def app(settings: Settings, anyio_backend: str) -> AsyncIterator[FastAPI]:
    """Started, with its models loaded."""
    async with started(settings) as app:
        yield app


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """Speaks to the app in this process."""
    async with speaking_to(app) as client:
        yield client
