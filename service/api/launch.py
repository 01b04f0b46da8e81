"""Starts the server: one process or several, or none at all for a single answer."""

import asyncio
import logging
import os
import re
import signal
import sys
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

from pydantic import ValidationError

from ..errors import RepositoryError, UsageError
from ..logs import configure
from ..repository.store import versions
from ..runtime import driver
from ..settings import PREFIX, Settings, unknown_variables

if TYPE_CHECKING:
    import httpx

log = logging.getLogger(__name__)


def read_settings(given: dict[str, Any]) -> Settings:
    """Flags over the environment over the defaults.  UsageError names the setting that is wrong, and how."""
    environment = {f"{PREFIX}{name.upper()}": str(value) for name, value in given.items()}
    os.environ.update(environment)
    port = f"{PREFIX}PORT"
    if re.match(r"(tcp|udp|sctp)://", os.environ.get(port, "")):  # Kubernetes', of a Service called albert-serve
        del os.environ[port]
    try:
        return Settings()
    except ValidationError as error:
        problems = "; ".join(": ".join([*map(str, e["loc"]), e["msg"]]) for e in error.errors())
        raise UsageError(f"settings: {problems}") from error
    except ValueError as error:  # a list that is not JSON
        raise UsageError(f"settings: {error}") from error


def serve(settings: Settings) -> int:
    """Listen until told to stop; the exit code.

    RepositoryError where there is no model to serve, DeviceError where the device does not work: better now than at
    each request.
    """
    _prepare(settings)
    return _serve_several(settings) if settings.workers > 1 else _serve_alone(settings)


def _serve_several(settings: Settings) -> int:
    from .listeners import check_free, check_socket
    from .workers import Supervisor, metrics_folder

    if settings.grpc_port:  # the workers share it, and would share it with another service's
        check_free(settings.host, settings.grpc_port, "grpc-port")

    with metrics_folder() as folder:
        from .listeners import listen

        models_at = Path(folder) / "models.socket" if _shares_models(settings) else None
        if models_at is not None:
            check_socket(models_at)
        return Supervisor(settings, listen(settings), folder, models_at).run()


def _shares_models(settings: Settings) -> bool:
    """Does one process hold the models for all workers?"""
    if settings.workers == 1 or settings.share_models != "auto":
        return settings.workers > 1 and settings.share_models == "yes"
    try:
        return settings.device != "cpu" and bool(driver.read().cards)
    except driver.DriverError:
        return False


def _serve_alone(settings: Settings) -> NoReturn:
    from .computing import choose_device
    from .listeners import listen
    from .server import run

    device = choose_device(settings, processes=1)
    run(settings, device, listen(settings), lambda: None)


def get(settings: Settings, path: str) -> int:
    """Start, wait until ready, answer one GET on stdout, stop.  0 where the status is below 400."""
    _prepare(settings)
    response = asyncio.run(_get(settings, path))
    sys.stdout.write(response.text + "\n")
    return 0 if response.status_code < 400 else 1


async def _get(settings: Settings, path: str) -> "httpx.Response":
    import httpx  # a service that only serves does without it

    from .app import create_app

    app = create_app(settings)
    transport = httpx.ASGITransport(app=app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://here") as client,
    ):
        await app.state.service.registry.wait()
        return await client.get(path)


def _prepare(settings: Settings) -> None:
    if not versions(settings.model_repo):
        raise RepositoryError(
            f"model repository {settings.model_repo} holds no model. Convert one: "
            f"albert-serve convert CHECKPOINT --name NAME --model-repo {settings.model_repo}"
        )
    if wrong := settings.contradiction():
        raise UsageError(f"settings: {wrong}")
    if settings.grpc_port is not None and find_spec("grpc") is None:
        raise UsageError("grpc_port takes the extra 'grpc' of this package, which is not installed")
    if settings.tracing and find_spec("opentelemetry") is None:
        raise UsageError("tracing takes the extra 'tracing' of this package, which is not installed")
    configure(settings.log_level, settings.log_format)
    signal.signal(signal.SIGTERM, _stop_early)
    for name, meant in unknown_variables(os.environ).items():
        log.warning("%s is no setting and is ignored%s", name, f"; did you mean {meant}?" if meant else "")


def _stop_early(number: int, frame: FrameType | None) -> None:
    """Told to stop before there is anything to stop; the server has a handler of its own."""
    raise SystemExit(0)
