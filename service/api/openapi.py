"""The OpenAPI document: what FastAPI cannot see of the routes, so that a generated client knows it.

The key, the headers of requests and answers.  Each operation is called by the name of its function.
"""

from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute

from .access import is_public

PLACES = {"name": "string", "version": "integer"}  # in the paths of routes that run a model, which take them themselves
REQUEST_ID = {"schema": {"type": "string"}, "description": "The request's id: the one that was sent, or a new one."}
SERVER_TIMING = {"schema": {"type": "string"}, "description": "Milliseconds by stage: encode, queue, run, decode."}
RETRY_AFTER = {"schema": {"type": "integer"}, "description": "Seconds until this request would be taken."}
PARAMETERS: list[dict[str, Any]] = [
    {
        "name": "X-Request-ID", "in": "header", "required": False,
        "description": "An id for the logs and the answer: 1 to 128 visible ASCII characters.",
        "schema": {"type": "string", "maxLength": 128},
    },
    {
        "name": "X-Deadline-Ms", "in": "header", "required": False,
        "description": "Milliseconds from now by which the answer is wanted; deadline_ms where absent.",
        "schema": {"type": "number", "exclusiveMinimum": 0},
    },
]  # fmt: skip
BEARER = {"type": "http", "scheme": "bearer", "description": "One of the service's API keys, where it has any."}


def name(route: APIRoute) -> str:
    """The operation's id."""
    return route.name


def complete(app: FastAPI) -> None:
    """Have ``app`` describe keys and headers, too.  Made once, when first asked for."""
    described = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = described()
            document.setdefault("components", {})["securitySchemes"] = {"key": BEARER}
            for path, methods in document["paths"].items():
                for method, operation in methods.items():
                    _describe(path, method, operation)
        assert app.openapi_schema is not None
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's own way to extend it


def _describe(path: str, method: str, operation: dict[str, Any]) -> None:
    if not is_public(path, method.upper()):
        operation["security"] = [{"key": []}, {}]  # {}: none is asked for where the service has none
    runs = "requestBody" in operation
    if runs:
        parameters = operation.setdefault("parameters", [])
        parameters += [
            {"name": place, "in": "path", "required": True, "schema": {"type": kind}}
            for place, kind in PLACES.items() if f"{{{place}}}" in path
        ]  # fmt: skip
        parameters += PARAMETERS
    for status, response in operation["responses"].items():
        headers = {"X-Request-ID": REQUEST_ID}
        if runs and status == "200":
            headers["Server-Timing"] = SERVER_TIMING
        if status in ("429", "503"):
            headers["Retry-After"] = RETRY_AFTER
        response["headers"] = headers
