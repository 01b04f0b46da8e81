"""Where the service listens: a port or a Unix socket, and perhaps a port for the administration."""

import contextlib
import logging
import socket
import stat
from pathlib import Path

from ..errors import ServiceError, UsageError
from ..settings import Settings

log = logging.getLogger(__name__)
BACKLOG = 2048


def listen(settings: Settings) -> list[socket.socket]:
    """The sockets that all workers share, the service's own first.  ServiceError where an address cannot be had."""
    if settings.unix_socket is not None:
        listeners = [_unix(settings.unix_socket)]
    else:
        listeners = [_port(settings.host, settings.port, "port")]
    if settings.admin_port is not None:
        try:
            listeners.append(_port(settings.host, settings.admin_port, "admin-port"))
        except ServiceError:
            close(listeners, settings)
            raise
    for one in listeners:
        log.info("listening on %s", address(one, tls=settings.tls_certificate is not None))
    return listeners


def check_free(host: str, port: int, flag: str) -> None:
    """ServiceError where somebody listens on ``port``."""
    _port(host, port, flag).close()


def check_socket(path: Path) -> None:
    """UsageError where no Unix socket can be made at ``path``, in the folder for temporary files."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.bind(str(path))
        path.unlink()
    except OSError as error:
        raise UsageError(
            f"no socket can be made at {path}: {error.strerror or error}. Set TMPDIR to a shorter path, on a local "
            "file system, or share_models to no."
        ) from error


def close(listeners: list[socket.socket], settings: Settings) -> None:
    """And take a Unix socket's file away."""
    for one in listeners:
        one.close()
    if settings.unix_socket is not None:
        with contextlib.suppress(OSError):
            settings.unix_socket.unlink()


def address(listener: socket.socket, *, tls: bool = False) -> str:
    """Where a browser on this machine finds it."""
    if listener.family == socket.AF_UNIX:
        return f"unix:{listener.getsockname()}"
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    scheme = "https" if tls else "http"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def _port(host: str, port: int, flag: str) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise ServiceError(
            f"cannot listen on {host}:{port}: {error.strerror}. Is another service there? Give another --{flag}"
            + (", or 0 for a free one." if flag == "port" else ".")
        ) from error
    listener.set_inheritable(True)
    return listener


def _unix(path: Path) -> socket.socket:
    """A file that nobody listens on any more is replaced; anything else that stands there is left alone."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if path.exists() and not _abandoned(path):
            raise OSError(0, "it is there already, and is not a socket that nobody listens on")
        path.unlink(missing_ok=True)
        listener.bind(str(path))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        told = error.strerror or str(error)
        raise ServiceError(f"cannot listen on {path}: {told}. Give another --unix-socket.") from error
    listener.set_inheritable(True)
    return listener


def _abandoned(path: Path) -> bool:
    if not stat.S_ISSOCK(path.stat().st_mode):
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return True
    return False
