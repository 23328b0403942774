"""Runs the engine's command as its user does, but in this process: importing torch for each takes seconds."""

import sys
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from typing import NamedTuple
from unittest.mock import patch

from pipeline.base.console import log
from pipeline.caffe.__main__ import main


class Ran(NamedTuple):
    """A command's status, what it printed, and what it logged."""

    status: int
    output: str
    log: str


def run_command(*words: str) -> Ran:
    """Run `python -m pipeline.caffe WORDS`."""
    handlers, level = list(log.handlers), log.level
    status = 0
    with (
        patch.object(sys, "argv", ["caffe", *words]),
        redirect_stdout(StringIO()) as output,
        redirect_stderr(StringIO()) as said,
    ):
        try:
            main()
        except SystemExit as end:
            status = int(end.code or 0)
        finally:
            for handler in set(log.handlers) - set(handlers):
                log.removeHandler(handler)
                handler.close()
            log.setLevel(level)
    return Ran(status, output.getvalue(), said.getvalue())
