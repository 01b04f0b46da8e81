"""What ``/metrics`` answers can be read by those who read it."""

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from service.metrics import Metrics, Supervision, resident_memory
from service.types import ModelRef


@pytest.fixture
def metrics(monkeypatch: pytest.MonkeyPatch) -> Metrics:
    """Each collector with one sample."""
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)
    made = Metrics(CollectorRegistry())
    for collector in collectors(made):
        if collector._labelnames:
            collector.labels(*collector._labelnames)
    return made


def collectors(metrics: Metrics) -> list[MetricWrapperBase]:
    values = [*vars(metrics).values(), *vars(metrics.supervision).values()]
    return [value for value in values if isinstance(value, MetricWrapperBase)]


def test_the_process_that_looks_after_workers_has_no_gauge() -> None:
    """Its gauges would be taken for those of a worker: zero for whether it is ready, for one."""
    registry = CollectorRegistry()
    Supervision(registry)
    assert {family.type for family in registry.collect()} == {"counter"}


def families(metrics: Metrics) -> list[Metric]:
    return list(text_string_to_metric_families(metrics.page()[0].decode()))


def test_the_page_parses_and_holds_every_collector(metrics: Metrics) -> None:
    on_page = {family.name for family in families(metrics)}
    collected = {family.name for family in metrics.registry.collect()}
    assert on_page >= collected
    assert len({name for name in collected if name.startswith("albert_")}) == len(collectors(metrics)) > 15


def test_every_name_begins_with_the_projects_or_is_one_of_prometheus_own(metrics: Metrics) -> None:
    names = {family.name for family in families(metrics)}
    assert {name for name in names if not name.startswith(("albert_", "process_"))} <= {"python_info"}
    assert {"process_resident_memory_bytes", "process_cpu_seconds", "process_open_fds"} <= names


def test_everything_has_a_help_text(metrics: Metrics) -> None:
    helps = {family.name: family.documentation for family in metrics.registry.collect()}
    ours = {name: text for name, text in helps.items() if name.startswith("albert_")}
    assert [name for name, text in ours.items() if not text.endswith(".")] == []


def test_every_histogram_has_buckets_that_grow(metrics: Metrics) -> None:
    histograms = [family for family in families(metrics) if family.type == "histogram"]
    assert len(histograms) >= 5
    for family in histograms:
        edges = [float(sample.labels["le"]) for sample in family.samples if sample.name.endswith("_bucket")]
        assert edges == sorted(set(edges))
        assert edges[-1] == float("inf")


def test_labels_are_few_and_bounded(metrics: Metrics) -> None:
    """A label that takes a value from a request would let clients fill the memory."""
    used = {name for collector in collectors(metrics) for name in collector._labelnames}
    assert used <= {
        "model", "version", "route", "status", "stage", "reason", "cause", "coefficient", "fate", "depth", "precision",
        "python", "onnxruntime",
    }  # fmt: skip


def test_what_is_counted_is_on_the_page(metrics: Metrics) -> None:
    metrics.requests.labels("/qa", 200).inc(3)
    assert 'albert_requests_total{route="/qa",status="200"} 3.0' in metrics.page()[0].decode().splitlines()


def test_two_registries_share_nothing() -> None:
    one, two = Metrics(CollectorRegistry()), Metrics(CollectorRegistry())
    one.in_flight.inc()
    assert two.registry.get_sample_value("albert_requests_in_flight") == 0


def test_a_version_that_is_forgotten_takes_all_its_series_along(metrics: Metrics) -> None:
    for version in (1, 2):
        metrics.steps.labels("m", version).inc()
        metrics.layers.labels("m", version, "run").inc(3)
        metrics.cost.labels("m", version, "per_step").set(1)
        metrics.precision.labels("m", version, "int8").set(1)
    metrics.forget(ModelRef("m", 1))

    lines = [line for line in metrics.page()[0].decode().splitlines() if 'model="m"' in line and "_created" not in line]
    assert [line for line in lines if 'version="1"' in line] == []
    assert len(lines) == 4
    metrics.forget(ModelRef("never", 1))


def test_the_memory_of_this_process_is_known() -> None:
    assert 10 * 2**20 < resident_memory() < 2**40
