"""A CSV as it may be handed in: packed, in any form of Unicode, with the line ends and delimiters of spreadsheets."""

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from pipeline.base.errors import SourceError
from pipeline.base.file_kinds import HEAD, kind_of
from pipeline.base.text_files import encoding_of

DELIMITERS = (",", ";", "\t")
COMPRESSED: dict[str, Callable[..., Any]] = {".xz": lzma.open, ".gz": gzip.open, ".bz2": bz2.open}
TARS = {".tar": "r:", ".tar.gz": "r:gz", ".tgz": "r:gz", ".tar.xz": "r:xz", ".tar.bz2": "r:bz2"}  # tarfile's modes
SUFFIXES = (".csv", *(f".csv{suffix}" for suffix in COMPRESSED), ".csv.zip", ".zip", *TARS)
_TRUNCATED = (EOFError, lzma.LZMAError, zlib.error, gzip.BadGzipFile, zipfile.BadZipFile, tarfile.ReadError)


@contextmanager
def open_csv(path: Path, known: Sequence[str]) -> Iterator[IO[str]]:
    """Open a CSV, plain, compressed or in an archive, as text whose lines all end with a line feed.

    Args:
        known: names of the CSV to take where an archive holds several, in small letters, the likeliest first.

    Raises:
        SourceError: the archive ends too early, also where that shows inside the block, or holds no such CSV.
        OSError: the file cannot be read.
    """
    try:
        with _open(path, known) as file:
            encoding = encoding_of(file.read(HEAD))
            file.seek(0)
            # What is no text is a field that is not what was expected, which its reader names with the line.
            yield io.TextIOWrapper(file, encoding=encoding, errors="replace")
    except _TRUNCATED as error:
        what = str(error) or "the archive ends too early"
    except OSError as error:
        if error.errno is not None:
            raise
        what = str(error)  # bzip2's
    else:
        return
    raise SourceError(f"{path}: {what}; is the file truncated? fetch it again")


@contextmanager
def _open(path: Path, known: Sequence[str]) -> Iterator[IO[bytes]]:
    name = path.name.lower()
    if name.endswith(".zip"):
        with zipfile.ZipFile(path) as archive:
            inside = _csv_among(archive.namelist(), path, known)
            if archive.getinfo(inside).flag_bits & 1:
                raise SourceError(f"{path}: {inside} inside is encrypted; unpack it and give the CSV")
            with archive.open(inside) as file:
                yield file
    elif name.endswith(tuple(TARS)):
        mode: Any = next(mode for suffix, mode in TARS.items() if name.endswith(suffix))
        with tarfile.open(path, mode) as tar:
            names = [member.name for member in tar if member.isfile()]
            member = tar.extractfile(_csv_among(names, path, known))
            assert member is not None  # what is a file can be read
            yield member
    else:
        with path.open("rb") as file:
            kind = kind_of(file.read(HEAD))
        unpacked = COMPRESSED.get(path.suffix.lower())
        if kind and not unpacked:
            raise SourceError(f"{path}: {kind} where a CSV was expected; give it its own suffix, or save it as CSV")
        with (unpacked or open)(path, "rb") as file:
            yield file


def _csv_among(inside: list[str], path: Path, known: Sequence[str]) -> str:
    """The CSV in an archive, by the names of what is inside."""
    names = [  # macOS puts a ._NAME beside each
        name for name in inside if name.lower().endswith(".csv") and not Path(name).name.startswith("._")
    ]
    # Kaggle's archive of the challenge holds the whole set and, beside it, its parts.
    whole = [name for name in names if Path(name).name.lower() in known]
    for candidates in (whole, names):
        if len(candidates) == 1:
            return candidates[0]
    if not names and any("/" in name for name in inside):
        raise SourceError(f"{path}: folders and no CSV inside; unpack it and give the folder of the class folders")
    raise SourceError(
        f"{path}: {len(names)} CSV files inside, where one or {known[0]} was expected; unpack it and give the CSV"
    )


def names_delimiter(line: str) -> bool:
    """Whether a line before the header tells Excel the delimiter, as sep=; does."""
    return line.strip('" \n').lower().startswith("sep=")


def delimiter_of(header: str) -> str:
    """What stands between the names in a header: the one of DELIMITERS that is there most often."""
    return max(DELIMITERS, key=header.count)
