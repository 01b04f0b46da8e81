"""What grows with what: the seconds of one request as its text, its texts and its documents grow; then more models.

    python benchmarks/growth.py --out FOLDER [--data DATA]

The shipped models behind HTTP, one client; the median of some requests.  Written as a table and a picture.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
from models import REPOSITORY, altered, newest, short_texts
from packing import machine
from pictures import draw_growth
from servers import albert_serve, closed, report, resident, show

from service.bench.traffic import Kind
from service.training.datasets import read_questions
from service.training.splits import labelled

TOKENS = (8, 32, 128, 512, 2000)
TEXTS = (1, 4, 16, 64, 256)
DOCUMENTS = (1, 5, 20, 100, 500)
MODELS = (1, 2, 4, 8)


def seconds(client: httpx.Client, route: str, body: dict[str, Any], rounds: int) -> float:
    """The median of a request's seconds, after one that does not count."""
    times = []
    for _ in range(rounds + 1):
        began = time.perf_counter()
        client.post(route, json=body).raise_for_status()
        times.append(time.perf_counter() - began)
    return statistics.median(times[1:])


def requests(data: Path) -> list[tuple[str, int, str, dict[str, Any]]]:
    """What grows, its count, and the request: route and body."""
    sentences = [row.text for row in labelled(str(data / "sst2" / "dev.tsv"))]
    questions = read_questions(data / "squad" / "dev-v1.1.json")
    contexts = list(dict.fromkeys(item.context for item in questions))
    lengths = [(count, " ".join(["film"] * (count - 2))) for count in TOKENS]  # a token each, and the frame
    question = questions[0].question
    return [
        *(("tokens of a text", n, "/classify", {"inputs": text, "long_text": "windows"}) for n, text in lengths),
        *(("texts in a request", n, "/classify", {"inputs": sentences[:n], "early_exit": False}) for n in TEXTS),
        *(("documents", n, "/qa", {"question": question, "documents": contexts[:n]}) for n in DOCUMENTS),
    ]


def models(log: Path, count: int, kind: Kind, load: float) -> dict[str, Any]:
    """So many copies of ``sentiment``: until ready, memory, and the answers to 16 clients who ask all of them."""
    with tempfile.TemporaryDirectory() as folder:
        names = [f"copy-{number}" for number in range(count)]
        for name in names:
            altered(newest("sentiment"), Path(folder), name=name)
        kinds = [
            Kind(name, kind.route, [body[:-1] + f', "model": "{name}"}}'.encode() for body in kind.bodies])
            for name in names
        ]
        began = time.perf_counter()
        with albert_serve(Path(folder), log, warm=kinds[-1].bodies[0]) as url:
            ready = round(time.perf_counter() - began, 2)
            found = closed(url, kinds, 16, load, 2)
            return {"models": count, "ready_s": ready, "resident_mb": resident(url)} | found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/bench"))
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10, help="of the load on each number of models")
    options = parser.parse_args()
    out = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    with albert_serve(REPOSITORY, out / "servers.log") as url, httpx.Client(base_url=url, timeout=600) as client:
        for name, count, route, body in requests(options.data):
            rows.append(
                {"grows": name, "count": count, "seconds": round(seconds(client, route, body, options.rounds), 4)}
            )
            show(rows[-1])
    panels = {row["grows"]: [(r["count"], r["seconds"]) for r in rows if r["grows"] == row["grows"]] for row in rows}
    draw_growth(panels, out / "growth.png")
    report(out, "growth", machine(), rows)
    several = [models(out / "servers.log", count, short_texts(options.data), options.seconds) for count in MODELS]
    for row in several:
        row["kinds"] = {}
        show(row)
    report(out, "models", machine(), several)


if __name__ == "__main__":
    main()
