"""The commands of the docs with the answers that they say: found, run, and written again.

    python -m tests.system.documented     # runs them all on a real service and writes what it answers into the pages

A block of ``bash`` that begins with curl, and the block of ``json`` after it, are a command and its answer.
"""

import json
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from tests.conftest import ROOT
from tests.system.conftest import Server, kill, start_server, wait_until_ready

PAGES = [ROOT / "README.md", *(ROOT / "docs" / f"{name}.md" for name in ("classify", "ask", "explain", "protocols"))]
CHINESE = ROOT / "README.zh.md"  # has the README's commands and answers
PYTHON = re.compile(r"```python\n(.+?)```", re.DOTALL)
PAIR = re.compile(r"(```bash\n(curl .+?)\n```\n```json\n)(.+?)(\n```)", re.DOTALL)


def commands(page: Path) -> list[tuple[str, str]]:
    return [(match[2], match[3]) for match in PAIR.finditer(page.read_text(encoding="utf-8"))]


def programs(page: Path) -> list[str]:
    """Blocks of Python over the client that the shipped models answer."""
    blocks = PYTHON.findall(page.read_text(encoding="utf-8"))
    return [text for text in blocks if "Client(" in text and "albert.tokens(" not in text]


def run(command: str, server: Server) -> Any:
    address = server.url.removeprefix("http://")
    line = command.replace("localhost:8000", address).replace("curl", "curl -sS", 1)
    done = subprocess.run(line, shell=True, capture_output=True, text=True, check=True, cwd=ROOT)
    return json.loads(done.stdout)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        server = start_server(ROOT / "model_repo", Path(folder) / "log", "--precision", "int8")
        try:
            wait_until_ready(server)
            for page in PAGES:
                text = page.read_text(encoding="utf-8")
                page.write_text(PAIR.sub(lambda match: match[1] + _answer(match[2], server) + match[4], text), "utf-8")
                print(f"{page.relative_to(ROOT)}: {len(commands(page))} commands")
            answers = iter([answer for _, answer in commands(ROOT / "README.md")])
            text = CHINESE.read_text(encoding="utf-8")
            CHINESE.write_text(PAIR.sub(lambda match: match[1] + next(answers) + match[4], text), encoding="utf-8")
        finally:
            kill(server)


def _answer(command: str, server: Server) -> str:
    found = run(command, server)
    # A processor without VNNI may run floats; the pages say what most do.
    for model in found.get("models", []) if isinstance(found, dict) else []:
        if isinstance(model, dict) and "precision" in model:
            model["precision"] = "int8"
    return json.dumps(found, ensure_ascii=False, separators=(",", ":"))


if __name__ == "__main__":
    main()
