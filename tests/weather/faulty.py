"""The service with a device that does what a file says: ``python -m tests.weather.faulty FILE serve ...``.

ok       computes
lost     every call fails as after a CUDA error
memory   steps of more than 32 tokens find no memory
hang     no call returns for as long as the file says so
"""

import sys
import time
from pathlib import Path
from typing import Any

from service import cli
from service.runtime.session import Model, translated

LOST = "CUDA failure 700: an illegal memory access was encountered ; GPU=0"
MEMORY = "Available memory of 1024 is smaller than requested bytes of 4096"


def obey(control: Path) -> None:
    run = Model._call

    def call(self: Model, part: str, feeds: dict[str, Any]) -> Any:
        order = control.read_text().strip()
        while order == "hang":
            time.sleep(0.05)
            order = control.read_text().strip()
        if order == "lost":
            raise translated(part, LOST)
        if order == "memory" and part == "embed" and len(feeds["ids"]) > 32:
            raise translated(part, MEMORY)
        return run(self, part, feeds)

    Model._call = call  # type: ignore[method-assign]


if __name__ == "__main__":
    obey(Path(sys.argv[1]))
    sys.exit(cli.main(sys.argv[2:]))
