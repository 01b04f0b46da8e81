"""The Open Inference Protocol over gRPC, beside HTTP in the same loop and over the same core.

Keys come as ``authorization`` in the metadata, deadlines as gRPC's own; a call that is cancelled drops its work.
"""

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc
from starlette.datastructures import Headers

from ..errors import InvalidRequest, ModelNotFound, ServiceError, Unavailable
from ..logs import request_id
from .access import Access
from .grpc_messages import SERVICE, infer_request, infer_response, methods
from .middleware import GOOD_ID
from .open_inference import inference
from .open_inference_models import index, model_facts, readiness, server_facts
from .service import Service
from .work import admit

if TYPE_CHECKING:
    from ..tracing import Trace, Tracing

TRACED = "ModelInfer"
log = logging.getLogger(__name__)
CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT, 401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED, 404: grpc.StatusCode.NOT_FOUND, 409: grpc.StatusCode.FAILED_PRECONDITION,
    413: grpc.StatusCode.INVALID_ARGUMENT, 422: grpc.StatusCode.INVALID_ARGUMENT,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED, 503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}  # fmt: skip
current_trace: "ContextVar[Trace | None]" = ContextVar("current_trace", default=None)
Handler = Callable[[Any, Any], Awaitable[Any]]


@dataclass(slots=True)
class Calls:
    """A method for each call; ``answers`` has the class of each method's answer."""

    service: Service
    access: Access
    answers: dict[str, type[Any]]
    tracing: "Tracing | None" = None

    async def ServerLive(self, message: Any, context: Any) -> Any:  # noqa: N802 - the protocol's names
        return self.answers["ServerLive"](live=True)

    async def ServerReady(self, message: Any, context: Any) -> Any:  # noqa: N802
        return self.answers["ServerReady"](ready=not self.service.not_ready_reason())

    async def ServerMetadata(self, message: Any, context: Any) -> Any:  # noqa: N802
        self._check("/v2", context)
        return self.answers["ServerMetadata"](**server_facts())

    async def ModelReady(self, message: Any, context: Any) -> Any:  # noqa: N802
        self._check("/v2/models/x/ready", context)
        with contextlib.suppress(ModelNotFound, Unavailable):
            readiness(self.service, message.name, _version(message.version))
            return self.answers["ModelReady"](ready=True)
        return self.answers["ModelReady"](ready=False)

    async def ModelMetadata(self, message: Any, context: Any) -> Any:  # noqa: N802
        self._check("/v2/models/x", context)
        return self.answers["ModelMetadata"](**model_facts(self.service, message.name, _version(message.version)))

    async def RepositoryIndex(self, message: Any, context: Any) -> Any:  # noqa: N802
        self._check("/v2/repository/index", context)
        found = [one for one in index(self.service) if one["state"] == "READY" or not message.ready]
        return self.answers["RepositoryIndex"](models=found)

    async def RepositoryModelLoad(self, message: Any, context: Any) -> Any:  # noqa: N802
        self._check("/v2/repository/models/x/load", context)
        await self.service.registry.load(message.model_name)
        return self.answers["RepositoryModelLoad"]()

    async def RepositoryModelUnload(self, message: Any, context: Any) -> Any:  # noqa: N802
        self._check("/v2/repository/models/x/unload", context)
        await self.service.registry.unload(message.model_name)
        return self.answers["RepositoryModelUnload"]()

    async def ModelInfer(self, message: Any, context: Any) -> Any:  # noqa: N802
        client = self._check("/v2/models/x/infer", context) or _address(context.peer())
        service, size, left = self.service, message.ByteSize(), context.time_remaining()
        work = admit(
            service, service.priced_as(message.model_name, "grpc"), client=client, size=size, began=time.monotonic(),
            deadline_ms=None if left is None else str(1000 * left), connected=contextlib.nullcontext,
            trace=current_trace.get(),
        )  # fmt: skip
        try:
            work.reserve(size)
            body, binary = infer_request(message, service.settings)
            wanted = inference(service, message.model_name, _version(message.model_version), body, binary)

            def respond(engine: Any, outputs: Any) -> Any:
                work.timing(engine)
                said = {"model_name": engine.ref.name, "model_version": str(engine.ref.version), "id": message.id}
                raw = bool(message.raw_input_contents)
                return infer_response(self.answers["ModelInfer"], said, outputs, body.outputs, raw=raw)

            return await wanted(work, respond)
        finally:
            work.release()

    def _check(self, path: str, context: Any) -> str:
        """The name of the key that the call came with.  Errors as for the HTTP route ``path``."""
        metadata = [(name.encode(), value.encode()) for name, value in context.invocation_metadata() or ()
                    if isinstance(value, str)]  # fmt: skip
        scope = {"type": "http", "method": "POST", "server": None}
        return self.access.check(path, scope, Headers(raw=metadata))


