"""Readings as text: JSON Lines and CSV."""

import csv
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol, Self

from pipeline.base.atomic import atomic_file
from pipeline.base.console import log
from pipeline.base.errors import InputError
from pipeline.media.frames import Frame
from pipeline.media.sinks.sink import Sink
from pipeline.readings import Reading, columns, rows


class TextSink(Sink):
    """Text to `path` or, with None, at once to standard output.

    live: the frames come by the clock and nobody knows for how long. Every line is in the file as soon as it is
    written, and stays whatever happens next; otherwise the file appears whole at the end, or not at all.
    """

    def __init__(self, path: Path | None, *, live: bool = False) -> None:
        self.path = path
        self.live = live

    def __enter__(self) -> Self:
        if self.path is None and sys.stdout is None:
            raise InputError("standard output is closed; write to a file")
        super().__enter__()
        if self.path:
            self.file = self.stack.enter_context(_text_file(self.path, self.live))
        return self

    def put(self, text: str) -> None:
        if self.path:
            self.file.write(text)
        else:
            self._print(text)

    def _print(self, text: str) -> None:
        """To standard output; once whoever reads that has seen enough (`predict … | head`), the run is over."""
        if self.done:
            return
        try:
            sys.stdout.flush()
            sys.stdout.buffer.write(text.encode("utf-8", "surrogateescape"))
            sys.stdout.flush()
        except BrokenPipeError:
            log.warning("standard output was closed; nothing more is read")
            self.done = True
            # Python flushes it once more at its end, which would be another error.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        except OSError as error:
            error.filename = "standard output"
            raise


class JsonLines(TextSink):
    """A line of JSON a frame."""

    def write(self, frame: Frame, reading: Reading) -> None:
        self.put(json.dumps(reading.to_json()) + "\n")


class Csv(TextSink):
    """A row a face; a frame without one has a single row of status `none`."""

    def __init__(self, path: Path | None, labels: Sequence[str], *, live: bool = False) -> None:
        super().__init__(path, live=live)
        self.writer = csv.DictWriter(_Lines(self.put), columns(labels), lineterminator="\n")
        self.headed = False

    def __enter__(self) -> Self:
        super().__enter__()
        if not self.live:
            self._head()
        return self

    def write(self, frame: Frame, reading: Reading) -> None:
        if not self.headed:
            self._head()
        self.writer.writerows(rows(reading))

    def _head(self) -> None:
        self.writer.writeheader()
        self.headed = True


@dataclass(frozen=True)
class _Lines:
    """What csv writes its lines to."""

    write: Callable[[str], None]


class _Writable(Protocol):
    def write(self, text: str, /) -> Any: ...


def _text_file(path: Path, live: bool) -> AbstractContextManager[_Writable]:
    if live or (path.exists() and not path.is_file()):  # pipes are written to, and never replaced
        return _growing_file(path)
    # Names that are not UTF-8 stay what they are on the disk.
    return atomic_file(path, "w", encoding="utf-8", errors="surrogateescape", newline="")


@contextmanager
def _growing_file(path: Path) -> Iterator["_Growing"]:
    """Open a file that takes every write at once and keeps it. What stood there before stands until the first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = not path.exists()
    with open(path, "ab", buffering=0) as file:
        growing = _Growing(file, path)
        try:
            yield growing
        finally:
            if new and not growing.begun:
                path.unlink(missing_ok=True)


class _Growing:
    """Writes whole lines, or nothing of them. Raises OSError naming the file."""

    def __init__(self, file: IO[bytes], path: Path) -> None:
        self.file = file
        self.path = path
        self.begun = False
        self.whole = 0  # bytes of the lines that are in the file

    def write(self, line: str) -> None:
        data = line.encode("utf-8", "surrogateescape")
        try:
            if not self.begun and self.path.is_file():
                self.file.truncate(0)
            self.begun = True
            written = self.file.write(data)
            if written < len(data):  # the disk took a part; why no more, the next write tells
                self.file.write(data[written:])
            self.whole += len(data)
        except OSError as error:
            if self.path.is_file():
                self.file.truncate(self.whole)
            error.filename = str(self.path)
            raise
