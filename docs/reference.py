"""Writes docs/reference.md: settings, routes and commands, as the code has them.  A test compares.

python docs/reference.py
"""

import argparse
from pathlib import Path

from service.api.app import create_app
from service.cli import parser as commands_parser
from service.settings import Settings

PAGE = Path(__file__).with_name("reference.md")
HEAD = """# Settings, routes and commands

This page is made from the code (`python docs/reference.py`). Statuses and metrics are in [operations.md](operations.md).

## Settings

Each is a flag of `albert-serve serve` (`--max-queue-tokens`) and a variable (`ALBERT_SERVE_MAX_QUEUE_TOKENS`); the flag beats the variable, which beats the default.

"""  # noqa: E501 - a paragraph is a line


def page() -> str:
    parts = [HEAD + "\n".join(settings()), "## Routes", "\n".join(routes()), "## Commands", *commands()]
    return "\n\n".join(parts) + "\n"


def settings() -> list[str]:
    rows = ["| setting | default | what it does |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = "" if field.default in ("", []) else f"`{field.default}`"
        rows.append(f"| `{name}` | {default} | {field.description} |")
    return rows


def routes() -> list[str]:
    """Those of the OpenAPI document, which has every field of their bodies."""
    rows = ["| route | what it answers |", "|---|---|"]
    for path, methods in create_app(Settings()).openapi()["paths"].items():
        rows += [f"| `{method.upper()} {path}` | {facts['summary']} |" for method, facts in methods.items()]
    return [*rows, "| `GET /docs`, `GET /openapi.json` | every field of these |", "| `GET /` | the page |"]


def commands() -> list[str]:
    found = [action for action in commands_parser()._actions if isinstance(action, argparse._SubParsersAction)]
    (choices,) = found
    helps = {action.dest: action.help for action in choices._choices_actions}
    return [
        f"### albert-serve {name}\n\n{helps[name]}\n\n" + "\n".join(arguments(name, parser))
        for name, parser in choices.choices.items()
    ]


def arguments(name: str, parser: argparse.ArgumentParser) -> list[str]:
    """As a table of our own: argparse lays its help out otherwise in each version of Python."""
    rows = ["| argument | what it does |", "|---|---|"]
    shown = [action for action in parser._actions if action.dest != "help"]
    if name == "serve":
        shown = [action for action in shown if action.dest not in Settings.model_fields]
        rows.append("| `--SETTING VALUE` | each of the settings above |")
    for action in shown:
        value = "" if action.nargs == 0 else str(action.metavar or action.dest.upper())
        flags = " ".join([*action.option_strings[-1:], *([value] if value else [])])
        choices = f" ({', '.join(map(str, action.choices))})" if action.choices else ""
        told = (action.help or "").replace("%(default)s", str(action.default)).replace("|", "\\|")
        rows.append(f"| `{flags}` | {told}{choices} |")
    return rows


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
