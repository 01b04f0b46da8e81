"""What ``/metrics`` answers can be read by those who read it."""

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from service.metrics import Metrics


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
    return [value for value in vars(metrics).values() if isinstance(value, MetricWrapperBase)]


def families(metrics: Metrics) -> list[Metric]:
    return list(text_string_to_metric_families(metrics.page().decode()))


def test_the_page_parses_and_holds_every_collector(metrics: Metrics) -> None:
    on_page = {family.name for family in families(metrics)}
    collected = {family.name for family in metrics.registry.collect()}
    assert on_page >= collected
    assert len(collected) == len(collectors(metrics)) > 15


def test_every_name_begins_with_the_projects(metrics: Metrics) -> None:
    assert [family.name for family in families(metrics) if not family.name.startswith("albert_")] == []


def test_everything_has_a_help_text(metrics: Metrics) -> None:
    helps = {family.name: family.documentation for family in metrics.registry.collect()}
    assert [name for name, text in helps.items() if not text.endswith(".")] == []


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
    assert used <= {"model", "version", "route", "status", "stage", "reason", "coefficient", "fate"}


def test_what_is_counted_is_on_the_page(metrics: Metrics) -> None:
    metrics.requests.labels("/qa", 200).inc(3)
    assert 'albert_requests_total{route="/qa",status="200"} 3.0' in metrics.page().decode().splitlines()


def test_two_registries_share_nothing() -> None:
    one, two = Metrics(CollectorRegistry()), Metrics(CollectorRegistry())
    one.in_flight.inc()
    assert two.registry.get_sample_value("albert_requests_in_flight") == 0
