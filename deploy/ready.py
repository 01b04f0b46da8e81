"""The images' health probe: 0 where the service says that it is ready.  Small: it runs every ten seconds.

The port is the one that process 1 was started with: a flag, else its variable.
"""

import os
import socket
import sys


def port() -> int:
    with open("/proc/1/cmdline", encoding="utf-8", errors="replace") as file:
        words = file.read().split("\0")
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word == "--port":
            return int(following)
        if word.startswith("--port="):
            return int(word.removeprefix("--port="))
    given = os.environ.get("ALBERT_SERVE_PORT", "")
    return int(given) if given.isdigit() else 8000  # empty, or Kubernetes' own of a Service of this name: the default


def status() -> bytes:
    with socket.create_connection(("127.0.0.1", port()), timeout=2) as connection:
        connection.settimeout(2)
        connection.sendall(b"GET /health/ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        return connection.recv(32).split(b" ")[1]


try:
    ready = status() == b"200"
except (OSError, ValueError, IndexError) as error:
    sys.exit(f"not ready: {error}")
sys.exit(0 if ready else "not ready")
