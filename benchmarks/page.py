"""The figures of ``serving.py`` as tables: python benchmarks/page.py runs/bench > docs/benchmarks.md"""

import json
import sys
from pathlib import Path
from typing import Any

HEAD = """# Benchmarks

Made by `make bench`: each part runs its rivals in turn on one machine, so compare within a part. Where a shared machine
is busy with others, a server is up to half as fast: of each rival the fastest of two or three rounds counts.
"""
PARTS = {
    "peers": """## Against other servers

The same weights (albert-base's shape, random, float32) and texts, 16 clients in a closed loop. *short*: sentences of
SST-2, 25 tokens on average. *mixed*: 85 % of them, 15 % film reviews cut to 200 tokens. Peers run the plain ONNX export
on padded batches, Flask and the pipeline PyTorch; each as its documentation advises (`benchmarks/peers/`), with and
without its batching. *int8*: ours in eight bits, whose quality random weights cannot tell; the shipped models pass
their gates with it. *leaving early*: random weights are never sure, so all leave at one depth, the share of the twelve
layers that `sentiment` runs on SST-2.""",
    "saturation": """The same mix from the same 16 clients, ours in float32 as it is shipped and first come first
served.""",
    "roofline": """## Against the matrix products alone

A layer with all that belongs to it, against its four products in float32, in the same ONNX Runtime on as many tokens
(`benchmarks/roofline.py`). All tokens go through the last layer too: what a classifier saves there is not counted.""",
    "preemption": """## The short pass the long

80 % sentences, 20 % texts of 384 tokens, arriving by chance at 80 % of what the service answers in a closed loop;
latencies count from when a request was due.""",
    "early-exit": """## Leaving early

The shipped `sentiment` on SST-2's sentences, 16 clients; the accuracy is of the service's answers on SST-2's dev set.
The layers that were saved are counted over the load.  *In lists*: 16 sentences a request, from four clients.

![quality against work](images/early-exit.png)""",
    "workers": """## Several processes

`--workers`, `sentiment` on sentences, 16 clients: the answers, and whether the metrics of all processes add up to what
was sent. With models of their own (`--share-models no`) the cores are shared out among the workers; with one process
that has them for all it has the cores, and each step is filled by all of them. *One client* alone shows what the hop
between the processes costs.""",
    "hop": """One client asks in turn a service whose two workers share a model process, and one whose workers have
models of their own; the layers have one thread (`benchmarks/hop.py`).""",
    "growth": """## What grows with what

Seconds of one request to the shipped models, one client (`benchmarks/growth.py`): a text that grows (read in windows),
a request of more sentences, a question over more paragraphs of SQuAD. Dashed: what grows as fast as its count.

![growth](images/growth.png)""",
    "models": """## More models

Copies of `sentiment`, 16 clients who ask all of them.""",
    "overhead": """## Against its own runtime

At saturation (the mix above, 16 clients) against the same engine without a service, in tokens; idle (one client)
against tokenizing and one bare call of the plain export, on the same sentences.""",
    "start": """## Start and memory

From nothing to the first answer with all shipped models; the process' resident memory after some load.""",
}
OPERATORS = """## Where the time goes

ONNX Runtime's profiler on one sentence of 25 tokens through the shipped `sentiment`, all of it through all layers
(`benchmarks/operators.py`)."""
NAMES = {
    "answers_per_second": "answers/s", "p50_ms": "p50 ms", "p95_ms": "p95 ms", "p99_ms": "p99 ms", "requests": "",
    "generator_late_p99_ms": "",
}  # fmt: skip


def main(folder: Path) -> None:
    print(HEAD)
    print((Path(__file__).parent / "remarks.md").read_text())  # by hand: what a table cannot say
    for part, text in PARTS.items():
        # Beside the report of this machine may lie those of others, such as peers-avx2.json.
        files = [file for file in (folder / f"{part}.json", *sorted(folder.glob(f"{part}-*.json"))) if file.exists()]
        for number, file in enumerate(files):
            report = json.loads(file.read_text())
            head = "" if number else f"{text}\n\n"
            print(f"{head}{report['machine']}, {report['date']}.\n\n{table(report['rows'])}\n")
    operators = folder / "operators.md"
    if operators.exists():
        print(f"{OPERATORS}\n\n{operators.read_text().strip()}")


def table(rows: list[dict[str, Any]]) -> str:
    flat = [line for row in rows for line in lines(row)]
    columns = list(dict.fromkeys(name for line in flat for name in line))
    shown = [NAMES.get(name, name.replace("_", " ")) for name in columns]
    kept = [(name, title) for name, title in zip(columns, shown, strict=True) if title]
    head = "| " + " | ".join(title for _, title in kept) + " |\n|" + "---|" * len(kept)
    body = ["| " + " | ".join(str(line.get(name, "")) for name, _ in kept) + " |" for line in flat]
    return "\n".join([head, *body])


def lines(row: dict[str, Any]) -> list[dict[str, Any]]:
    """One line, or one a kind of request where there are several."""
    kinds = row.get("kinds", {})
    plain = {name: value for name, value in row.items() if name not in ("kinds", "errors")}
    if row.get("errors"):
        plain["errors"] = ", ".join(f"{status}: {count}" for status, count in row["errors"].items())
    if len(kinds) < 2 or "policy" not in row:
        return [plain]
    facts = {name: plain[name] for name in ("policy", "rate") if name in plain}
    return [facts | {"texts": kind} | {n: v for n, v in one.items() if n != "errors"} for kind, one in kinds.items()]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
