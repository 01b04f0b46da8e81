"""The rules of deploy/prometheus: of metrics that there are, right by promtool, alive in a real Prometheus."""

import json
import re
import runpy
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client import CollectorRegistry

from service.metrics import Metrics
from tests.conftest import ROOT
from tests.system.conftest import Server, Start, free_port, start

__all__ = ["start"]
FOLDER = ROOT / "deploy" / "prometheus"
PROMTOOL, PROMETHEUS = shutil.which("promtool"), shutil.which("prometheus")
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="no promtool here: apt-get install prometheus")
needs_prometheus = pytest.mark.skipif(PROMETHEUS is None, reason="no Prometheus here: apt-get install prometheus")


def rules(name: str) -> list[dict[str, Any]]:
    groups = yaml.safe_load((FOLDER / name).read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def test_rules_ask_for_metrics_that_there_are() -> None:
    registry = CollectorRegistry()
    Metrics(registry)
    there = set()
    for family in registry.collect():
        there |= {family.name, *(f"{family.name}_{end}" for end in ("total", "bucket", "sum", "count"))}
    recorded = {rule["record"] for rule in rules("recording.yml")}
    for rule in rules("recording.yml") + rules("alerts.yml"):
        asked = set(re.findall(r"\b(?:\w+:)?albert_\w+(?::\w+)?", rule["expr"]))
        assert asked or "up" in rule["expr"]
        assert asked <= there | recorded, rule


def test_every_alert_says_what_to_do() -> None:
    for rule in rules("alerts.yml"):
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert rule["annotations"]["advice"].endswith(".")


@needs_promtool
def test_promtool_finds_nothing_wrong() -> None:
    for command in (["check", "config", "prometheus.yml"], ["check", "config", "compose.yml"],
                    ["check", "rules", "recording.yml", "alerts.yml"],
                    ["test", "rules", "tests.yml"]):  # fmt: skip
        done = subprocess.run([str(PROMTOOL), *command], cwd=FOLDER, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def server(start: Start) -> Server:
    return start(ROOT / "model_repo")


@needs_prometheus
@pytest.mark.timeout(200)
def test_a_real_prometheus_scrapes_it_and_every_rule_has_data(server: Server, tmp_path: Path) -> None:
    for path in FOLDER.glob("*.yml"):
        text = path.read_text(encoding="utf-8")
        text = (
            text.replace("localhost:8000", "{}:{}".format(*server.address))
            .replace("15s", "1s")
            .replace("[5m]", "[30s]")
        )
        (tmp_path / path.name).write_text(text, encoding="utf-8")
    url = f"http://127.0.0.1:{free_port()}"
    command = [str(PROMETHEUS), "--config.file", "prometheus.yml", "--storage.tsdb.path", "data"]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, f"--web.listen-address={url.removeprefix('http://')}"], cwd=tmp_path, stdout=log, stderr=log
        )
    try:
        wanted = {rule["record"] for rule in rules("recording.yml")}
        end = time.monotonic() + 90
        while missing := {name for name in wanted if not samples(url, name)}:
            assert time.monotonic() < end, f"no data for {sorted(missing)}: {(tmp_path / 'log').read_text()[-2000:]}"
            httpx.post(f"{server.url}/classify", json={"inputs": ["ok", "It was not good."] * 8})
            httpx.post(f"{server.url}/qa", json={"question": "Who?", "context": "Clara repaired it."})
            time.sleep(0.2)
        assert [one["value"][1] for one in samples(url, 'up{job="albert-serve"}')] == ["1"]
        assert samples(url, "ALERTS") == []
        queries = {one.replace("$__rate_interval", "30s").replace("$job", ".*") for one in dashboard_queries()}
        while silent := [one for one in queries if not samples(url, one)]:
            assert time.monotonic() < end + 30, f"no data for {silent}"
            httpx.post(f"{server.url}/classify", json={"inputs": ["ok", "It was not good."] * 8})
            time.sleep(0.2)
    finally:
        process.kill()
        process.wait()


def dashboard_queries() -> list[str]:
    panels = json.loads((FOLDER.parent / "grafana" / "dashboard.json").read_text(encoding="utf-8"))["panels"]
    inner = [one for panel in panels for one in [panel, *panel.get("panels", ())]]
    return [target["expr"] for panel in inner for target in panel.get("targets", ())]


def test_the_dashboard_is_what_its_program_writes() -> None:
    program = runpy.run_path(str(FOLDER.parent / "grafana" / "dashboard.py"))

    assert program["PAGE"].read_text(encoding="utf-8") == program["page"](), "run: python deploy/grafana/dashboard.py"
    assert len(dashboard_queries()) > 20


def test_compose_provisions_what_there_is() -> None:
    """Every file that a container of compose mounts is there, and Grafana's source is the Prometheus of compose."""
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    for service in compose["services"].values():
        for volume in service["volumes"]:
            source = volume.split(":")[0]
            assert source in compose["volumes"] or (ROOT / source).exists(), source
    source = yaml.safe_load(
        (FOLDER.parent / "grafana/provisioning/datasources/prometheus.yml").read_text(encoding="utf-8")
    )
    assert source["datasources"][0]["url"] == "http://prometheus:9090"
    scrape = yaml.safe_load((FOLDER / "compose.yml").read_text(encoding="utf-8"))["scrape_configs"][0]
    for name in ("albert-serve", "cpu"):
        aliases = compose["services"][name]["networks"]["default"]["aliases"]
        assert scrape["dns_sd_configs"][0]["names"] == aliases


def samples(url: str, query: str) -> list[dict[str, Any]]:
    try:
        answer = httpx.get(f"{url}/api/v1/query", params={"query": query}, timeout=5)
        found: list[dict[str, Any]] = json.loads(answer.text)["data"]["result"]
    except (httpx.HTTPError, ValueError, KeyError):  # it is starting
        return []
    return [one for one in found if one["value"][1] != "NaN"]
