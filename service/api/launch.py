"""Starts the server: one process or several, or none at all for a single answer."""

import asyncio
import os
import shutil
import signal
import sys
import tempfile
from typing import TYPE_CHECKING, Any

import uvicorn
from pydantic import ValidationError

from service.errors import RepositoryError, ServiceError
from service.logs import configure
from service.repository.store import versions
from service.settings import PREFIX, Settings

if TYPE_CHECKING:
    import httpx


def read_settings(given: dict[str, Any]) -> Settings:
    """Flags over the environment over the defaults.  ServiceError names the setting that is wrong, and how."""
    _to_environment(given)
    try:
        return Settings()
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise ServiceError(f"settings: {problems}") from error
    except ValueError as error:  # a list that is not JSON
        raise ServiceError(f"settings: {error}") from error


def serve(settings: Settings) -> int:
    """Listen until told to stop.  RepositoryError where there is no model to serve: better now than at each request."""
    check_repository(settings)
    configure(settings.log_level, settings.log_format)
    common: dict[str, Any] = {
        "host": settings.host, "port": settings.port, "log_config": None, "server_header": False, "access_log": False,
        "timeout_graceful_shutdown": settings.drain_seconds,
    }  # fmt: skip
    if settings.workers == 1:
        from service.api.app import create_app

        # uvicorn drains on SIGTERM and then raises it again; a stop that was asked for is no failure.
        signal.signal(signal.SIGTERM, lambda number, frame: None)
        uvicorn.run(create_app(settings), **common)
        return 0
    folder = tempfile.mkdtemp(prefix="albert-serve-metrics-")
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
    try:
        uvicorn.run("service.api.app:from_environment", factory=True, workers=settings.workers, **common)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 0


def get(settings: Settings, path: str) -> int:
    """Start, wait until ready, answer one GET on stdout, stop.  0 where the status is below 400."""
    check_repository(settings)
    configure(settings.log_level, settings.log_format)
    response = asyncio.run(_get(settings, path))
    sys.stdout.write(response.text + "\n")
    return 0 if response.status_code < 400 else 1


async def _get(settings: Settings, path: str) -> "httpx.Response":
    import httpx  # a service that only serves does without it

    from service.api.app import create_app

    app = create_app(settings)
    transport = httpx.ASGITransport(app=app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://here") as client,
    ):
        await app.state.service.registry.wait()
        return await client.get(path)


def check_repository(settings: Settings) -> None:
    if not versions(settings.model_repo):
        raise RepositoryError(
            f"model repository {settings.model_repo} holds no model. Convert one: "
            f"albert-serve convert CHECKPOINT --name NAME --model-repo {settings.model_repo}"
        )


def _to_environment(given: dict[str, Any]) -> None:
    """Worker processes start anew and read the settings from the environment, so the flags go there."""
    os.environ.update({f"{PREFIX}{name.upper()}": str(value) for name, value in given.items()})
