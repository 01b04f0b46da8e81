"""A route for one JSON body, parsed and answered by the shortest way.

FastAPI prepares every request for dependencies, forms and exit stacks that these routes have none of; for a small model
that took longer than its layers.  The documents at ``/docs`` are FastAPI's as everywhere.
"""

import functools
import json
from typing import get_type_hints

from fastapi import Request
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from service.api.failures import explain
from service.errors import InvalidRequest, MalformedBody


class JsonRoute(APIRoute):
    """Calls ``endpoint(body, request)``; the type of ``body`` is the Pydantic model that the body has to fit."""

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] not in (self.methods or ()):
            await super().handle(scope, receive, send)  # which says what is allowed
            return
        request = Request(scope, receive, send)
        response: Response = await self.endpoint(parse(self._model, await request.body()), request)
        await response(scope, receive, send)

    @functools.cached_property
    def _model(self) -> type[BaseModel]:
        model: type[BaseModel] = get_type_hints(self.endpoint)["body"]
        return model


def parse(model: type[BaseModel], body: bytes) -> BaseModel:
    """MalformedBody where ``body`` is not JSON, InvalidRequest where it does not fit ``model``."""
    if not body:
        raise InvalidRequest("body: empty; wanted a JSON object")
    try:
        # Not by Pydantic's own parser: it refuses a whole body for one lone surrogate in one of its texts.
        content = json.loads(body)
    except UnicodeDecodeError:
        raise MalformedBody("the body is not JSON in UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise MalformedBody(f"the body is not JSON: {error}") from None
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise InvalidRequest(explain(error.errors(include_url=False, include_input=False))) from None
