"""A route for one JSON body, admitted, read, parsed and answered by the shortest way.

FastAPI prepares every request for dependencies, forms and exit stacks that these routes have none of; for a small model
that took longer than its layers.  The documents at ``/docs`` are FastAPI's as everywhere.
"""

import functools
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, get_type_hints

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
from .schemas import Body, ErrorBody, check_size, responses
from .service import Service
from .work import begin

B = TypeVar("B", bound=Body)
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
        work = request.state.work = begin(service, request, self.priced_as(service, request))
        try:
            body = await read_body(request, service.bodies, service.life, work.deadline)
            body = await decompress(body, request.headers.get("content-encoding", ""), service.bodies)
            work.reserve(len(body))
            most = max(
                MOST_VALUES, VALUES_OF_AN_ITEM * max(service.settings.max_inputs, service.settings.max_documents)
            )
            content = await parse_json(self.json_of(body, request), most)
            response: Response = await self.endpoint(validate(self._model, content, service.settings), request)
        finally:
            work.release()
        await response(scope, receive, send)

    def priced_as(self, service: Service, request: Request) -> str:
        """The route whose requests say what a body of some size costs."""
        return self.path

    def json_of(self, body: bytes, request: Request) -> bytes:
        """The part of ``body`` that is JSON."""
        return body

    @functools.cached_property
    def _model(self) -> type[Body]:
        model: type[Body] = get_type_hints(self.endpoint)["body"]
        return model


def add_json_route(
    app: FastAPI, path: str, endpoint: Callable[..., Awaitable[Response]], answer: Any, summary: str, *,
    kind: type[JsonRoute] = JsonRoute, tag: str = "tasks", error: type[BaseModel] = ErrorBody, name: str | None = None,
) -> None:  # fmt: skip
    """On ``app`` itself, for a router in between would look at each request once more."""
    app.router.add_api_route(
        path, endpoint, methods=["POST"], response_model=answer, response_model_exclude_none=True,
        responses=responses(error), tags=[tag], summary=summary, route_class_override=kind, name=name,
    )  # fmt: skip


def validate(model: type[B], content: Any, settings: Settings) -> B:
    """InvalidRequest or TooLarge where ``content`` does not fit ``model``; the message names the field."""
    check_size(model, content, {name: getattr(settings, name) for name in model.lists.values()})
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise InvalidRequest(explain(error.errors(include_url=False, include_input=False), content)) from None
