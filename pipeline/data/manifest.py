"""The table of images that passes from stage to stage: manifest.csv, one row an image, in row order."""

import csv
import hashlib
from collections.abc import Iterable, Iterator, MutableSequence, Sequence
from math import isfinite
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pipeline.base.atomic import atomic_file
from pipeline.base.errors import InputError
from pipeline.base.text_files import LineReader, read_text, text_at

NAME = "manifest.csv"
REMEDY = "make it again with extract or align"
USAGES = ("Training", "PublicTest", "PrivateTest")
STATUSES = ("", "found", "fallback")  # of alignment


class ManifestError(InputError):
    """A manifest that cannot be used."""


class ManifestRow(NamedTuple):
    """One image.

    row: 0-based data row of the source. usage: Training, PublicTest or PrivateTest. label: index into
    labels.txt. path: of the image, relative to the manifest's folder. sha256: of the source image's raw pixels,
    kept through alignment, so that byte-equal sources can be told. The rest is alignment's: status found or
    fallback, the box (left, top, right, bottom) with its score and the five landmarks, in pixels of the source
    image; None where no face was found or none was looked for.
    """

    row: int
    usage: str
    label: int
    path: str
    sha256: str
    status: str | None = None
    score: float | None = None
    left: float | None = None
    top: float | None = None
    right: float | None = None
    bottom: float | None = None
    left_eye_x: float | None = None
    left_eye_y: float | None = None
    right_eye_x: float | None = None
    right_eye_y: float | None = None
    nose_x: float | None = None
    nose_y: float | None = None
    mouth_left_x: float | None = None
    mouth_left_y: float | None = None
    mouth_right_x: float | None = None
    mouth_right_y: float | None = None


COLUMNS = ManifestRow._fields
EXTRACT_COLUMNS = COLUMNS[:5]


def write(path: Path, rows: Iterable[ManifestRow], columns: Sequence[str], *, exact: bool = False) -> int:
    """Write a manifest row by row.

    Args:
        columns: COLUMNS, or EXTRACT_COLUMNS where no face was looked for.
        exact: keeps alignment's numbers as they are; otherwise they are rounded to three digits.

    Returns:
        The number of rows.
    """
    count = 0
    number = repr if exact else "{:.3f}".format
    with atomic_file(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        for count, row in enumerate(rows, 1):  # noqa: B007 - the last one is the number of rows
            values = row[: len(columns)]
            writer.writerow(number(v) if isinstance(v, float) else v for v in values)  # csv leaves None empty
    return count


def read(path: Path) -> list[ManifestRow]:
    """All rows of a manifest, as stream() gives them."""
    return list(stream(path))


def stream(path: Path, ends: MutableSequence[int] | None = None) -> Iterator[ManifestRow]:
    """Read a manifest row by row; memory does not grow with it.

    Args:
        ends: gets the byte at which the header ends, and then that of each row, for read_at().

    Raises:
        ManifestError: names the line that is wrong.
        OSError: the file cannot be read.
    """
    lines = LineReader(path, REMEDY, ManifestError)
    reader = csv.reader(lines, strict=True)
    try:
        columns = tuple(next(reader, ()))
        if columns not in (COLUMNS, EXTRACT_COLUMNS):
            found = f"columns {','.join(columns)}" if columns else "no columns"
            raise ValueError(f"{found} where {','.join(EXTRACT_COLUMNS)} and alignment's were expected")
        if ends is not None:
            ends.append(lines.end)
        for fields in reader:
            row = _row(fields, len(columns))
            if ends is not None:
                ends.append(lines.end)
            yield row
    except (ValueError, csv.Error) as error:
        raise ManifestError(f"{path}:{max(1, reader.line_num)}: {error}; {REMEDY}") from None


def read_at(path: Path, ends: Sequence[int], numbers: Iterable[int]) -> Iterator[ManifestRow]:
    """The rows of some numbers, from 0, in the order of the numbers. ends: as stream() gave them for this file."""
    for fields in csv.reader(text_at(path, ends, numbers), strict=True):
        yield _row(fields, len(fields))


def _row(fields: list[str], expected: int) -> ManifestRow:
    if len(fields) != expected:
        raise ValueError(f"{len(fields)} fields where {expected} were expected")
    row, usage, label, path, sha256, *alignment = fields
    if usage not in USAGES:
        raise ValueError(f"usage {usage!r} where one of {', '.join(USAGES)} was expected")
    if not path.strip("./") or "\0" in path:
        raise ValueError(f"path {path!r} where an image's was expected")
    status, *numbers = alignment or [""]
    if status not in STATUSES:
        raise ValueError(f"status {status!r} where found, fallback or nothing was expected")
    places = [float(number) if number else None for number in numbers]
    if not isfinite(sum(filter(None, places))):
        raise ValueError(f"{','.join(numbers)} where finite numbers were expected")
    return ManifestRow(_whole("row", row), usage, _whole("label", label), path, sha256, status or None, *places)


def _whole(what: str, text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"{what} {text!r} where a whole number was expected")
    return int(text)


def check_pixels(row: ManifestRow, image: np.ndarray, path: str | Path) -> None:
    """Raise ManifestError where a grey image (H, W) that extract wrote has other pixels now.

    That costs some microseconds. The hashes of aligned images are those of their sources, so these are not compared.
    """
    if row.status is None and hashlib.sha256(image.tobytes()).hexdigest() != row.sha256:
        raise ManifestError(f"{path}: other pixels than those whose sha256 is in {NAME}; make it again with extract")


def read_labels(path: Path) -> tuple[str, ...]:
    """Read labels.txt: one class name a line, in index order.

    A byte-order mark, line ends of Windows and a last line without an end are what editors leave, and mean nothing.
    Raises ManifestError when it is empty, or names a class twice or by what cannot be printed.
    """
    remedy = "make it again with extract"
    text = read_text(path, remedy, ManifestError).removeprefix("\ufeff").removesuffix("\n")
    labels = tuple(line.removesuffix("\r") for line in text.split("\n"))
    if len(set(labels)) != len(labels) or not all(name and name.isprintable() for name in labels):
        raise ManifestError(f"{path}: one distinct class name of printable characters a line was expected; {remedy}")
    return labels


def write_labels(path: Path, labels: Iterable[str]) -> None:
    """Write labels.txt, one class name a line."""
    with atomic_file(path, "w", encoding="utf-8") as file:
        file.writelines(f"{label}\n" for label in labels)
