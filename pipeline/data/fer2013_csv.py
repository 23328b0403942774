"""Reads FER2013's CSV as Kaggle has published it, plain or compressed, a few rows at a time.

Columns emotion, pixels and Usage in any order, names and values with or without spaces around them
(fer2013.csv and icml_face_data.csv); names in any case, commas, semicolons or tabs between fields, UTF-16, a byte-order
mark and the line ends of every system, as spreadsheets write them, are accepted.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

import numpy as np

from pipeline.base.errors import SourceError
from pipeline.data.labelled_images import Batch, LabelledImage
from pipeline.data.labels import IMAGE_SHAPE, LABELS
from pipeline.data.manifest import USAGES
from pipeline.data.spreadsheet import delimiter_of, names_delimiter, open_csv

COLUMNS = ("emotion", "pixels", "Usage")
PIXELS = IMAGE_SHAPE[0] * IMAGE_SHAPE[1]
KNOWN = ("fer2013.csv", "icml_face_data.csv")  # names of the whole set in an archive
MAX_LINE = 64 << 10  # characters; a row has at most 2304 pixels of 4 and its label and Usage: 9.3 thousand
EMPTY = b' ",;\t\r\n'  # a row of nothing else is empty; spreadsheets leave some at the end
ROWS_PER_BATCH = 32  # the parser's arrays then stay in the processor's cache

_LABEL_OF = {str(label).encode(): label for label in range(len(LABELS))}
_USAGE_OF = {usage.encode(): usage for usage in USAGES}


@dataclass(frozen=True)
class Table:
    """How a CSV's lines are split: where each of COLUMNS stands among how many, and what is between them."""

    columns: dict[str, int]
    count: int
    delimiter: bytes


class CsvSource:
    """The images of a fer2013.csv, plain, compressed (.xz, .gz, .bz2) or in a .zip or .tar.

    Errors are SourceError naming the line that is wrong, or OSError.
    """

    labels = LABELS

    def __init__(self, path: Path) -> None:
        self.path = path

    def batches(self) -> Iterator[Batch]:
        """Read the file's lines; the batches parse them."""
        with open_csv(self.path, KNOWN) as file:
            yield from self._batches(self._lines(file))

    def _batches(self, numbered: Iterator[tuple[int, str]]) -> Iterator[Batch]:
        header_line, header = next(numbered, (1, ""))
        if names_delimiter(header):
            header_line, header = next(numbered, (2, ""))
        table = _table(header, self.path, header_line)
        row = 0
        lines: list[tuple[int, bytes]] = []  # line number and text
        for number, text in numbered:
            line = text.encode()
            if not line.strip(EMPTY):
                continue
            lines.append((number, line))
            if len(lines) == ROWS_PER_BATCH:
                yield partial(_parse, self.path, table, row, lines)
                row += len(lines)
                lines = []
        if lines:
            yield partial(_parse, self.path, table, row, lines)
        elif row == 0:
            raise SourceError(
                f"{self.path}: no rows below the header, where images were expected; is the file truncated?"
            )

    def _lines(self, file: IO[str]) -> Iterator[tuple[int, str]]:
        """The lines, numbered from 1. Raises SourceError for one that is no row of this file, so long is it."""
        for number, line in enumerate(iter(partial(file.readline, MAX_LINE), ""), start=1):
            if len(line) == MAX_LINE:
                raise _fault(
                    self.path, number, f"more than {MAX_LINE} characters where an image was expected; is this a CSV?"
                )
            yield number, line


def _table(header: str, path: Path, line: int) -> Table:
    """Find the place of each of COLUMNS."""
    if not header:
        raise SourceError(
            f"{path}: the file is empty, where the columns {','.join(COLUMNS)} were expected; fetch it again"
        )
    delimiter = delimiter_of(header).encode()
    names = [name.decode().lower() for name in _fields(header.encode(), delimiter)]
    columns = {}
    for column in COLUMNS:
        if names.count(column.lower()) != 1:
            fault = "is missing" if column.lower() not in names else "stands there more than once"
            raise _fault(
                path, line, f"column {column} {fault}, where {','.join(COLUMNS)} were expected; is this fer2013.csv?"
            )
        columns[column] = names.index(column.lower())
    return Table(columns, len(names), delimiter)


