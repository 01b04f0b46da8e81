"""What the hop to a shared model process costs: one client asks a service with it and one without, in turn.

    python benchmarks/hop.py [--requests 1000] [--out FOLDER]

Both have two workers and one thread for the layers, so that nothing else differs; a sentence goes the whole way, a
question over ten paragraphs has more to carry.  The median of the differences of pairs is the hop.
"""

import argparse
import json
import time
from pathlib import Path
from statistics import median
from typing import Any

import httpx
from models import REPOSITORY
from packing import machine
from servers import albert_serve, report, show
from tqdm import tqdm

PARAGRAPH = "Nobody knew why the river had changed its course overnight, and the committee did not ask. " * 6
BODIES: dict[str, tuple[str, dict[str, Any]]] = {
    "/classify, a sentence": ("/classify", {"inputs": "It was not good, and the ending made it worse than that."}),
    "/classify, 64 sentences": ("/classify", {"inputs": [f"It was not good, number {n} less so." for n in range(64)]}),
    "/qa, ten paragraphs": ("/qa", {"question": "Who did not ask?", "context": PARAGRAPH * 10}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=1000, help="of a sentence; of what is longer fewer")
    parser.add_argument("--model-repo", type=Path, default=REPOSITORY)
    parser.add_argument("--out", type=Path, default=Path("runs/bench"))
    options = parser.parse_args()
    rows = []
    log, flags = options.out / "hop.log", {"workers": 2, "threads": 1}
    with (
        albert_serve(options.model_repo, log, **flags, share_models="no") as own,
        albert_serve(options.model_repo, log, **flags, share_models="yes") as shared,
        httpx.Client(timeout=60) as client,
    ):
        for name, (route, body) in BODIES.items():
            count = options.requests if "a sentence" in name else max(20, options.requests // 20)
            pairs = [
                [milliseconds(client, f"{url}{route}", body) for url in (own, shared)]
                for _ in tqdm(range(count + 10), desc=name, leave=False)
            ][10:]
            own_ms, shared_ms = (median(column) for column in zip(*pairs, strict=True))
            hop = median(b - a for a, b in pairs)
            row = {"request": name, "own_p50_ms": own_ms, "shared_p50_ms": shared_ms, "hop_ms": hop}
            rows.append({key: round(value, 2) if isinstance(value, float) else value for key, value in row.items()})
            show(rows[-1])
    report(options.out, "hop", machine(), rows)


def milliseconds(client: httpx.Client, url: str, body: dict[str, Any]) -> float:
    content = json.dumps(body)
    began = time.perf_counter()
    response = client.post(url, content=content, headers={"Content-Type": "application/json"})
    took = 1000 * (time.perf_counter() - began)
    assert response.status_code == 200, response.text
    return took


if __name__ == "__main__":
    main()
