"""ONNX Runtime's own CUDA provider over a stand-in for the card: what it places, launches, copies, waits for and holds.

Skipped where no stand-in is built; ``make cuda-trace`` builds it and shows the figures.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.conversion.pipeline import Options, convert
from service.repository.store import versions
from tests.checkpoints import save_checkpoint
from tests.conftest import ROOT
from tests.system.conftest import Server, free_port, kill

pytestmark = pytest.mark.skipif(
    "ALBERT_SERVE_STANDIN_CUDA" not in os.environ, reason="no stand-in for CUDA is built (make cuda-trace)"
)
SHIPPED = [f"model_repo/{name}/{max(numbers)}" for name, numbers in versions(ROOT / "model_repo").items()]


def seen(name: str, *given: str) -> dict[str, Any]:
    """What a case saw, in a process of its own."""
    command = [sys.executable, "-m", "tests.cuda.cases", name, *given]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert ran.returncode == 0, ran.stderr[-3000:]
    facts: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    print(name, *given, facts)
    return facts


def test_layers_wait_for_nothing_and_copy_nothing_back() -> None:
    """In a Loop six layers took 64 launches, 10 copies there, 7 back and 9 waits."""
    trace = seen("layers")

    assert trace["launches"] <= 60
    assert (trace["h2d"], trace["d2h"], trace["waits"]) == (2, 0, 2)
    assert trace["allocations"] == 0


def test_memory_stays_near_what_a_step_needs() -> None:
    """With the bias in the operator of attention, one long row among 300 short ones took 784 MB alone."""
    facts = seen("growth")

    assert facts["weights"] < 30
    assert facts["after"] < 250


@pytest.mark.parametrize(("regrouping", "waits"), [("0", 46), ("1", 30)])
def test_states_never_cross_the_bus_and_each_text_leaves_where_it_does_on_the_cpu(regrouping: str, waits: int) -> None:
    """Before, 2 MB went there and back: everyone's state, whenever one left."""
    facts = seen("exits", regrouping)

    assert facts["uncomputed"] == []
    assert facts["same"] >= facts["texts"] - 1
    assert len(facts["depths"]) > 2
    assert facts["off"] < 0.01
    assert facts["d2h_bytes"] < 10_000  # logits
    assert facts["h2d_bytes"] < 200_000  # ids and places
    assert facts["waits"] <= waits


@pytest.mark.parametrize("capability", ["75", "80", "90"])
@pytest.mark.parametrize("version", SHIPPED)
def test_every_shipped_model_answers_as_on_the_cpu(version: str, capability: str) -> None:
    facts = seen("parity", version, capability)

    assert facts["uncomputed"] == []
    assert facts["off"] < 0.01


@pytest.mark.parametrize("capability", ["75", "90"])
@pytest.mark.parametrize(
    "odd",
    [
        {"hidden_act": "silu"},
        {"hidden_act": "quick_gelu"},
        {"hidden_act": "relu"},
        {"hidden_act": "leaky_relu"},
        {"hidden_act": "gelu_pytorch_tanh"},
        {"num_attention_heads": 2},  # heads of 24, 12 by default: none that a fused attention takes
        {"num_attention_heads": 16},
        {"hidden_size": 64, "num_attention_heads": 2},
        {"num_hidden_groups": 2, "num_hidden_layers": 5},
        {"inner_group_num": 2},
        {"num_hidden_groups": 3, "num_hidden_layers": 3, "inner_group_num": 2},
    ],
    ids=str,
)
def test_odd_checkpoints_answer_as_on_the_cpu(odd: dict[str, Any], capability: str, tmp_path: Path) -> None:
    checkpoint = save_checkpoint(tmp_path / "checkpoint", **odd)
    convert(str(checkpoint), tmp_path / "models", Options("odd"))
    facts = seen("parity", str(tmp_path / "models/odd/1"), capability)

    assert facts["uncomputed"] == []
    assert facts["off"] < 0.01


def test_what_warm_up_tried_is_given_back() -> None:
    facts = seen("loaded")

    assert facts["peak"] > 300
    assert facts["live"] < 30


