"""Signals that end a process, heard in time to remove what is half-written."""

import signal
from collections.abc import Callable
from types import FrameType
from typing import Any

ENDING = (signal.SIGTERM, signal.SIGHUP)  # a kill, a shutdown; a terminal that is closed


def end_cleanly() -> None:
    """Let a signal end the command as an error does, with the status that shells expect, 128 + its number."""
    on_ending(_end)


def on_ending(handler: Callable[[int, FrameType | None], Any]) -> None:
    """Call `handler` at each signal of ENDING but those that are ignored, as under nohup."""
    for number in ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)


def _end(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
