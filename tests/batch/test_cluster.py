"""Rows answered over a real Ray cluster of several nodes: every row once, whatever dies on the way."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.batch.answering import Columns, answer_rows
from service.runtime.providers import choose
from service.serving.loading import LoadOptions, load
from tests import clusters
from tests.conftest import ROOT

pytestmark = pytest.mark.timeout(600)
ROWS: list[dict[str, Any]] = [
    {"id": n, "text": f"the plot was good {n} " * 30, "day": "2026-11-30"} for n in range(6000)
]
PIPELINE = """
import sys
import ray
from service.batch.cluster import Answering, model_files
from pathlib import Path
ray.init(address=sys.argv[1], log_to_driver=False)
files = ray.put(model_files(Path(sys.argv[2])))
made = ray.data.from_items([{"id": n, "text": "the plot was good"} for n in range(40)], override_num_blocks=4)
made = made.map_batches(Answering, fn_constructor_args=(files,), concurrency=1, batch_size=8)
print(sorted(row["id"] for row in made.take_all() if row["label"] in ("positive", "negative")) == list(range(40)))
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with clusters.running(3) as cluster:
        yield cluster


def command(source: Path, out: Path, repository: Path, address: str, *more: str) -> list[str]:
    asked = [sys.executable, "-m", "service", "batch", str(source), str(out), "--model", "sentiment", "--device", "cpu"]
    return [*asked, "--model-repo", str(repository), "--ray", address, *more]


def lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def rows_done(out: Path) -> int:
    state = out.with_name(f"{out.name}.part.json")
    return int(json.loads(state.read_text())["rows"]) if state.exists() else 0


def until_rows(out: Path, process: "subprocess.Popen[str]", least: int) -> None:
    """Until more than ``least`` rows are written."""
    while process.poll() is None and rows_done(out) <= least:
        time.sleep(0.02)


def test_every_row_is_there_once_though_the_command_and_a_node_are_killed(
    cluster: Any, tmp_path: Path, repository: Path
) -> None:
    source, out = lines(tmp_path / "in.jsonl", ROWS), tmp_path / "out.jsonl"
    asked = command(source, out, repository, cluster.address)
    killed = subprocess.Popen(asked, cwd=ROOT, text=True, stderr=subprocess.PIPE)
    until_rows(out, killed, 0)
    killed.kill()
    killed.communicate()
    before = rows_done(out)
    assert 0 < before < len(ROWS), "it was not killed in the middle"

    going_on = subprocess.Popen(asked, cwd=ROOT, text=True, stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    until_rows(out, going_on, before)
    assert going_on.poll() is None
    (node, *_) = cluster.worker_nodes
    cluster.remove_node(node, allow_graceful=False)
    said, errors = going_on.communicate(timeout=300)
    assert going_on.returncode == 0, errors
    assert f"{len(ROWS)} rows in {out}" in said

    found = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [{name: row[name] for name in ROWS[0]} for row in found] == ROWS
    engine = load(repository / "sentiment" / "1", LoadOptions(choose("cpu")))
    for row, own in zip(found[::500], answer_rows(engine, ROWS[::500], Columns(), {}), strict=True):
        assert (row["label"], row["score"]) == (own["label"], pytest.approx(own["score"], abs=1e-4))


def test_the_class_is_for_other_pipelines_too(cluster: Any, repository: Path) -> None:
    asked = [sys.executable, "-c", PIPELINE, cluster.address, str(repository / "sentiment" / "1")]
    ended = subprocess.run(asked, cwd=ROOT, text=True, capture_output=True, timeout=300)
    assert ended.stdout.strip().endswith("True"), ended.stderr


@pytest.mark.parametrize(
    ("rows", "more", "status", "said"),
    [
        ('{"text": "good"}\nnonsense\n', (), 1, "in.jsonl, line 2: no JSON"),
        ('{"text": "good"}\n', ("--ray-gpus", "0.5"), 2, "no worker of 1 CPUs, 0.5 GPUs fits"),
        ('{"text": "good"}\n', ("--ray-gpus", "1.5"), 2, "wanted a part of a GPU"),
        ('{"text": "good"}\n', ("--ray-workers", "0"), 2, "wanted at least 1"),
        ('{"text": "good"}\n', ("--ray", "127.0.0.1:1"), 2, "no Ray cluster at '127.0.0.1:1'"),
        ('{"text": "good"}\n', ("--ray", "ray://127.0.0.1:10001"), 2, "run it on a node"),
    ],
)
def test_what_cannot_be_is_one_line(
    cluster: Any, tmp_path: Path, repository: Path, rows: str, more: tuple[str, ...], status: int, said: str
) -> None:
    (tmp_path / "in.jsonl").write_text(rows)
    asked = command(tmp_path / "in.jsonl", tmp_path / "out.jsonl", repository, cluster.address, *more)
    ended = subprocess.run(asked, cwd=ROOT, text=True, capture_output=True, timeout=200)
    assert ended.returncode == status, ended.stderr
    assert said in ended.stderr.strip().splitlines()[-1]
    assert "Traceback" not in ended.stderr
