"""A route for one JSON body, admitted, read, parsed and answered by the shortest way.

FastAPI prepares every request for dependencies, forms and exit stacks that these routes have none of; for a small model
that took longer than its layers.  The documents at ``/docs`` are FastAPI's as everywhere.
"""

import functools
from collections.abc import Awaitable, Callable
from typing import Any, get_type_hints

from fastapi import FastAPI, Request
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ..errors import InvalidRequest
from ..settings import Settings
from .body import MOST_VALUES, parse_json, read_body
from .decompression import decompress
from .failures import explain
from .schemas import RESPONSES, Request as Body, check_size
from .service import Service
from .work import begin

VALUES_OF_AN_ITEM = 8  # of a list, with its brackets, commas and colons


class JsonRoute(APIRoute):
    """Calls ``endpoint(body, request)``; the type of ``body`` is the Pydantic model that the body has to fit.

    ``request.state.work`` is the request's work: there was room for it by its head, before its body was read.
    """

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] not in (self.methods or ()):
            await super().handle(scope, receive, send)  # which says what is allowed
            return
        request = Request(scope, receive, send)
        service: Service = request.app.state.service
        work = request.state.work = begin(service, request, self.path)
        try:
            body = await read_body(request, service.bodies, service.life, work.deadline)
            body = await decompress(body, request.headers.get("content-encoding", ""), service.bodies)
            work.reserve(len(body))
            most = max(
                MOST_VALUES, VALUES_OF_AN_ITEM * max(service.settings.max_inputs, service.settings.max_documents)
            )
            content = await parse_json(body, most)
            response: Response = await self.endpoint(validate(self._model, content, service.settings), request)
        finally:
            work.release()
        await response(scope, receive, send)

    @functools.cached_property
    def _model(self) -> type[Body]:
        model: type[Body] = get_type_hints(self.endpoint)["body"]
        return model


def add_json_route(
    app: FastAPI, path: str, endpoint: Callable[..., Awaitable[Response]], answer: type[BaseModel], summary: str
) -> None:
    """On ``app`` itself, for a router in between would look at each request once more."""
    app.router.add_api_route(
        path, endpoint, methods=["POST"], response_model=answer, response_model_exclude_none=True,
        responses=RESPONSES, tags=["tasks"], summary=summary, route_class_override=JsonRoute,
    )  # fmt: skip


def validate(model: type[Body], content: Any, settings: Settings) -> Body:
    """InvalidRequest or TooLarge where ``content`` does not fit ``model``; the message names the field."""
    check_size(model, content, {name: getattr(settings, name) for name in model.lists.values()})
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise InvalidRequest(explain(error.errors(include_url=False, include_input=False), content)) from None
