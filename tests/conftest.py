"""Fixtures that stack: checkpoint -> repository -> app -> client."""

import os
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
from service.conversion.pipeline import Options, convert
from service.settings import Settings
from tests.checkpoints import save_checkpoint

ROOT = Path(__file__).resolve().parent.parent
# Tiny models gain nothing from threads, and on a busy machine each of torch's barriers waits for its turn.
torch.set_num_threads(1)
SENTIMENT: dict[str, Any] = {"id2label": {0: "negative", 1: "positive"}, "label2id": {"negative": 0, "positive": 1}}


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
    return Settings(model_repo=repository, device="cpu", watch_seconds=0, token_budget=128, log_format="text")


@pytest.fixture
async def app(settings: Settings, anyio_backend: str) -> AsyncIterator[FastAPI]:
    """Started, with its models loaded."""
    started = create_app(settings)
    async with started.router.lifespan_context(started):
        await started.state.service.registry.wait()
        yield started


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """Speaks to the app in this process."""
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as started:
        yield started
