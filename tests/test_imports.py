"""Who may import whom, and what serving must never load."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

SERVICE = ROOT / "service"
# Higher may import lower; the four of layer 3 are strangers to each other.
LEVELS = {
    "service.errors": 1, "service.heads": 1, "service.types": 1, "service.settings": 1,
    "service.tracing": 2, "service.background": 2, "service.metrics": 2, "service.logs": 2,
    "service.tasks": 3, "service.runtime": 3, "service.repository": 3,
    "service.serving": 4, "service.documents": 4,
    "service.sharing": 5, "service.api": 6, "service.conversion": 5, "service.training": 5,
    "service.judging": 7, "service.bench": 7, "service.batch": 7,
    "service.commands": 8, "service.cli": 9, "service.__main__": 10,
}  # fmt: skip
# Within serving: each may import those after it.
SERVING = [
    "watcher",
    "registry",
    "loading",
    "warmup",
    "reuse",
    "loaded",
    "engine",
    "unloaded",
    "recovery",
    "submission",
    "aside",
    "device_loop",
    "step_metrics",
    "isolation",
    "queue",
    "scheduler",
    "pending",
    "encoding",
    "admission",
    "returns",
    "demand",
    "cost",
    "stepping",
    "attention",
    "depths",
]
HEAVY = {
    "ray",
    "pypdfium2",
    "rapidocr",
    "PIL",
    "torch",
    "transformers",
    "onnx",
    "safetensors",
    "sentencepiece",
    "matplotlib",
    "tqdm",
}


def modules() -> dict[str, Path]:
    paths = [path for path in SERVICE.rglob("*.py") if path.name != "__init__.py"]
    return {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in paths}


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = absolute(path, node)
            found |= {f"{module}.{alias.name}" for alias in node.names} | {module}
    return found


def absolute(path: Path, node: ast.ImportFrom) -> str:
    """The module that ``node`` of ``path`` names; within the service all are relative, for it is installed under
    another name."""
    if not node.level:
        assert str(node.module).partition(".")[0] not in ("service", "albert_serve"), f"{path}: say it relatively"
        return str(node.module)
    package = path.relative_to(ROOT).parts[: -node.level]
    return ".".join([*package, *filter(None, [node.module])])


def part(module: str) -> str:
    """The entry of LEVELS that ``module`` belongs to."""
    return max((name for name in LEVELS if module == name or module.startswith(f"{name}.")), key=len, default="")


@pytest.mark.parametrize("module", modules())
def test_imports_point_down(module: str) -> None:
    own = part(module)
    assert own, f"{module} has no level: add it to LEVELS"
    for name in imports(modules()[module]):
        other = part(name)
        if other and other != own:
            # Converting and training are two halves of the offline work; neither imports the other.
            assert LEVELS[other] < LEVELS[own], f"{module} imports {name}"


def test_serving_points_down_too() -> None:
    for module, path in modules().items():
        if module.startswith("service.serving."):
            own = SERVING.index(module.rpartition(".")[2])
            others = {name.split(".")[2] for name in imports(path) if name.startswith("service.serving.")}
            assert all(SERVING.index(other) > own for other in others), module


def test_only_settings_reads_the_environment_and_only_runtime_imports_onnxruntime() -> None:
    for module, path in modules().items():
        if not module.startswith(("service.conversion", "service.training")):
            assert module.startswith("service.runtime") or "onnxruntime" not in imports(path), module
        if "os.environ" in path.read_text():
            # launch hands flags on to worker processes and looks for unknown settings, app hands a switch on to the
            # tokenizers; workers says what processes share, metrics and computing ask for it; converted asks for the
            # user's cache.
            names = ("service.api.launch", "service.api.app", "service.api.workers", "service.api.computing")
            assert module in (*names, "service.metrics", "service.commands.converted"), module


def test_serving_loads_nothing_heavy(repository: Path) -> None:
    """A real process, as the image has it: after a request, what is in memory?"""
    program = (
        "import sys; from service.cli import main\n"
        f"status = main(['serve', '--model-repo', {str(repository)!r}, '--device', 'cpu', '--get', '/health/ready'])\n"
        "print(status, sorted(name for name in sys.modules if '.' not in name))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    status, loaded = done.stdout.splitlines()[-1].split(" ", 1)

    assert status == "0"
    assert not HEAVY & set(ast.literal_eval(loaded))


def test_modules_stay_short() -> None:
    long = {module: lines for module, path in modules().items() if (lines := len(path.read_text().splitlines())) > 300}

    assert long == {}
