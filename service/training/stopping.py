"""A wish to stop, heard between two steps: what Ctrl-C and a container's SIGTERM leave behind is whole."""

import signal
import threading
from types import FrameType
from typing import Any


class Stop:
    """Inside it SIGINT and SIGTERM are noted: it is true then.  A second SIGINT interrupts as ever."""

    def __init__(self) -> None:
        self._wished = False
        self._before: dict[signal.Signals, Any] = {}

    def __bool__(self) -> bool:
        return self._wished

    def __enter__(self) -> "Stop":
        if threading.current_thread() is threading.main_thread():  # only that one may say what a signal does
            for one in (signal.SIGINT, signal.SIGTERM):
                self._before[one] = signal.signal(one, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for one, handler in self._before.items():
            signal.signal(one, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._wished = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
