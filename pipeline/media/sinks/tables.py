"""Readings as text: JSON Lines and CSV."""

import csv
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO, Any, Protocol, Self

from pipeline.base.atomic import atomic_file
from pipeline.base.console import log
from pipeline.media.frames import Frame
from pipeline.media.sinks.sink import Sink
from pipeline.readings import Reading, columns, rows


class JsonLines(Sink):
    """A line of JSON a frame, to `path` or, with None, at once to standard output.

    live: the frames come by the clock and nobody knows for how long. Every line is in the file as soon as it is
    written, and stays whatever happens next; otherwise the file appears whole at the end, or not at all.
    """

    def __init__(self, path: Path | None, *, live: bool = False) -> None:
        self.path = path
        self.live = live

    def __enter__(self) -> Self:
        super().__enter__()
        if self.path:
            self.file = self.stack.enter_context(_text_file(self.path, self.live))
        return self

    def write(self, frame: Frame, reading: Reading) -> None:
        line = json.dumps(reading.to_json()) + "\n"
        if self.path:
            self.file.write(line)
        else:
            self._print(line)

    def _print(self, line: str) -> None:
        """To standard output; once whoever reads that has seen enough (`predict … | head`), the run is over."""
        try:
            sys.stdout.write(line)
            sys.stdout.flush()
        except BrokenPipeError:
            log.warning("standard output was closed; nothing more is read")
            self.done = True
            # Python flushes it once more at its end, which would be another error.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class Csv(Sink):
    """A row a face to `path`; a frame without one has a single row of status `none`. live: as in JsonLines."""

    def __init__(self, path: Path, labels: Sequence[str], *, live: bool = False) -> None:
        self.path = path
        self.labels = labels
        self.live = live

    def __enter__(self) -> Self:
        super().__enter__()
        file = self.stack.enter_context(_text_file(self.path, self.live))
        self.writer = csv.DictWriter(file, columns(self.labels), lineterminator="\n")
        self.headed = False
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


class _Writable(Protocol):
    def write(self, text: str, /) -> Any: ...


def _text_file(path: Path, live: bool) -> AbstractContextManager[_Writable]:
    if live or (path.exists() and not path.is_file()):  # /dev/stdout and pipes are written to, and never replaced
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
