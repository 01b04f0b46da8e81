"""Writes dashboard.json, the Grafana dashboard of the service: what users feel, what the device does, what refuses.

    python deploy/grafana/dashboard.py       # with grafana-foundation-sdk; a test compares

Its queries ask what the service itself exports, so that it works beside any Prometheus, without the recording rules.
"""

from pathlib import Path

from grafana_foundation_sdk.builders import dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import DataSourceRef

PAGE = Path(__file__).with_name("dashboard.json")
SOURCE = DataSourceRef(type_val="prometheus", uid="${source}")
OF = 'job=~"$job"'
WINDOW = "[$__rate_interval]"
ROUTE = f"sum by (route, le) (rate(albert_request_seconds_bucket{{{OF}}}{WINDOW}))"
LAG = f"sum by (le) (rate(albert_event_loop_lag_seconds_bucket{{{OF}}}{WINDOW}))"
MODEL = f"by (model) (rate(albert_step_tokens_%s{{{OF}}}{WINDOW}))"

# Title, unit, what it tells, queries with their legends.
Panel = tuple[str, str, str, dict[str, str]]
ROWS: dict[str, list[Panel]] = {
    "What users feel": [
        ("Requests a second", "reqps", "By route and status.",
         {"{{route}} {{status}}": f"sum by (route, status) (rate(albert_requests_total{{{OF}}}{WINDOW}))"}),
        ("Latency", "s", "Whole requests, the half and the slowest hundredth.",
         {"p50 {{route}}": f"histogram_quantile(0.5, {ROUTE})", "p99 {{route}}": f"histogram_quantile(0.99, {ROUTE})"}),
        ("Where the time goes", "s", "Mean of each stage; queue grows first when there is too much to do.",
         {"{{stage}}": f"sum by (stage) (rate(albert_stage_seconds_sum{{{OF}}}{WINDOW})) "
                       f"/ sum by (stage) (rate(albert_stage_seconds_count{{{OF}}}{WINDOW}))"}),
        ("Refused a second", "reqps", "By cause: docs/operations.md says what each means.",
         {"{{cause}}": f"sum by (cause) (rate(albert_refusals_total{{{OF}}}{WINDOW}))"}),
    ],
    "What the device does": [
        ("Share of time in which it runs", "percentunit", "Near 1 it is full: more workers or devices answer more.",
         {"{{instance}}": f"rate(albert_device_busy_seconds_total{{{OF}}}{WINDOW})"}),
        ("Tokens that wait", "short", "And what is promised of the device's time, in seconds.",
         {"tokens {{instance}}": f"albert_queue_tokens{{{OF}}}",
          "promised {{instance}}": f"albert_promised_seconds{{{OF}}}"}),
        ("Tokens in a step", "short", "Mean by model, beside what a step may hold.",
         {"{{model}}": f"sum {MODEL % 'sum'} / sum {MODEL % 'count'}",
          "budget {{model}}": f"max by (model) (albert_token_budget{{{OF}}})"}),
        ("Layers that early exit saved", "percentunit", "Of all layers times tokens.",
         {"{{model}}": f'sum by (model) (rate(albert_layers_total{{{OF},fate="saved"}}{WINDOW})) '
                       f"/ sum by (model) (rate(albert_layers_total{{{OF}}}{WINDOW}))"}),
    ],
    "The processes": [
        ("Event loop lag", "s", "Its slowest hundredth; above 0.1 s something blocks it.",
         {"p99": f"histogram_quantile(0.99, {LAG})"}),
        ("Memory", "bytes", "Of all processes.", {"{{instance}}": f"albert_resident_memory_bytes{{{OF}}}"}),
        ("Models", "short", "Loaded, and those that did not load.",
         {"loaded {{instance}}": f"albert_models_loaded{{{OF}}}",
          "failed": f"sum(increase(albert_model_load_failures_total{{{OF}}}[1h])) or vector(0)"}),
        ("Restarts of workers", "short", "In an hour, and requests that were lost by them.",
         {"restarts": f"sum(increase(albert_worker_restarts_total{{{OF}}}[1h])) or vector(0)",
          "lost": f"sum(increase(albert_lost_requests_total{{{OF}}}[1h])) or vector(0)"}),
    ],
}  # fmt: skip
STATS: list[tuple[str, str, str]] = [
    ("Ready", "short", f"min(albert_ready{{{OF}}})"),
    ("Requests a second", "reqps", f"sum(rate(albert_requests_total{{{OF}}}{WINDOW}))"),
    ("In work", "short", f"sum(albert_requests_in_flight{{{OF}}})"),
    ("Refused", "percentunit", f"sum(rate(albert_refusals_total{{{OF}}}{WINDOW})) "
                               f"/ clamp_min(sum(rate(albert_requests_total{{{OF}}}{WINDOW})), 1e-9)"),
]  # fmt: skip


def page() -> str:
    made = (
        dashboard.Dashboard("albert-serve")
        .uid("albert-serve").tags(["albert", "inference"]).refresh("10s").time("now-30m", "now").timezone("browser")
        .with_variable(dashboard.DatasourceVariable("source").label("Prometheus").type("prometheus"))
        .with_variable(
            dashboard.QueryVariable("job").label("Job").datasource(SOURCE).query("label_values(albert_ready, job)")
            .multi(True).include_all(True)
        )
    )  # fmt: skip
    number = 0
    for title, unit, query in STATS:
        number += 1
        panel = stat.Panel().title(title).unit(unit).id(number).height(4).span(6).datasource(SOURCE)
        made = made.with_panel(panel.with_target(_target(query, title, 0)))
    for row, panels in ROWS.items():
        made = made.with_row(dashboard.Row(row))
        for title, unit, told, queries in panels:
            number += 1
            drawn = timeseries.Panel().title(title).unit(unit).description(told).id(number).height(8).span(12)
            drawn = drawn.datasource(SOURCE).min(0)
            for place, (legend, query) in enumerate(queries.items()):
                drawn = drawn.with_target(_target(query, legend, place))
            made = made.with_panel(drawn)
    return JSONEncoder(sort_keys=True, indent=1).encode(made.build()) + "\n"


def _target(query: str, legend: str, place: int) -> prometheus.Dataquery:
    return prometheus.Dataquery().expr(query).legend_format(legend).datasource(SOURCE).ref_id(chr(ord("A") + place))


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
