"""Every Prometheus collector, made on the registry that it is given.

Works in one process and, where ``PROMETHEUS_MULTIPROC_DIR`` is set before the client library is imported, in several:
counters and histograms then add up over processes; each gauge says how its values come together.
"""

import os

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)  # fmt: skip
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.multiprocess import MultiProcessCollector

from .types import ModelRef

# From a short text on a GPU (1 ms) to a long document on a busy CPU (half a minute), about two a doubling.
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.15, 0.25, 0.4, 0.6, 1, 1.5, 2.5, 5, 10, 30)
# Encoding and decoding take microseconds; what shows up beyond 10 ms is a long document.
STAGE_SECONDS = (0.0001, 0.00025, 0.0005, *SECONDS)
# Powers of two: one text on an idle CPU is some 16 tokens, a full step of a large GPU tens of thousands.
TOKENS = tuple(2**n for n in range(3, 18))
SEQUENCES = tuple(2**n for n in range(12))
# The loop is healthy below 10 ms; above 100 ms something blocks it.
LAG = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1)
MODEL = ("model", "version")
REFUSALS = ("queue", "too_slow", "too_large", "encoding", "explaining", "documents", "requests", "busy", "rate")
DROPS = ("deadline", "cancelled")
disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each, which nobody asks for


class Supervision:
    """What the process counts that looks after workers.  No other: gauges would speak of a service."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.lost_requests = Counter(
            "albert_lost_requests", "Requests that were in a worker when it was killed.", registry=registry
        )
        self.restarts = Counter(
            "albert_worker_restarts", "Workers that ended by themselves and were started again.", registry=registry
        )


class Metrics:
    """The collectors, by what they count.  One instance a process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry

        def counter(name: str, text: str, labels: tuple[str, ...] = ()) -> Counter:
            return Counter(f"albert_{name}", text, labels, registry=registry)

        def histogram(name: str, text: str, labels: tuple[str, ...], buckets: tuple[float, ...]) -> Histogram:
            return Histogram(f"albert_{name}", text, labels, buckets=buckets, registry=registry)

        def gauge(name: str, text: str, labels: tuple[str, ...] = (), how: str = "livesum") -> Gauge:
            return Gauge(f"albert_{name}", text, labels, registry=registry, multiprocess_mode=how)  # type: ignore[arg-type]

        self.requests = counter("requests", "Requests by route and status.", ("route", "status"))
        self.request_seconds = histogram("request_seconds", "Whole request.", ("route",), SECONDS)
        self.in_flight = gauge("requests_in_flight", "Requests being answered.")
        self.stage_seconds = histogram(
            "stage_seconds",
            "A request's time by stage: read, encode, queue, run, decode, pictures.",
            (*MODEL, "stage"),
            STAGE_SECONDS,
        )
        self.truncated = counter("texts_truncated", "Texts that were cut to the model's length.", MODEL)
        self.steps = counter("steps", "Steps of the device.", MODEL)
        self.step_sequences = histogram("step_sequences", "Sequences in a step.", MODEL, SEQUENCES)
        self.step_tokens = histogram("step_tokens", "Tokens in a step.", MODEL, TOKENS)
        self.layers = counter("layers", "Layers times tokens: run, or saved by leaving early.", (*MODEL, "fate"))
        self.exit_depth = counter(
            "exited_sequences", "Sequences by the number of layers that they ran.", (*MODEL, "depth")
        )
        self.padding_avoided = counter(
            "padding_avoided_tokens", "Tokens of padding that a padded batch would have computed.", MODEL
        )
        self.device_busy = counter("device_busy_seconds", "Time in which the device ran a step.")
        self.queue_sequences = gauge("queue_sequences", "Sequences that wait for the device.")
        self.queue_tokens = gauge("queue_tokens", "Tokens that wait for the device.")
        self.promised = gauge("promised_seconds", "Device time that is reserved by the requests that were admitted.")
        self.encoding_chars = gauge("encoding_chars", "Code points that wait to be tokenized.")
        self.reused = counter(
            "reused_sequences",
            "Sequences that were not run, by reason: duplicate (in their request), cache.",
            ("reason",),
        )
        self.cache_bytes = gauge("cache_bytes", "What is kept of answers that may be asked for again.")
        self.dropped = counter("dropped_sequences", "Not run, by reason: deadline, cancelled.", ("reason",))
        self.refused = counter("refusals", "Requests that were refused, by cause.", ("cause",))
        self.device_failures = counter("device_failures", "Times that the device failed as a whole.")
        self.failed = counter("failed_sequences", "Sequences that the model failed on.", MODEL)
        self.cost = gauge(
            "cost_seconds",
            "Fitted cost of a step: per_step + per_token x tokens.",
            (*MODEL, "coefficient"),
            "mostrecent",
        )
        self.token_budget = gauge("token_budget", "Tokens a step may hold.", MODEL, "mostrecent")
        self.load_seconds = gauge("model_load_seconds", "Load and warm-up of a version.", MODEL, "mostrecent")
        self.precision = gauge(
            "model_precision", "1 for the precision that a version runs in here.", (*MODEL, "precision"), "mostrecent"
        )
        self.loaded = gauge("models_loaded", "Versions that are loaded.")
        self.load_failures = counter("model_load_failures", "Times that a version did not load.", ("model",))
        self.repository_failures = counter("repository_failures", "Looks at the repository, or a part, that failed.")
        self.memory = gauge("resident_memory_bytes", "Memory that the processes hold.")
        self.supervision = Supervision(registry)
        self.build = gauge("build_info", "1; the versions are its labels.", ("version", "python", "onnxruntime"), "max")
        self.ready = gauge("ready", "1 while ready to serve; with several workers, 1 when all are.", how="livemin")
        self.loop_lag = histogram("event_loop_lag_seconds", "How late the event loop wakes up.", (), LAG)

        self._begin()
        if not self.several:
            ProcessCollector(registry=registry)
            PlatformCollector(registry=registry)

    def _begin(self) -> None:
        """Series that are known are there from the start: an alert on one that is not there never fires."""
        for cause in REFUSALS:
            self.refused.labels(cause)
        for reason in ("duplicate", "cache"):
            self.reused.labels(reason)
        for reason in DROPS:
            self.dropped.labels(reason)

    @property
    def several(self) -> bool:
        """Do several processes write together?"""
        return "PROMETHEUS_MULTIPROC_DIR" in os.environ

    def page(self, accept: str = "") -> tuple[bytes, str]:
        """What ``/metrics`` answers, and its content type: OpenMetrics where asked for, else Prometheus' text."""
        encode, kind = choose_encoder(accept)
        if not self.several:
            return encode(self.registry), kind
        together = CollectorRegistry()
        MultiProcessCollector(together)  # type: ignore[no-untyped-call]
        return encode(together), kind

    def forget(self, ref: ModelRef, *collectors: MetricWrapperBase) -> None:
        """The series of a version go, of all collectors or of these; with several processes their files keep them."""
        if self.several:
            return
        for collector in collectors or self._of_models:
            collector.remove_by_labels({"model": ref.name, "version": str(ref.version)})

    @property
    def _of_models(self) -> list[MetricWrapperBase]:
        kinds = [one for one in vars(self).values() if isinstance(one, MetricWrapperBase)]
        return [one for one in kinds if set(MODEL) <= set(one._labelnames)]


def resident_memory() -> int:
    """Bytes that this process holds; 0 where the system does not say."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return 0