@pytest.mark.parametrize("megabytes", ["64", "96", "160", "400"])
def test_a_limit_is_that_of_the_process(megabytes: str) -> None:
    """It was that of each session: three a model.  Models are made anew and loaded again within it."""
    facts = seen("limited", megabytes)

    assert facts["peak"] <= facts["limit"]
    assert min(facts["budgets"]) >= 512


def test_a_small_card_serves_with_a_smaller_budget() -> None:
    small, large = (seen("small_card", megabytes)["budget"] for megabytes in ("48", "400"))

    assert 128 <= small < large


def test_a_step_that_does_not_fit_is_out_of_memory_and_the_next_one_runs() -> None:
    facts = seen("out_of_memory")

    assert facts["error"] == "OutOfMemory"
    assert "smaller than requested bytes" in facts["said"]
    assert facts["then"] == 1


def test_a_lost_card_is_known_as_lost() -> None:
    assert seen("lost")["error"] == "DeviceLost"


@pytest.mark.parametrize(
    ("wanted", "card", "said"),
    [
        ("cuda", ("computing=1",), ""),
        ("cuda:1", ("computing=1", "cards=2"), ""),
        ("cuda", ("computing=1", "capability=75"), ""),
        ("cuda", (), "computes something else"),
        ("cuda:3", ("computing=1",), "there is no card 3; there is cuda:0"),
        ("cuda", ("no_device=100",), "no CUDA-capable device is detected"),
        ("cuda", ("no_device=35",), "CUDA driver version is insufficient"),
        ("cuda", ("driver=12040",), "the driver runs CUDA up to 12.4. Install driver 580"),
    ],
)
def test_a_card_that_does_not_work_is_refused_with_its_own_cause(wanted: str, card: tuple[str, ...], said: str) -> None:
    facts = seen("chosen", wanted, *card)

    assert facts["device"] == ("" if said else f"cuda:{wanted.partition(':')[2] or 0}")
    assert said in facts["said"]


def test_the_whole_service_answers_on_the_card_as_on_the_cpu() -> None:
    answers = seen("service")
    (labels, answer), (exact_labels, exact_answer) = answers["cuda"], answers["cpu"]

    assert [one["label"] for one in labels] == [one["label"] for one in exact_labels]
    assert [one["score"] for one in labels] == pytest.approx([one["score"] for one in exact_labels], abs=0.005)
    assert (answer["text"], answer["start"]) == (exact_answer["text"], exact_answer["start"])


def test_of_several_workers_one_process_has_the_card(tmp_path: Path) -> None:
    """Each had a context and all models; now the provider is loaded in one process, which answers for both."""
    (tmp_path / "sitecustomize.py").write_text("from tests.cuda import standin\nstandin.computing(True)\n")
    repository = tmp_path / "models"
    newest = next(version for version in SHIPPED if "/sentiment/" in version)
    shutil.copytree(ROOT / newest, repository / "sentiment" / newest.rpartition("/")[2])
    port = free_port()
    flags = ["--device", "cuda", "--workers", "2", "--port", str(port), "--model-repo", str(repository)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "service", "serve", "--log-format", "text", "--token-budget", "256", *flags],
            cwd=ROOT, stdout=output, stderr=output, env=environment,
        )  # fmt: skip
    server = Server(process, f"http://127.0.0.1:{port}", log)
    try:
        server.wait_for("ready: http", 2, seconds=240)
        answers = [httpx.post(f"{server.url}/classify", json={"inputs": f"a witty movie {n}"}) for n in range(8)]
        assert {answer.json()["results"][0]["labels"][0]["label"] for answer in answers} == {"positive"}
        assert httpx.get(f"{server.url}/models/sentiment").json()["versions"][0]["device"] == "cuda:0"
        pids = [int(pid) for pid in re.findall(r"(?:worker|model process) (\d+) started", log.read_text())]
        with_card = [pid for pid in [process.pid, *pids] if "providers_cuda" in Path(f"/proc/{pid}/maps").read_text()]
        assert with_card == [int(pid) for pid in re.findall(r"model process (\d+) started", log.read_text())]
        assert server.stop() == 0
    finally:
        kill(server)
