"""Reads the log of a training, Caffe's or ours, back into numbers.

Lines begin with glog's prefix, "I1121 12:17:06.217859  7506 solver.cpp:289] "; others, and what comes before the line
"Solving NET", are passed over.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from pipeline.base.console import log
from pipeline.base.errors import InputError

MAX_LINE_BYTES = 1 << 20

_LINE = re.compile(r"[IWEF](\d\d)(\d\d) (\d\d):(\d\d):(\d\d)\.(\d{6}) .*?\] (.*)")
_ITERATION = re.compile(r"Iteration (\d+)")
LOSS = re.compile(r"Iteration \d+(?: \(.*\))?, loss = (\S+)")
RATE = re.compile(r"Iteration \d+, lr = (\S+)")
TEST_NET = re.compile(r"Iteration \d+, Testing net \(#(\d+)\)")
OUTPUT = re.compile(r"\s*(Train|Test) net output #(\d+): (\S+) = (\S+)")


class LogError(InputError):
    """A file that is no training's log, or says nothing."""


@dataclass
class LogRow:
    """What one display or test said. rate: the last one logged before it; outputs: the net's, by name."""

    iteration: int
    seconds: float
    rate: float
    outputs: dict[str, float] = field(default_factory=dict)

    def add(self, name: str, value: float) -> None:
        """Enter an output; the second value of a blob called x and those after it are x[1], x[2] and so on."""
        if name in self.outputs:
            name = next(
                f"{name}[{index}]"
                for index in range(1, len(self.outputs) + 1)
                if f"{name}[{index}]" not in self.outputs
            )
        self.outputs[name] = value


@dataclass(frozen=True)
class Value:
    """A number of a certain iteration."""

    iteration: int
    seconds: float
    value: float


@dataclass
class History:
    """A training as its log tells it, seconds being from its beginning.

    train: the displays. tests: the tests of each test net, by its number. losses, rates: the smoothed losses and the
    learning rates that were displayed.
    """

    train: list[LogRow] = field(default_factory=list)
    tests: dict[int, list[LogRow]] = field(default_factory=dict)
    losses: list[Value] = field(default_factory=list)
    rates: list[Value] = field(default_factory=list)


class _LogReader:
    """Enters message after message into a History."""

    def __init__(self) -> None:
        self.history = History()
        self.solving = False
        self.rate = math.nan
        self._start()

    def _start(self) -> None:
        """Begin anew, as where a training was resumed."""
        self.iteration = -1
        self.test_net = 0
        self.row: LogRow | None = None

    def read(self, seconds: float, message: str) -> None:
        """Enter a message. Raises ValueError for one with a value that is no number."""
        if message.startswith("Solving "):
            self.solving = True
            self._start()
        if found := _ITERATION.search(message):
            self.iteration = int(found[1])
        if not self.solving or self.iteration < 0:
            return
        if found := TEST_NET.search(message):
            self.test_net = int(found[1])
        elif found := LOSS.search(message):
            self.history.losses.append(Value(self.iteration, seconds, float(found[1])))
        elif found := RATE.search(message):
            self.rate = float(found[1])
            self.history.rates.append(Value(self.iteration, seconds, self.rate))
        elif found := OUTPUT.match(message):
            if self.row is None or found[2] == "0":
                self.row = LogRow(self.iteration, seconds, self.rate)
                tests = self.history.tests
                (self.history.train if found[1] == "Train" else tests.setdefault(self.test_net, [])).append(self.row)
            self.row.add(found[3], float(found[4]))


def read_history(path: Path) -> History:
    """Read a training's log. A row that lacks outputs at the end, as of a running training, is left out and told.

    Raises LogError when the file is no log of a training, tells of no iteration, or has a value that is no number.
    """
    reader = _LogReader()
    for number, seconds, message in _messages(path):
        try:
            reader.read(seconds, message)
        except ValueError:
            raise LogError(f"{path}:{number}: '{message.strip()[:200]}' where a number was expected") from None
    if not reader.solving:
        raise LogError(f"{path}: no line 'Solving …', where a log of Caffe's training was expected")
    history = reader.history
    for rows in (history.train, *history.tests.values()):
        if rows and len(rows[-1].outputs) < len(rows[0].outputs):
            iteration = rows.pop().iteration
            log.warning("%s: left out what it tells of iteration %d, which is not all there", path, iteration)
    if not (history.train or history.tests or history.losses):
        raise LogError(f"{path}: nothing but the beginning of a training; set display or test_interval in the solver")
    return history


def _messages(path: Path) -> Iterator[tuple[int, float, str]]:
    """The number, the seconds since the first line of the training, and the message of each of glog's lines.

    Their prefix has no year. Like Caffe's, this takes the file's for the first line's, and a later one each time that
    the month falls.
    """
    year = datetime.fromtimestamp(path.stat().st_mtime).year
    start: datetime | None = None
    last_month = 0
    with open(path, encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(iter(lambda: file.readline(MAX_LINE_BYTES), ""), 1):
            found = _LINE.match(line)
            if found is None:
                continue
            if not line.endswith("\n"):
                log.warning("%s:%d: the last line is cut off, and left out", path, number)
                return
            month, day, hour, minute, second, microsecond = (int(found[index]) for index in range(1, 7))
            if month < last_month:
                year += 1
            last_month = month
            try:
                # A leap day is of a leap year, though the file may have been copied in a later one.
                of_year = year - year % 4 if (month, day) == (2, 29) else year
                time = datetime(of_year, month, day, hour, minute, second, microsecond)
            except ValueError:
                raise LogError(f"{path}:{number}: '{line[:30]}' where a date was expected") from None
            if start is None and found[7].startswith("Solving "):
                start = time
            yield number, (time - (start or time)).total_seconds(), found[7]
