"""Errors to answers: the one place where the error tree becomes HTTP."""

import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from service.errors import ServiceError
from service.logs import request_id

log = logging.getLogger(__name__)
CODES = {404: "not_found", 405: "method_not_allowed"}


def install(app: FastAPI) -> None:
    app.add_exception_handler(ServiceError, _service_error)
    app.add_exception_handler(HTTPException, _http_error)


def error_response(error: ServiceError) -> JSONResponse:
    headers = {"Retry-After": str(int(error.retry_after))} if error.retry_after is not None else {}
    return answer(error.status, error.code, error.message, headers)


def answer(status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    body = {"error": {"code": code, "message": message, "request_id": request_id.get()}}
    return JSONResponse(body, status, dict(headers or {}))


async def _service_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ServiceError)
    return error_response(error)


def explain(problems: Sequence[Any]) -> str:
    """Which field is wrong and how.  The value itself is left out: it may be a megabyte, or a secret."""
    told: dict[tuple[str, ...], list[str]] = {}
    for problem in problems:
        told.setdefault(_place(problem["loc"]), []).append(problem["msg"])
    # A union reports every branch that failed; those of the deepest place say most.
    places = [place for place in told if not any(other[: len(place)] == place != other for other in told)]
    return "; ".join(f"{'.'.join(place) or 'body'}: {', or '.join(dict.fromkeys(told[place]))}" for place in places[:3])


def _place(loc: Sequence[str | int]) -> tuple[str, ...]:
    """Field names and indices; Pydantic's names of a union's branches say nothing to a client."""
    return tuple(str(part) for part in loc if isinstance(part, int) or re.fullmatch(r"[a-z_]+", part))


async def _http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    return answer(error.status_code, CODES.get(error.status_code, "http_error"), str(error.detail), error.headers)
