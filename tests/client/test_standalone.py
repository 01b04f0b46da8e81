"""The client needs httpx, and nothing of the server."""

import ast
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

from tests.conftest import ROOT

FOLDER = ROOT / "client"


def test_it_imports_the_standard_library_httpx_and_itself() -> None:
    allowed = {*sys.stdlib_module_names, "httpx", "albert_client", "tqdm"}
    for path in FOLDER.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            assert {name.partition(".")[0] for name in names} <= allowed, path


def test_it_installs_alone(tmp_path: Path) -> None:
    """Into an empty folder; httpx comes from this environment, the server cannot be seen."""
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md"):
        (source / name).write_bytes((FOLDER / name).read_bytes())
    (source / "albert_client").symlink_to(FOLDER / "albert_client")
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "--disable-pip-version-check",
    ]
    subprocess.run([*pip, "--target", tmp_path / "there", source], check=True, capture_output=True)
    code = (
        "import sys; sys.path[:0] = sys.argv[1:]; import albert_client; print(albert_client.__file__);"
        "print('service' in sys.modules, 'pydantic' in sys.modules, 'tqdm' in sys.modules)"
    )
    packages = sysconfig.get_paths()["purelib"]
    command = [sys.executable, "-I", "-S", "-c", code, str(tmp_path / "there"), packages]
    found = subprocess.run(command, check=True, capture_output=True, text=True, cwd=tmp_path).stdout.split()

    assert found == [str(tmp_path / "there" / "albert_client" / "__init__.py"), "False", "False", "False"]
    assert (tmp_path / "there" / "albert_client" / "py.typed").exists()


def test_both_packages_are_of_one_version_and_want_the_same_httpx() -> None:
    import albert_client

    import service

    server, client = (tomllib.loads((path / "pyproject.toml").read_text())["project"] for path in (ROOT, FOLDER))
    assert albert_client.__version__ == service.__version__
    assert client["dependencies"] == [one for one in server["dependencies"] if one.startswith("httpx")]
