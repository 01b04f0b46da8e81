"""What a load did to a service: rates, percentiles and errors; as a table, as JSON, as a picture."""

from collections import Counter
from collections.abc import Sequence as Seq
from pathlib import Path
from typing import Any

import numpy as np

from .drive import Sample

PERCENTILES = (50, 95, 99)
GOOD = 200


def summarise(samples: Seq[Sample], warmup: float, seconds: float | None = None) -> dict[str, Any]:
    """All together and by kind.  Latencies are of requests due after ``warmup`` seconds, rates of answers that came
    between then and ``seconds``.

    Without ``seconds``, as a closed loop wants it, rates are of all that was asked until its last answer: whoever puts
    long requests off must not gain by those that are still waiting when the time is up.
    """
    kinds = sorted({one.kind for one in samples})
    report = _figures(samples, warmup, seconds)
    report["kinds"] = {kind: _figures([s for s in samples if s.kind == kind], warmup, seconds) for kind in kinds}
    # Of a generator that cannot keep up the latencies are its own.
    late = [one.late for one in samples if one.due >= warmup]
    report["generator_late_p99_ms"] = round(1000 * float(np.percentile(late, 99)), 2) if late else 0.0
    return report


def _figures(samples: Seq[Sample], warmup: float, seconds: float | None) -> dict[str, Any]:
    counted = [one for one in samples if one.due >= warmup]
    good = [one.seconds for one in counted if one.status == GOOD]
    ends = [one.due + one.seconds for one in samples if one.status == GOOD]
    start, end = (warmup, seconds) if seconds is not None else (0.0, max(ends, default=1.0))
    answered = sum(start < moment <= end for moment in ends)
    errors = Counter(one.status for one in counted if one.status != GOOD)
    figures: dict[str, Any] = {
        "requests": len(counted),
        "answers_per_second": round(answered / (end - start), 2),
        "errors": {str(status or "no answer"): count for status, count in sorted(errors.items())},
    }
    for percentile in PERCENTILES:
        figures[f"p{percentile}_ms"] = round(1000 * float(np.percentile(good, percentile)), 1) if good else None
    return figures


def table(reports: Seq[dict[str, Any]]) -> str:
    lines = ["| load | requests | kind | answers/s | p50 | p95 | p99 | errors |", "|---|---|---|---|---|---|---|---|"]
    for report in reports:
        parts = {"all": report} | report["kinds"]
        for kind, figures in parts.items() if len(report["kinds"]) > 1 else [("all", report)]:
            times = " | ".join(_shown(figures[f"p{p}_ms"]) for p in PERCENTILES)
            errors = ", ".join(f"{status}: {count}" for status, count in figures["errors"].items()) or "none"
            rate = f"{figures['answers_per_second']:.1f}"
            lines.append(f"| {report['load']} | {figures['requests']} | {kind} | {rate} | {times} | {errors} |")
    return "\n".join(lines)


def _shown(milliseconds: float | None) -> str:
    return "" if milliseconds is None else f"{milliseconds:.1f} ms"


def draw(reports: Seq[dict[str, Any]], path: Path) -> None:
    """Latency against load, by kind: the middle as a line, the p99 as a dashed one."""
    from ..training.pictures import draw_load

    series = {
        kind: [
            (one["amount"], one["kinds"][kind]["p50_ms"], one["kinds"][kind]["p99_ms"])
            for one in reports
            if kind in one["kinds"]
        ]
        for kind in sorted({kind for one in reports for kind in one["kinds"]})
    }
    draw_load(series, reports[0]["unit"], path)