def _version(given: str) -> int | None:
    """None for the newest.  InvalidRequest for what is no version."""
    if not given:
        return None
    if not given.isdecimal() or len(given) > 9:
        raise InvalidRequest(f"version: {given[:20]!r} is no version; they are whole numbers")
    return int(given)


def _address(peer: str) -> str:
    """The host of gRPC's ``ipv4:1.2.3.4:5678``."""
    return peer.partition(":")[2].rpartition(":")[0].strip("[]")


@contextlib.asynccontextmanager
async def grpc_serving(
    service: Service, access: Access, tracing: "Tracing | None", pair: tuple[bytes, bytes] | None
) -> AsyncIterator[None]:
    """Answer on ``grpc_port`` until told to stop; what runs then may end within ``drain_seconds``.

    ``pair``: private key and certificate chain in PEM, for TLS.
    """
    settings = service.settings
    known = methods()
    calls = Calls(service, access, {name: answer for name, (_, answer) in known.items()}, tracing)
    handlers = {
        name: grpc.unary_unary_rpc_method_handler(
            _guarded(name, getattr(calls, name), service, tracing if name == TRACED else None),
            request.FromString,
            answer.SerializeToString,
        )
        for name, (request, answer) in known.items()
    }
    options = [("grpc.max_receive_message_length", settings.max_body_bytes), ("grpc.so_reuseport", 1),
               ("grpc.max_metadata_size", settings.max_header_bytes)]  # fmt: skip
    server = grpc.aio.server(options=options, maximum_concurrent_rpcs=settings.max_requests)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    address = f"{host}:{settings.grpc_port}"
    try:
        if pair is None:
            server.add_insecure_port(address)
        else:
            server.add_secure_port(address, grpc.ssl_server_credentials([pair]))
    except RuntimeError as error:
        raise ServiceError(
            f"cannot listen on {address} for gRPC. Is another service there? Give another grpc_port"
        ) from error
    await server.start()
    log.info("gRPC on %s", address)
    ending = asyncio.create_task(_end(server, service))
    try:
        yield
    finally:
        ending.cancel()
        await server.stop(0)


async def _end(server: Any, service: Service) -> None:
    """With HTTP: after the delay that load balancers need nothing new is taken, and what runs may end."""
    await service.life.stopping.wait()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(service.settings.shutdown_delay_seconds):
            await service.life.hurry.wait()
    await server.stop(service.settings.drain_seconds)


def _guarded(name: str, call: Handler, service: Service, tracing: "Tracing | None") -> Handler:
    """Counted, with an id, and with its errors as gRPC has them."""
    metrics, route = service.metrics, f"grpc {name}"

    async def guarded(message: Any, context: Any) -> Any:
        metadata = {name: value for name, value in context.invocation_metadata() or () if isinstance(value, str)}
        given = metadata.get("x-request-id", "")
        trace = tracing.begin(metadata) if tracing is not None else None
        current_trace.set(trace)
        request_id.set(given if GOOD_ID.fullmatch(given) else secrets.token_hex(16))
        began, status = time.perf_counter(), 499
        metrics.in_flight.inc()
        try:
            answer = await call(message, context)
            status = 200
            return answer
        except ServiceError as error:
            status = error.status
            wait = (("retry-after", str(round(error.retry_after))),) if error.retry_after is not None else ()
            text = error.message.encode(errors="replace").decode()
            await context.abort(CODES.get(status, grpc.StatusCode.INTERNAL), text, wait)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            if isinstance(error, grpc.aio.AbortError):
                raise
            status = 500
            log.exception("%s failed, which is a bug", route)
            told = f"something failed that should not; the log has it under {request_id.get()}"
            await context.abort(grpc.StatusCode.INTERNAL, told)
        finally:
            metrics.in_flight.dec()
            if trace is not None:
                trace.end("gRPC", name, status)
            metrics.requests.labels(route, status).inc()
            metrics.request_seconds.labels(route).observe(time.perf_counter() - began)

    return guarded
