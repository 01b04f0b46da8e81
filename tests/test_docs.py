"""The docs say what the code does: settings, metrics, statuses, commands, links."""

import re
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from service import __version__, errors
from service.cli import _parser
from service.metrics import Metrics
from service.settings import Settings
from tests.conftest import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
OPERATIONS = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")]


def settings_table() -> list[str]:
    """What the README must hold, made from the settings themselves."""
    rows = []
    for name, field in Settings.model_fields.items():
        default = "" if field.default in ("", []) else f"`{field.default}`"
        rows.append(f"| `{name}` | {default} | {field.description} |")
    return rows


def test_the_readme_lists_every_setting_as_it_is() -> None:
    missing = [row for row in settings_table() if row not in README]

    assert not missing, "the README lacks:\n" + "\n".join(missing)
    table = README.partition("## Settings")[2]
    assert len(re.findall(r"^\| `[a-z_]+` \|", table, re.MULTILINE)) == len(Settings.model_fields)


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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_make_targets_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    commands = _parser()._subparsers._group_actions[0].choices  # type: ignore[union-attr]
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
    flags = set(re.findall(r" --([a-z-]+)", entry))
    assert flags <= {name.replace("_", "-") for name in Settings.model_fields}
    for variable in re.findall(r"ALBERT_SERVE_([A-Z_]+)", dockerfile + entry + compose):
        assert variable.lower() in Settings.model_fields
    for source in re.findall(r"^COPY (.+) \S+$", dockerfile, re.MULTILINE):
        assert all((ROOT / path).exists() for path in source.split())
