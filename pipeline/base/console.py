"""What a person sees: messages and progress on standard error; standard output is left to results."""

import logging
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

log = logging.getLogger("pipeline")
T = TypeVar("T")


def program(command: str, module: str) -> str:
    """How a person has called this program: by the installed command, or as a module."""
    return command if Path(sys.argv[0]).stem == command else f"python -m {module}"


def printable(name: str | os.PathLike[str]) -> str:
    """A file's name on one line: what cannot be printed, a line's end among it, is written as its escape."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in os.fspath(name))


def in_words(error: Exception) -> str:
    """An error's message; of the operating system's the file and what is wrong, without its number."""
    if not isinstance(error, OSError) or not error.strerror:
        return str(error)
    names = [name for name in (error.filename, error.filename2) if isinstance(name, str | bytes | os.PathLike)]
    place = " and ".join(printable(os.fsdecode(name)) for name in names)
    return f"{place}: {error.strerror}" if place else error.strerror


class _AboveTheBar(logging.Handler):
    """Prints messages without tearing a progress bar apart."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stderr)


def set_up(log_file: Path | None) -> None:
    """Send messages to standard error, and with their time to `log_file` where one is given."""
    log.setLevel(logging.INFO)
    log.addHandler(_AboveTheBar())
    if log_file is not None:
        log_file.parent.mkdir(parents=True, exist_ok=True)
        if "WORLD_SIZE" not in os.environ:  # torchrun's processes append to the file that their launcher has emptied
            log_file.write_bytes(b"")
        # A name that is not UTF-8 must not stop the log.
        handler = logging.FileHandler(log_file, mode="a", encoding="utf-8", errors="backslashreplace")
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        log.addHandler(handler)


def progress_bar(total: int | None, unit: str, description: str, *, hidden: bool = False) -> "tqdm[Any]":
    """A bar on standard error with rate and time left; where that is no terminal, a line every ten seconds."""
    interval = 0.1 if sys.stderr.isatty() else 10
    return tqdm(total=total, unit=f" {unit}", desc=description, mininterval=interval, ncols=100, disable=hidden)


def progress(items: Iterable[T], total: int | None, unit: str, description: str) -> Iterator[T]:
    """Pass `items` on under a progress bar that counts them."""
    with progress_bar(total, unit, description) as bar:
        for item in items:
            yield item
            bar.update()
