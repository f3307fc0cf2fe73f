"""Ctrl-C between two steps of a training, not in the middle of one."""

from __future__ import annotations

import signal
import threading
from dataclasses import dataclass, field
from types import FrameType


@dataclass
class CtrlC:
    """Holds the first Ctrl-C back, so that it cannot fall into the middle of a step.

    Where something else handles the signal already, and outside the main thread, it does nothing.
    """

    pressed: bool = False
    _holds: bool = field(default=False, init=False)

    def __enter__(self) -> CtrlC:
        in_main = threading.current_thread() is threading.main_thread()
        if in_main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._press)
            self._holds = True
        return self

    def __exit__(self, *_: object) -> None:
        if self._holds:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _press(self, number: int, frame: FrameType | None) -> None:
        self.pressed = True
        signal.signal(signal.SIGINT, signal.default_int_handler)  # the next one interrupts