def _fields(line: bytes, delimiter: bytes) -> list[bytes]:
    """Split a line; neither labels, pixels nor Usages hold delimiters, so quotes only ever surround a whole field."""
    return [field.strip(b' "\r\n') for field in line.split(delimiter)]


def _parse(path: Path, table: Table, first_row: int, lines: list[tuple[int, bytes]]) -> list[LabelledImage]:
    """Turn lines into images, all their pixels at once."""
    usages, labels, texts = [], [], []
    for number, line in lines:
        fields = _fields(line, table.delimiter)
        if len(fields) != table.count:
            hint = "is a field broken over lines?" if line.count(b'"') % 2 else "is the file truncated?"
            raise _fault(path, number, f"{len(fields)} fields where {table.count} were expected; {hint}")
        label, text, usage = (fields[table.columns[column]] for column in COLUMNS)
        if label not in _LABEL_OF:
            if label.lower() == b"emotion":
                raise _fault(
                    path, number, "a second header where an image was expected; were two files joined? remove the line"
                )
            raise _fault(
                path, number, f"emotion {_shown(label)} where 0 to {len(LABELS) - 1} was expected; correct the line"
            )
        if usage not in _USAGE_OF:
            raise _fault(
                path, number, f"Usage {_shown(usage)} where {', '.join(USAGES)} was expected; is the file truncated?"
            )
        labels.append(_LABEL_OF[label])
        usages.append(_USAGE_OF[usage])
        texts.append(text)
    pixels = _parse_pixels(texts)
    if pixels is None:
        for (number, _), text in zip(lines, texts, strict=True):
            fault = _fault_in_pixels(text)
            if fault:
                raise _fault(path, number, fault)
        raise AssertionError("pixels that only the batch parser refuses")
    rows = range(first_row, first_row + len(lines))
    return [LabelledImage(*fields) for fields in zip(rows, usages, labels, pixels, strict=True)]


def _parse_pixels(texts: list[bytes]) -> np.ndarray | None:
    """Parse texts of 2304 decimal numbers 0..255, a space between, to (N, 48, 48) uint8; None if any is not so."""
    # Three spaces before let every number be looked at as hundreds, tens and ones.
    characters = np.frombuffer(b"   " + b" ".join(texts) + b" ", dtype=np.uint8)
    is_space = characters == ord(" ")
    digits = characters - np.uint8(ord("0"))  # beyond 9 for all that is no digit
    ends = np.flatnonzero(is_space)[2:].astype(np.int32)  # before each number, and at last after it
    text_ends = np.cumsum([len(text) + 1 for text in texts]) + 2
    if (
        len(ends) != len(texts) * PIXELS + 1
        or (ends[PIXELS::PIXELS] != text_ends).any()
        or np.count_nonzero(digits <= 9) + len(ends) + 2 != len(characters)
    ):
        return None
    lengths = np.diff(ends) - 1
    ends = ends[1:]
    ones, tens, hundreds = (digits.take(ends - place) for place in (1, 2, 3))
    tens *= lengths > 1
    hundreds *= lengths > 2
    values = hundreds * np.uint16(100) + tens * np.uint8(10) + ones
    if lengths.min() < 1 or lengths.max() > 3 or values.max() > 255:
        return None
    return values.astype(np.uint8).reshape(-1, *IMAGE_SHAPE)


def _fault_in_pixels(text: bytes) -> str | None:
    """Say what _parse_pixels refuses in a text."""
    numbers = text.split(b" ")
    for place, number in enumerate(numbers):
        if not number.isdigit() or len(number) > 3 or int(number) > 255:
            return f"pixel {place} is {_shown(number)} where a number 0 to 255 was expected; correct the line"
    if len(numbers) != PIXELS:
        return f"{len(numbers)} pixels where 48x48 = {PIXELS} were expected; is the file truncated?"
    return None


def _fault(path: Path, line: int, what: str) -> SourceError:
    return SourceError(f"{path}:{line}: {what}")


def _shown(field: bytes) -> str:
    return repr(field[:20].decode("utf-8", "replace"))
