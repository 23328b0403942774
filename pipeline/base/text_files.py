"""Text files of the project's own: one that is damaged is an error that names the file, the place and the way out."""

import codecs
import json
import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pipeline.base.errors import InputError

MARKS = (  # UTF-32's first: UTF-16's is how it begins
    ("utf-32", (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)),
    ("utf-16", (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)),
)


def encoding_of(start: bytes) -> str:
    """The encoding of somebody's text that begins so: utf-8-sig, or UTF-16 or UTF-32 by their byte-order marks.

    UTF-16 without its mark is known by its zero bytes: in every other place, which is where Latin letters, digits and
    punctuation have them.
    """
    for encoding, marks in MARKS:
        if start.startswith(marks):
            return encoding
    even, odd = start[::2].count(0), start[1::2].count(0)
    if max(even, odd) * 8 < len(start) or min(even, odd) * 4 > max(even, odd) or not start:
        return "utf-8-sig"
    return "utf-16-le" if odd > even else "utf-16-be"


def read_text(path: Path, remedy: str, error: type[InputError] = InputError) -> str:
    """Read UTF-8. Raises `error` naming the line that is none and the remedy, OSError when the file cannot be read."""
    data = path.read_bytes()
    try:
        return data.decode()
    except UnicodeDecodeError as wrong:
        line = data.count(b"\n", 0, wrong.start) + 1
        raise error(f"{path}:{line}: byte {data[wrong.start]:#04x}, which is not UTF-8; {remedy}") from None


class LineReader:
    """Reads UTF-8 line by line, with line feeds; memory does not grow with the file. Raises as read_text does.

    end: how many bytes the lines read so far have.
    """

    def __init__(self, path: Path, remedy: str, error: type[InputError] = InputError) -> None:
        self.end = 0
        self._path, self._remedy, self._error = path, remedy, error

    def __iter__(self) -> Iterator[str]:
        with open(self._path, "rb") as file:
            for number, line in enumerate(file, 1):
                self.end += len(line)
                try:
                    yield line.decode()
                except UnicodeDecodeError as wrong:
                    byte = f"byte {line[wrong.start]:#04x}, which is not UTF-8"
                    raise self._error(f"{self._path}:{number}: {byte}; {self._remedy}") from None


def text_at(path: Path, ends: Sequence[int], numbers: Iterable[int]) -> Iterator[str]:
    """The records of some numbers of a text file, in the order of the numbers.

    ends: the offset behind the header, then behind each record, in bytes; record 0 follows the header.
    """
    with open(path, "rb", buffering=0) as file:
        for number in numbers:
            yield os.pread(file.fileno(), ends[number + 1] - ends[number], ends[number]).decode()


def read_json(path: Path, remedy: str, error: type[InputError] = InputError) -> dict[str, Any]:
    """Read a JSON object whose names differ and whose numbers are finite, as the pipeline writes them.

    Raises `error` naming what is wrong and the remedy, OSError when the file cannot be read.
    """
    text = read_text(path, remedy, error)
    try:
        value = json.loads(text, parse_float=_finite, parse_constant=_finite, object_pairs_hook=_object)
    except (ValueError, RecursionError) as wrong:
        raise error(f"{path}: no JSON ({wrong}); {remedy}") from None
    if not isinstance(value, dict):
        raise error(f"{path}: a JSON object was expected; {remedy}")
    return value


def _finite(word: str) -> float:
    """A number of JSON, or NaN or Infinity, which Python reads there though they are none."""
    value = float(word)
    if not math.isfinite(value):
        raise ValueError(f"{word[:60]}, where a finite number was expected")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        ((twice, _),) = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"{twice[:60]!r} twice in one object")
    return value
