"""Traces by OpenTelemetry, sent by OTLP over HTTP: a span for each request, and below it one for each of its stages.

The standard variables say where they go (``OTEL_EXPORTER_OTLP_ENDPOINT``), how many are kept (``OTEL_TRACES_SAMPLER``)
and what this is called (``OTEL_SERVICE_NAME``).  The only module that imports OpenTelemetry, which is an extra.
https://opentelemetry.io/docs/specs/semconv/http/http-spans/
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from opentelemetry import trace as api
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from . import __version__
from .types import StepRun

CONTEXT = TraceContextTextMapPropagator()
HEADERS = ("traceparent", "tracestate")


@dataclass(slots=True)
class Trace:
    """One request's.  Its stages are told when they are over."""

    _tracer: Any
    _span: Any
    _context: Any = field(init=False)

    def __post_init__(self) -> None:
        self._context = api.set_span_in_context(self._span)

    @property
    def recorded(self) -> bool:
        """False where the sampler leaves it out: nothing is kept then."""
        return bool(self._span.is_recording())

    @property
    def id(self) -> str:
        """32 hexadecimal digits."""
        return api.format_trace_id(self._span.get_span_context().trace_id)

    def headers(self) -> dict[str, str]:
        """Of the answer: who asked finds the trace by it."""
        carrier: dict[str, str] = {}
        CONTEXT.inject(carrier, self._context)
        return carrier

    def stage(self, name: str, seconds: float) -> None:
        """One that ends now."""
        now = time.time_ns()
        self._add(name, now - int(seconds * 1e9), now, {})

    def device(self, arrived: float, steps: list[StepRun], clock: Callable[[], float]) -> None:
        """The wait for the device since ``arrived``, and each step that the request was in; times on ``clock``."""
        if not self.recorded or not steps:
            return
        zero = time.time_ns() - int(clock() * 1e9)

        def at(moment: float) -> int:
            return zero + int(moment * 1e9)

        self._add("queue", at(arrived), at(max(arrived, steps[0].began)), {})
        for step in steps:
            facts = {"albert.tokens": step.tokens, "albert.sequences": step.sequences}
            facts |= {"albert.depth.before": step.before, "albert.depth.after": step.after}
            self._add("step", at(step.began), at(step.ended), facts)

    def tell(self, **facts: Any) -> None:
        """More of the whole request."""
        self._span.set_attributes({name.replace("_", "."): value for name, value in facts.items()})

    def end(self, method: str, route: str, status: int) -> None:
        if self.recorded:
            self._span.update_name(f"{method} {route}")
            facts = {"http.request.method": method, "http.route": route, "http.response.status_code": status}
            self._span.set_attributes(facts)
            if status >= 500:
                self._span.set_status(api.StatusCode.ERROR)
        self._span.end()

    def _add(self, name: str, began: int, ended: int, facts: Mapping[str, Any]) -> None:
        if self.recorded:
            self._tracer.start_span(name, self._context, start_time=began, attributes=facts).end(ended)


class Tracing:
    """Of one process.  Spans are sent from a thread of its own; a collector that is away costs nothing but them."""

    def __init__(self) -> None:
        default = Resource.create({"service.name": "albert-serve", "service.version": __version__})
        self._provider = TracerProvider(resource=default.merge(OTELResourceDetector().detect()), shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("albert-serve", __version__)

    def begin(self, headers: Mapping[str, str]) -> Trace:
        """A request's, below that of its ``traceparent`` where it has one."""
        given = {name: headers[name] for name in HEADERS if name in headers}
        above = CONTEXT.extract(given) if given else None
        return Trace(self._tracer, self._tracer.start_span("request", above, kind=api.SpanKind.SERVER))

    def close(self) -> None:
        """Sends what is left; blocks for some seconds at most."""
        self._provider.force_flush(3000)
        self._provider.shutdown()
