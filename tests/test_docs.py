"""The docs say what the code does: settings, metrics, statuses, commands, links."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest
from prometheus_client import CollectorRegistry

from service import __version__, errors
from service.cli import parser
from service.metrics import Metrics
from service.settings import Settings
from tests.conftest import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
OPERATIONS = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
PAGES = [
    *(ROOT / name for name in ("README.md", "README.zh.md", "CONTRIBUTING.md", "CHANGELOG.md", "client/README.md")),
    ROOT / "examples" / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
]


def script(name: str) -> ModuleType:
    """A script of the docs, which lies in no package."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_is_what_the_code_has() -> None:
    reference = script("reference")

    assert reference.PAGE.read_text(encoding="utf-8") == reference.page(), "run: python docs/reference.py"
    for name in Settings.model_fields:
        assert f"| `{name}` |" in reference.page()


def test_the_drawings_are_what_the_script_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawings = script("drawings")
    monkeypatch.setattr(drawings, "FOLDER", tmp_path)
    drawings.main()

    for path in tmp_path.iterdir():
        kept = ROOT / "docs" / "images" / path.name
        assert path.read_text(encoding="utf-8") == kept.read_text(encoding="utf-8"), "run: python docs/drawings.py"
    assert len(list(tmp_path.iterdir())) == 4


def test_versions_that_a_command_names_are_shipped() -> None:
    places = [ROOT / "docs" / "ray.md", *ROOT.glob("model_repo/*/README.md"), *ROOT.glob("benchmarks/*.py")]
    text = "".join(page.read_text(encoding="utf-8") for page in places)
    named = set(re.findall(r"model_repo/[a-z-]+/\d+", text))

    assert len(named) > 4
    assert [name for name in sorted(named) if not (ROOT / name).is_dir()] == []


def test_the_chinese_readme_has_the_same_parts_commands_and_links() -> None:
    chinese = (ROOT / "README.zh.md").read_text(encoding="utf-8")
    for part in (r"^(#+) ", r"^```(.*?)^```", r"\]\(([^)]+)\)"):
        said, found = (re.findall(part, page, re.MULTILINE | re.DOTALL) for page in (README, chinese))
        assert [one for one in said if "README" not in one] == [one for one in found if "README" not in one]


@pytest.mark.timeout(200)
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    site = script("site")
    site.build(tmp_path)

    front = (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    assert "A production inference service" in front
    assert (tmp_path / "site" / "docs" / "explain" / "index.html").exists()
    named = re.findall(r'(?:src|href)="(https?://[^"]+)"', front)
    assert not [url for url in named if url.endswith((".js", ".css")) or "fonts" in url], "it asks others for nothing"


def test_every_metric_is_explained() -> None:
    registry = CollectorRegistry()
    Metrics(registry)
    names = {f"{metric.name}_total" if metric.type == "counter" else metric.name for metric in registry.collect()}
    names = {name for name in names if name.startswith("albert_")}  # the client library explains its own

    assert set(re.findall(r"^\| `(albert_[a-z_]+)`", OPERATIONS, re.MULTILINE)) == names


def test_every_status_is_explained() -> None:
    classes = [
        kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.ServiceError)
    ]
    documented = {int(status) for status in re.findall(r"^\| (\d{3}) \|", OPERATIONS, re.MULTILINE)}

    assert documented == {kind.status for kind in classes}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_and_make_targets_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    commands = parser()._subparsers._group_actions[0].choices  # type: ignore[union-attr]
    assert commands is not None
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    blocks = "\n".join(
        re.findall(r"```[a-z]*\n(.*?)```|`([^`\n]+)`", text, re.DOTALL) and re.findall(r"`+[^`]+`+", text)
    )

    assert set(re.findall(r"albert-serve ([a-z][a-z-]+)", blocks)) <= set(commands)
    assert set(re.findall(r"\bmake ([a-z-]+)", blocks)) <= targets


def test_the_changelog_knows_this_version() -> None:
    assert f"## {__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_compose_and_image_agree_with_the_commands() -> None:
    compose = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    dockerfile = (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8")
    entry = (ROOT / "deploy" / "entry.sh").read_text(encoding="utf-8")

    for target in re.findall(r"target: (\w+)", compose):
        assert f"AS {target}\n" in dockerfile
    commands = parser()._subparsers._group_actions[0].choices  # type: ignore[union-attr]
    assert commands is not None
    assert set(re.findall(r"^(serve .+)\)", entry, re.MULTILINE)[0].split(" | ")) == set(commands)
    flags = set(re.findall(r" --([a-z-]+)", entry))
    assert flags <= {name.replace("_", "-") for name in Settings.model_fields}
    for variable in re.findall(r"ALBERT_SERVE_([A-Z_]+)", dockerfile + entry + compose):
        assert variable.lower() in Settings.model_fields
    kept = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    for source in re.findall(r"^COPY (?:--chmod=\d+ )?(.+) \S+$", dockerfile, re.MULTILINE):
        for path in source.split():
            assert (ROOT / path).exists()
            assert f"!{path}" in kept, f"{path} does not come with the build"
