"""Who may ask what: which paths need a key, which an admin's, and which of two ports has them."""

import re
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.types import Scope

from ..errors import Forbidden, RateLimited, RouteNotFound, Unauthorized
from ..metrics import Metrics
from ..settings import Settings
from .keys import ApiKey, Keys

PROBES = re.compile(r"/health|/health/.*|/v2/health/.*")
DOCUMENTS = re.compile(r"/docs|/openapi\.json|/static/.*|/static-offline-docs/.*")
METRICS = "/metrics"
CONTROL = re.compile(r"[\x00-\x1f\x7f]")
ADMIN = re.compile(r"/v2/repository/models/[^/]+/(load|unload)")


def is_public(path: str, method: str = "GET") -> bool:
    """Answered without a key, and whatever there is to do: probes, scrapes, the page and the documents."""
    if path == "/":
        return method in ("GET", "HEAD")
    return path == METRICS or any(pattern.fullmatch(path) for pattern in (PROBES, DOCUMENTS))


@dataclass(slots=True)
class Access:
    settings: Settings
    metrics: Metrics
    keys: Keys

    def check(self, path: str, scope: Scope, headers: Headers) -> str:
        """The client's name where it asks with a key, else empty; a fair share is by it.

        RouteNotFound on the wrong port; Unauthorized, Forbidden, RateLimited.
        """
        if CONTROL.search(path):  # a route's pattern may end before a newline, and ours does not
            raise RouteNotFound("a path with a control character is none of this service's")
        apart = self._check_port(path, scope)
        if is_public(path, scope["method"]):
            return ""
        key = self._key(headers)
        if ADMIN.fullmatch(path):
            if not (key is not None and key.admin) and not (apart and not self.keys.administered):
                raise Forbidden(
                    "loading and unloading models takes an admin key (admin_keys, or admin = true in api_key_file), or "
                    "the admin_port of a service that has none"
                )
        elif key is None and self.keys.wanted:
            raise Unauthorized("this service wants the header 'Authorization: Bearer KEY' with one of its keys")
        if key is None:
            return ""
        try:
            self.keys.count(key)
        except RateLimited:
            self.metrics.refused.labels("rate").inc()
            raise
        return key.name

    def _check_port(self, path: str, scope: Scope) -> bool:
        """Did it come to the port of the administration?  Each port has its own paths where there are two."""
        port = self.settings.admin_port
        if port is None:
            return False
        apart = (scope.get("server") or ("", 0))[1] == port
        administrative = path == METRICS or ADMIN.fullmatch(path) is not None
        if apart != administrative and not PROBES.fullmatch(path):
            where = "the service's port" if apart else "the admin_port"
            raise RouteNotFound(f"not on this port: {where} has it")
        return apart

    def _key(self, headers: Headers) -> ApiKey | None:
        scheme, _, given = headers.get("authorization", "").partition(" ")
        return self.keys.find(given.strip().encode("latin-1")) if scheme.lower() == "bearer" else None
