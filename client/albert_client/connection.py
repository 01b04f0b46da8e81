"""What both clients share: where the service is, its key, and how long and how often to ask."""

import json
from dataclasses import dataclass, field
from typing import Any

import httpx

from albert_client.retries import Call, Retries

URL = "http://localhost:8000"
DEADLINE = 60.0  # seconds
RETRIES = Retries()


@dataclass(frozen=True, slots=True)
class Connection:
    """``deadline`` in seconds, of a call with all its attempts."""

    url: str
    api_key: str | None = field(repr=False)
    deadline: float
    retries: Retries

    def __post_init__(self) -> None:
        if httpx.URL(self.url).scheme not in ("http", "https"):
            raise ValueError(f"url: {self.url!r} does not begin with http:// or https://")

    def call(
        self, http: httpx.Client | httpx.AsyncClient, path: str, body: Any = None, deadline: float | None = None
    ) -> Call:
        """POST with a body, else GET; with the headers and cookies of ``http``."""
        headers = {"Authorization": f"Bearer {self.api_key}"} if self.api_key else {}
        url = f"{self.url.rstrip('/')}/{path}"
        if body is None:
            request = http.build_request("GET", url, headers=headers)
        else:
            # In ASCII: half a character in one text of many is for the service to refuse, in its place.
            content = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
            request = http.build_request("POST", url, content=content, headers=headers)
        return Call(request, self.retries, self.deadline if deadline is None else deadline)
