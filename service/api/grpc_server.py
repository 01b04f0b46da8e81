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
from google.protobuf.message import DecodeError
from starlette.datastructures import Headers

from ..errors import InvalidRequest, MalformedBody, ModelNotFound, QueueFull, ServiceError, Unavailable
from ..logs import request_id
from .access import Access
from .grpc_messages import SERVICE, infer_request, infer_response, methods
from .middleware import GOOD_ID
from .open_inference import inference
from .open_inference_models import EXTENSIONS, index, model_facts, readiness, server_facts
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
# The HTTP routes whose keys the methods ask for; the others are probes, which are answered without one.
PATHS = {
    "ServerMetadata": "/v2", "ModelReady": "/v2/models/x/ready", "ModelMetadata": "/v2/models/x",
    "ModelInfer": "/v2/models/x/infer", "RepositoryIndex": "/v2/repository/index",
    "RepositoryModelLoad": "/v2/repository/models/x/load", "RepositoryModelUnload": "/v2/repository/models/x/unload",
}  # fmt: skip
RETRY_SECONDS = 2.0
PROBES = 64  # calls above max_requests that are taken: a probe is answered, what is more is told to come back
current_client: ContextVar[str] = ContextVar("current_client", default="")
current_trace: "ContextVar[Trace | None]" = ContextVar("current_trace", default=None)
Handler = Callable[[Any, Any], Awaitable[Any]]


@dataclass(slots=True)
class Calls:
    """A method for each call; ``answers`` has the class of each method's answer."""

    service: Service
    access: Access
    answers: dict[str, type[Any]]
    tracing: "Tracing | None" = None
    in_work: int = 0

    async def ServerLive(self, message: Any, context: Any) -> Any:  # noqa: N802 - the protocol's names
        return self.answers["ServerLive"](live=True)

    async def ServerReady(self, message: Any, context: Any) -> Any:  # noqa: N802
        return self.answers["ServerReady"](ready=not self.service.not_ready_reason())

    async def ServerMetadata(self, message: Any, context: Any) -> Any:  # noqa: N802
        return self.answers["ServerMetadata"](**server_facts(EXTENSIONS))

    async def ModelReady(self, message: Any, context: Any) -> Any:  # noqa: N802
        with contextlib.suppress(ModelNotFound, Unavailable):
            readiness(self.service, message.name, _version(message.version))
            return self.answers["ModelReady"](ready=True)
        return self.answers["ModelReady"](ready=False)

    async def ModelMetadata(self, message: Any, context: Any) -> Any:  # noqa: N802
        return self.answers["ModelMetadata"](**model_facts(self.service, message.name, _version(message.version)))

    async def RepositoryIndex(self, message: Any, context: Any) -> Any:  # noqa: N802
        return self.answers["RepositoryIndex"](models=index(self.service, ready=message.ready))

    async def RepositoryModelLoad(self, message: Any, context: Any) -> Any:  # noqa: N802
        await self.service.registry.load(message.model_name)
        return self.answers["RepositoryModelLoad"]()

    async def RepositoryModelUnload(self, message: Any, context: Any) -> Any:  # noqa: N802
        await self.service.registry.unload(message.model_name)
        return self.answers["RepositoryModelUnload"]()

    async def ModelInfer(self, message: Any, context: Any) -> Any:  # noqa: N802
        client = current_client.get() or _address(context.peer())
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

    def check(self, name: str, context: Any) -> str:
        """The name of the key that a call of the method ``name`` came with.  Errors as for its HTTP route."""
        path = PATHS.get(name)
        if path is None:
            return ""
        if self.in_work > self.service.settings.max_requests:
            self.service.metrics.refused.labels("requests").inc()
            raise QueueFull("too many requests are in work (max_requests); come back after Retry-After", RETRY_SECONDS)
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
    # Messages come as bytes: whose key is wrong has nothing unpacked.
    handlers = {
        name: grpc.unary_unary_rpc_method_handler(
            _guarded(name, request, calls), response_serializer=answer.SerializeToString
        )
        for name, (request, answer) in known.items()
    }
    # Several workers share the port; alone, a port that another service has is an error.
    options = [("grpc.max_receive_message_length", settings.max_body_bytes),
               ("grpc.so_reuseport", int(settings.workers > 1)),
               ("grpc.max_metadata_size", settings.max_header_bytes)]  # fmt: skip
    server = grpc.aio.server(options=options, maximum_concurrent_rpcs=settings.max_requests + PROBES)
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


async def _unpacked(kind: type[Any], raw: bytes, service: Service, call: Handler, context: Any) -> Any:
    """``call``'s answer to the message in ``raw``, which counts among the bodies that are held."""
    service.bodies.hold(len(raw))
    try:
        try:
            message = kind.FromString(raw)
        except DecodeError:
            raise MalformedBody("the message is none of this method's") from None
        return await call(message, context)
    finally:
        service.bodies.held -= len(raw)


def _guarded(name: str, kind: type[Any], calls: Calls) -> Handler:
    """Counted, with an id, and with its errors as gRPC has them.  The key is asked for before the message is read."""
    service, call = calls.service, getattr(calls, name)
    metrics, route = service.metrics, f"grpc {name}"
    tracing = calls.tracing if name == TRACED else None

    async def guarded(raw: bytes, context: Any) -> Any:
        metadata = {name: value for name, value in context.invocation_metadata() or () if isinstance(value, str)}
        given = metadata.get("x-request-id", "")
        trace = tracing.begin(metadata) if tracing is not None else None
        current_trace.set(trace)
        request_id.set(given if GOOD_ID.fullmatch(given) else secrets.token_hex(16))
        told = [("x-request-id", request_id.get()), *(trace.headers().items() if trace is not None else ())]
        context.set_trailing_metadata(told)
        began, status = time.perf_counter(), 499
        metrics.in_flight.inc()
        calls.in_work += 1
        try:
            current_client.set(calls.check(name, context))
            answer = await _unpacked(kind, raw, service, call, context)
            status = 200
            return answer
        except ServiceError as error:
            status = error.status
            wait = (("retry-after", str(round(error.retry_after))),) if error.retry_after is not None else ()
            text = error.message.encode(errors="replace").decode()
            await context.abort(CODES.get(status, grpc.StatusCode.INTERNAL), text, (*told, *wait))
        except asyncio.CancelledError:
            raise
        except Exception as error:
            if isinstance(error, grpc.aio.AbortError):
                raise
            status = 500
            log.exception("%s failed, which is a bug", route)
            text = f"something failed that should not; the log has it under {request_id.get()}"
            await context.abort(grpc.StatusCode.INTERNAL, text, told)
        finally:
            calls.in_work -= 1
            metrics.in_flight.dec()
            if trace is not None:
                trace.end("gRPC", name, status)
            metrics.requests.labels(route, status).inc()
            metrics.request_seconds.labels(route).observe(time.perf_counter() - began)

    return guarded
