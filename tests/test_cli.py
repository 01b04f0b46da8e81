"""The command line: what each flag says of itself, exit statuses, completion."""

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from service.cli import SHELLS, USAGE, main, parser
from service.settings import PREFIX, Settings


def commands() -> dict[str, argparse.ArgumentParser]:
    (choices,) = (one for one in parser()._actions if isinstance(one, argparse._SubParsersAction))
    return dict(choices.choices)


@pytest.mark.parametrize("name", commands())
def test_every_flag_says_what_it_is_and_what_it_is_unless_given(name: str) -> None:
    command = commands()[name]
    for action in command._actions:
        told = (action.help or "") % vars(action)
        assert told.split("[")[0].strip(), f"{name}: {action.dest} has no help"
        if action.default not in (None, False, [], argparse.SUPPRESS):
            assert "[" in told, f"{name}: the help of {action.dest} names no default ({action.default})"
    assert command.format_help()


@pytest.mark.parametrize("name", Settings.model_fields)
def test_a_setting_tells_its_choices_unit_default_and_variable(name: str) -> None:
    (action,) = (one for one in commands()["serve"]._actions if one.dest == name)
    field = Settings.model_fields[name]

    assert f"; {PREFIX}{name.upper()}]" in str(action.help)
    if field.default not in ("", None, []):
        assert f"[{field.default}; " in str(action.help)
    if field.annotation is bool:
        assert action.choices == ("true", "false")
    if name.endswith("_seconds"):
        assert action.metavar == "SECONDS"
    if all(isinstance(one, str) for one in get_args(field.annotation)):
        assert (action.choices or ()) == get_args(field.annotation) or field.annotation is bool


@pytest.mark.parametrize(
    "flags",
    [
        ["serve", "--device", "tpu"],
        ["serve", "--port", "many"],
        ["serve", "--cpu-features", "abacus"],
        ["serve", "--early-exit", "perhaps"],
        ["serve", "--api-keys", "a,,b"],
        ["serve", "--tls-key", "key.pem"],
        ["serve", "--port", "9000", "--admin-port", "9000"],
        ["serve", "--unix-socket", "a", "--tls-key", "b", "--tls-certificate", "c"],
        ["serve", "checkpoint", "--model-repo", "elsewhere"],
        ["bench", "http://localhost:1", "--clients", "1"],
        ["bench", "http://localhost:1", "--clients", "1", "--classify", "x.tsv", "--seconds", "1", "--warmup", "2"],
        ["evaluate", "model_repo/none/1", "x.tsv", "--device", "tpu"],
        ["fly"],
    ],
)
def test_wrong_usage_is_one_line_and_2(
    flags: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.environ", dict(os.environ))  # where flags are handed on to workers
    try:
        status = main(flags)
    except SystemExit as ended:  # argparse's own
        status = int(str(ended.code))

    told = capsys.readouterr().err.splitlines()
    assert status == USAGE
    assert told[-1].startswith("albert-serve")
    assert "Traceback" not in "".join(told)


def test_what_cannot_be_had_is_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.environ", dict(os.environ))
    assert main(["serve", "--model-repo", str(tmp_path)]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("shell", SHELLS)
def test_completion_is_a_script_of_the_shell(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0

    script = capsys.readouterr().out
    assert "--max-queue-tokens" in script
    if shutil.which(shell):
        assert subprocess.run([shell, "-n"], input=script, text=True, check=False).returncode == 0


def test_a_missing_package_is_named_with_its_extra() -> None:
    """In a process that cannot import torch, as an image has it."""
    program = (
        "import sys; sys.modules['torch'] = None\n"
        "from service.cli import main\n"
        "raise SystemExit(main(['share-layer', 'nowhere', '--out', 'x']))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert "torch is missing: install this package with its extra 'convert'" in done.stderr
    assert "pip install" not in done.stderr
