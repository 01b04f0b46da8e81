"""Where a server listens: TLS whose certificate is renewed, a Unix socket, a port of the administration."""

import asyncio
import os
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from service.api.certificate import Certificate
from tests.conftest import ROOT
from tests.system.conftest import Server, free_port, kill, start_server

pytestmark = pytest.mark.skipif(not shutil.which("openssl"), reason="openssl makes the certificates: not installed")


def certificate(folder: Path, name: str) -> tuple[Path, Path]:
    chain, key = folder / f"{name}.crt", folder / f"{name}.key"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-days", "2", "-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]
    subprocess.run([*command, "-keyout", str(key), "-out", str(chain)], check=True, capture_output=True)
    return chain, key


@pytest.fixture
def running() -> Iterator[list[Server]]:
    servers: list[Server] = []
    yield servers
    for one in servers:
        kill(one)


def subject(server: Server) -> str:
    host, port = server.address
    pem = ssl.get_server_certificate((host, port))
    done = subprocess.run(
        ["openssl", "x509", "-noout", "-subject"], input=pem, text=True, capture_output=True, check=True
    )
    return done.stdout.strip()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_tls_with_a_certificate_that_is_renewed(
    repository: Path, tmp_path: Path, running: list[Server], workers: str
) -> None:
    chain, key = certificate(tmp_path, "first")
    renewed = certificate(tmp_path, "second")
    server = start_server(
        repository, tmp_path / "log", "--tls-certificate", str(chain), "--tls-key", str(key), "--workers", workers
    )
    running.append(server)
    # All of them: one that starts later would have the renewed one from the beginning.
    (ready, *_) = server.wait_for("ready: https://", int(workers))
    url = server.url.replace("http:", "https:")
    assert url in ready
    with httpx.Client(base_url=url, verify=ssl.create_default_context(cafile=str(chain))) as client:
        assert client.post("/classify", json={"inputs": "ok"}).status_code == 200
        # A client that is refused while it still sends can read why, over TLS too.
        refused = client.post("/classify", content=b"x" * (9 * 2**20))
        assert refused.status_code == 413
    with pytest.raises(httpx.HTTPError):
        httpx.get(f"{server.url}/health/live")  # without TLS
    assert "first" in subject(server)

    for new, old in zip(renewed, (chain, key), strict=True):
        os.replace(new, old)
    server.wait_for("was read again", int(workers), 30)
    assert "second" in subject(server)
    chain.write_text("nothing")  # and then only half of a new pair
    server.wait_for("the certificate stays as it was", int(workers), 30)
    assert "second" in subject(server)
    os.replace(certificate(tmp_path, "third")[0], chain)
    server.wait_for("the certificate stays as it was", 2 * int(workers), 30)
    assert "second" in subject(server)
    assert server.stop() == 0


def test_grpc_over_tls(repository: Path, tmp_path: Path, running: list[Server]) -> None:
    chain, key = certificate(tmp_path, "first")
    port = free_port()
    flags = ["--tls-certificate", str(chain), "--tls-key", str(key), "--grpc-port", str(port)]
    server = start_server(repository, tmp_path / "log", *flags)
    running.append(server)
    server.wait_for("gRPC on")
    credentials = grpc.ssl_channel_credentials(chain.read_bytes())
    with grpc.secure_channel(f"127.0.0.1:{port}", credentials) as channel:
        live = channel.unary_unary("/inference.GRPCInferenceService/ServerLive")
        assert live(b"", timeout=10) == b"\x08\x01"


def test_a_certificate_that_cannot_be_read_is_one_line(repository: Path, tmp_path: Path) -> None:
    chain, _ = certificate(tmp_path, "first")
    _, other = certificate(tmp_path, "second")
    for pair in ((chain, other), (chain, tmp_path / "none")):
        command = [sys.executable, "-m", "service", "serve", "--model-repo", str(repository), "--device", "cpu"]
        flags = ["--port", "0", "--log-format", "text", "--tls-certificate", str(pair[0]), "--tls-key", str(pair[1])]
        done = subprocess.run([*command, *flags], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 2
        assert "albert-serve: tls_certificate, tls_key: " in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_unix_socket(repository: Path, tmp_path: Path, running: list[Server], workers: str) -> None:
    path = tmp_path / "albert.sock"
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(path))
    server = start_server(repository, tmp_path / "log", "--unix-socket", str(path), "--workers", workers)
    running.append(server)
    server.wait_for(f"ready: unix:{path}")
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://albert") as client:
        assert client.post("/classify", json={"inputs": "ok"}).status_code == 200
        assert client.get("/metrics").status_code == 200
    with pytest.raises(httpx.TransportError):
        httpx.get(f"{server.url}/health/live")
    # Another one does not take it away.
    other = start_server(repository, tmp_path / "other", "--unix-socket", str(path))
    running.append(other)
    assert other.process.wait(30) == 1
    assert "cannot listen on" in other.log.read_text()
    assert server.stop() == 0
    assert not path.exists()


def test_a_file_that_is_no_socket_is_left_alone(repository: Path, tmp_path: Path, running: list[Server]) -> None:
    path = tmp_path / "precious"
    path.write_text("mine")
    server = start_server(repository, tmp_path / "log", "--unix-socket", str(path))
    running.append(server)
    assert server.process.wait(30) == 1
    assert path.read_text() == "mine"


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_port_of_the_administration(repository: Path, tmp_path: Path, running: list[Server], workers: str) -> None:
    port = free_port()
    flags = ["--admin-port", str(port), "--workers", workers, "--watch-seconds", "0.2"]
    server = start_server(repository, tmp_path / "log", *flags)
    running.append(server)
    server.wait_for("ready: ")
    apart = f"http://127.0.0.1:{port}"
    assert httpx.get(f"{server.url}/metrics").status_code == 404
    assert "albert_ready" in httpx.get(f"{apart}/metrics").text
    assert httpx.post(f"{apart}/classify", json={"inputs": "ok"}).status_code == 404
    assert httpx.post(f"{apart}/v2/repository/models/qa/unload").status_code == 200
    gone = time.monotonic() + 10
    asked = {"question": "q", "context": "c"}
    while (seen := [httpx.post(f"{server.url}/qa", json=asked).status_code for _ in range(8)]) != [404] * 8:
        assert time.monotonic() < gone, seen
    assert httpx.post(f"{apart}/v2/repository/models/qa/load").status_code == 200
    while (seen := [httpx.post(f"{server.url}/qa", json=asked).status_code for _ in range(8)]) != [200] * 8:
        assert time.monotonic() < gone + 10, seen


@pytest.mark.anyio
async def test_a_certificate_that_is_renewed_between_two_looks_at_its_start_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.api.certificate.LOOK_SECONDS", 0.01)
    chain, key = certificate(tmp_path, "first")
    one = Certificate(chain, key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    seen = one.load(context)
    for path, other in zip((key, chain), reversed(certificate(tmp_path, "second")), strict=True):
        os.replace(other, path)
    read = asyncio.Event()
    load = Certificate.load

    def loading(self: Certificate, given: ssl.SSLContext) -> Any:
        read.set()
        return load(self, given)

    monkeypatch.setattr(Certificate, "load", loading)
    following = asyncio.create_task(one.follow(context, seen))
    await asyncio.wait_for(read.wait(), 10)
    following.cancel()
