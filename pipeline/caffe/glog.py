"""Log lines in glog's form, which Caffe's log parsers read: "I1121 12:01:49.071857 13070 solver.cpp:60] Solving"."""

import logging
import os
import sys
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from pipeline.base.console import log

_LETTERS = {logging.DEBUG: "I", logging.INFO: "I", logging.WARNING: "W", logging.ERROR: "E", logging.CRITICAL: "F"}
_LEVELS = (logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL)  # by glog's number

# glog's, each of which has its default in the environment as GLOG_name; -v sets how much of VLOG is logged, which
# Caffe does not use.
FLAGS: dict[str, tuple[str | int | bool, str]] = {
    "logtostderr": (False, "log to standard error alone, whatever -log_dir says"),
    "alsologtostderr": (True, "log to standard error, whatever -log_dir says"),
    "log_dir": ("", "folder to write a log file to as well"),
    "minloglevel": (0, "leave out lines below: 0 INFO, 1 WARNING, 2 ERROR, 3 FATAL"),
    "stderrthreshold": (2, "with -noalsologtostderr, lines from which on go to standard error all the same"),
    "v": (0, "accepted; no command here logs more"),
}


class Formatter(logging.Formatter):
    """glog's prefix before a message: severity, month, day, time, process, file and line."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created)
        return (
            f"{_LETTERS[record.levelno]}{time:%m%d %H:%M:%S.%f} {os.getpid():5d} "
            f"{record.filename}:{record.lineno}] {record.getMessage()}"
        )


class LogFile(logging.FileHandler):
    """Appends to a file. Where that fails, as on a full disk, it says so once and writes no more; work continues."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, encoding="utf-8", errors="backslashreplace")
        self.setFormatter(Formatter())

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802, the name is logging's
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
            return
        self.setLevel(logging.CRITICAL + 1)
        with suppress(OSError):  # of what is still to be written
            self.close()
        log.warning("%s: %s; nothing more is logged there", self.baseFilename, error.strerror)


class Console(logging.StreamHandler):
    """Writes to standard error. Where nobody reads that any more, what is logged is lost, and the work continues."""

    def __init__(self) -> None:
        super().__init__(sys.stderr)
        self.setFormatter(Formatter())

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802, the name is logging's
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)
            return
        # Python flushes the stream at its end as well, and would end with status 120.
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), sys.stderr.fileno())


def defaults() -> dict[str, tuple[str | int | bool, str]]:
    """FLAGS with the defaults that the environment sets, as in GLOG_minloglevel=2."""
    return {name: (_from_environment(name, default), about) for name, (default, about) in FLAGS.items()}


def _from_environment(name: str, default: str | int | bool) -> str | int | bool:
    text = os.environ.get(f"GLOG_{name}", "")
    if not text or isinstance(default, str):
        return text or default
    if isinstance(default, bool):
        return text[0] in "tTyY1"
    return int(text) if text.lstrip("-").isdigit() else default


@contextmanager
def log_file(path: Path) -> Iterator[logging.Logger]:
    """A logger of its own that appends to the file `path`, whose folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = LogFile(path)
    logger = logging.Logger(str(path), logging.INFO)
    logger.addHandler(handler)
    try:
        yield logger
    finally:
        handler.close()


def set_up(args: Namespace, program: str) -> None:
    """Send messages where the flags say. Raises OSError when there can be no log file in -log_dir."""
    if "WORLD_SIZE" in os.environ and os.environ.get("RANK") != "0":  # of torchrun's processes the first alone logs
        args.minloglevel, args.log_dir = 3, ""
    # glog knows no DEBUG: there are the lines that Caffe has among INFO and that the pipeline's stages do not show.
    log.setLevel(_LEVELS[min(args.minloglevel, 3)] if args.minloglevel > 0 else logging.DEBUG)
    console = Console()
    if not args.logtostderr and not args.alsologtostderr:
        console.setLevel(_LEVELS[min(max(args.stderrthreshold, 0), 3)])
    log.addHandler(console)
    if args.log_dir and not args.logtostderr:
        name = f"{program}.INFO.{datetime.now():%Y%m%d-%H%M%S}.{os.getpid()}"
        log.addHandler(LogFile(Path(args.log_dir) / name))
