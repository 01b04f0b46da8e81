"""Every Prometheus collector, made on the registry that it is given.

Works in one process and, where ``PROMETHEUS_MULTIPROC_DIR`` is set before the client library is imported, in several:
counters and histograms then add up over processes; each gauge says how its values come together.
"""

import os

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

# From a short text on a GPU (1 ms) to a long document on a busy CPU (half a minute), about two a doubling.
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.15, 0.25, 0.4, 0.6, 1, 1.5, 2.5, 5, 10, 30)
# Encoding and decoding take microseconds; what shows up beyond 10 ms is a long document.
STAGE_SECONDS = (0.0001, 0.00025, 0.0005, *SECONDS)
# Powers of two: one text on an idle CPU is some 16 tokens, a full step of a large GPU tens of thousands.
TOKENS = tuple(2**n for n in range(3, 18))
DEPTHS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 24)  # ALBERT has 12 or 24 layers, small ones have six
SEQUENCES = tuple(2**n for n in range(12))
# The loop is healthy below 10 ms; above 100 ms something blocks it.
LAG = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1)
MODEL = ("model", "version")


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
            "stage_seconds", "A request's time by stage: encode, queue, run, decode.", (*MODEL, "stage"), STAGE_SECONDS
        )
        self.truncated = counter("texts_truncated", "Texts that were cut to the model's length.", MODEL)
        self.steps = counter("steps", "Steps of the device.", MODEL)
        self.step_sequences = histogram("step_sequences", "Sequences in a step.", MODEL, SEQUENCES)
        self.step_tokens = histogram("step_tokens", "Tokens in a step.", MODEL, TOKENS)
        self.layers = counter("layers", "Layers times tokens: run, or saved by leaving early.", (*MODEL, "fate"))
        self.exit_depth = histogram("exit_depth", "Layers that a sequence ran.", MODEL, DEPTHS)
        self.padding_avoided = counter(
            "padding_avoided_tokens", "Tokens of padding that a padded batch would have computed.", MODEL
        )
        self.device_busy = counter("device_busy_seconds", "Time in which the device ran a step.")
        self.queue_sequences = gauge("queue_sequences", "Sequences that wait for the device.")
        self.queue_tokens = gauge("queue_tokens", "Tokens that wait for the device.")
        self.dropped = counter("dropped_sequences", "Not run, by reason: deadline, cancelled, refused.", ("reason",))
        self.failed = counter("failed_sequences", "Sequences that the model failed on.", MODEL)
        self.cost = gauge(
            "cost_seconds",
            "Fitted cost of a step: per_step + per_token x tokens.",
            (*MODEL, "coefficient"),
            "mostrecent",
        )
        self.token_budget = gauge("token_budget", "Tokens a step may hold.", MODEL, "mostrecent")
        self.load_seconds = gauge("model_load_seconds", "Load and warm-up of a version.", MODEL, "mostrecent")
        self.ready = gauge("ready", "1 while ready to serve; with several workers, 1 when all are.", how="livemin")
        self.loop_lag = histogram("event_loop_lag_seconds", "How late the event loop wakes up.", (), LAG)

    def page(self) -> bytes:
        """What ``/metrics`` answers, in Prometheus' text format."""
        if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
            return generate_latest(self.registry)
        together = CollectorRegistry()
        MultiProcessCollector(together)  # type: ignore[no-untyped-call]
        return generate_latest(together)
