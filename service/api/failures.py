"""Errors to answers: the one place where the error tree becomes HTTP, and where refusals and faults are logged."""

import logging
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import Scope

from ..errors import ServiceError
from ..logs import LimitedLog, request_id

log = logging.getLogger(__name__)
often = LimitedLog(log)
CODES = {404: "not_found", 405: "method_not_allowed"}
# Other protocols have other shapes: Open Inference and Hugging Face a text, TEI a text and a type.
PLAIN = re.compile(r"\w+ /v2(/.*)?|POST /|POST /models/.*", re.DOTALL)
TYPED = ("/predict", "/health", "/info")
ERROR_TYPES = {429: "Overloaded", 503: "Unhealthy"}
ECHO = 100  # characters of what a client sent that a message may hold
ADVICE = {
    429: "if this happens a lot, add workers or devices, or shorter deadlines",
    503: "starting, stopping, or the device is being restarted",
    504: "if this happens a lot, allow more time (deadline_ms), or send less at once",
    408: "clients send their bodies too slowly (body_seconds)",
}


def install(app: FastAPI) -> None:
    app.add_exception_handler(ServiceError, _service_error)
    app.add_exception_handler(HTTPException, _http_error)


def error_response(error: ServiceError, scope: Scope) -> JSONResponse:
    """In the shape that clients of the route in ``scope`` read."""
    headers = dict(error.headers)
    if error.retry_after is not None:
        headers["Retry-After"] = str(math.ceil(error.retry_after))
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if error.status in (408, 413):
        headers["Connection"] = "close"  # the rest of the body is not wanted
    if error.status in ADVICE or error.status >= 500:
        told = ADVICE.get(error.status, "the log above says why")
        often.warning(f"{error.status} {error.code}", "answered %d: %s (%s)", error.status, error.message[:300], told)
    return answer(scope, error.status, error.code, error.message, headers)


def answer(
    scope: Scope, status: int, code: str, message: str, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    message = message.encode(errors="replace").decode()  # half a character of a client's cannot be sent back
    path = str(scope["path"]).removeprefix(str(scope.get("root_path", "")))
    body: dict[str, object] = {"error": {"code": code, "message": message, "request_id": request_id.get()}}
    if PLAIN.fullmatch(f"{scope['method']} {path}"):
        body = {"error": message}
    elif path in TYPED:
        body = {"error": message, "error_type": ERROR_TYPES.get(status, "Backend" if status >= 500 else "Validation")}
    return JSONResponse(body, status, dict(headers or {}))


async def _service_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ServiceError)
    return error_response(error, request.scope)


def explain(problems: Sequence[Any], content: Any) -> str:
    """Which field of ``content`` is wrong and how.  Its value is left out: it may be a megabyte, or a secret."""
    told: dict[tuple[str, ...], list[str]] = {}
    for problem in problems[:50]:
        told.setdefault(_place(problem, content), []).append(problem["msg"])
    # A union reports every branch that failed; those of the deepest place say most.
    places = [place for place in told if not any(other[: len(place)] == place != other for other in told)]
    return "; ".join(
        f"{'.'.join(place)[:ECHO] or 'body'}: {', or '.join(dict.fromkeys(told[place]))}" for place in places[:3]
    )


def _place(problem: Any, content: Any) -> tuple[str, ...]:
    """Field names and indices.  What is neither in ``content`` nor missing there names a branch of a union."""
    place: list[str] = []
    for part in problem["loc"]:
        there = isinstance(content, dict) and part in content
        if there or (isinstance(content, list) and isinstance(part, int) and part < len(content)):
            content = content[part]
        elif problem["type"] != "missing" or part != problem["loc"][-1]:
            continue
        place.append(str(part).encode(errors="replace").decode())
    return tuple(place)


async def _http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    return answer(
        request.scope, error.status_code, CODES.get(error.status_code, "http_error"), str(error.detail), error.headers
    )
