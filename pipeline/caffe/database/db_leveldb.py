"""LevelDB through its library (plyvel), with the options of Caffe's db_leveldb.hpp.

Unlike an LMDB it is not read without a trace: whoever opens it locks it, writes its log into a table and starts a new
one, so that the folder must be one to write to. The library checks what it reads against checksums, but it takes the
end of a file for the end of what was written, and the places that a table's last bytes name for places in it: these two
are looked at before it is let in (LevelDB's doc/log_format.md and doc/table_format.md).
"""

import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO
from weakref import WeakValueDictionary

from pipeline.caffe.database.datum import DatabaseError
from pipeline.caffe.database.lock import refuse_locked

LOG_BLOCK_BYTES = 32768
LOG_HEAD = struct.Struct("<IHB")  # checksum, bytes that follow, which part of a record they are
WHOLE, FIRST, MIDDLE, LAST = 1, 2, 3, 4
FOOTER_BYTES = 48
FOOTER_END = struct.pack("<Q", 0xDB4775248B80FB57)
BLOCK_TRAILER_BYTES = 5

# Caffe's: no table is made of a database of less than 256 MB until it is opened again.
WRITE_OPTIONS = {"write_buffer_size": 1 << 28, "max_open_files": 100, "block_size": 1 << 16}
# As writing, but with the library's own 4 MB, in which it holds what the log had in it.
READ_OPTIONS = {"max_open_files": 100, "block_size": 1 << 16, "paranoid_checks": True}
READ_HINT = "is the disk in order?"


class _Opened:
    """An open database. LevelDB must not be opened twice in one process, which ends the lock."""

    def __init__(self, folder: Path) -> None:
        import plyvel

        self.database: Any = plyvel.DB(os.fsencode(folder), **READ_OPTIONS)


_opened: WeakValueDictionary[tuple[int, int], _Opened] = WeakValueDictionary()


class LevelDBFolder:
    """The records of a LevelDB. Readers in one process share it. Raises DatabaseError where it is damaged."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if not (folder / "CURRENT").is_file():
            hint = (
                "it is an LMDB: set backend: LMDB"
                if (folder / "data.mdb").is_file()
                else "make it with convert_imageset -backend leveldb"
            )
            raise DatabaseError(f"{folder}: no CURRENT inside, where a LevelDB was expected; {hint}")
        status = folder.stat()
        identity = (status.st_dev, status.st_ino)
        opened = _opened.get(identity)
        if opened is None:
            refuse_locked(folder / "LOCK")  # not while it is open here: closing the file would end the lock
            try:
                _check_files(folder)
            except OSError as error:
                raise DatabaseError(f"{error.filename}: cannot be read: {error.strerror}") from None
            with _leveldb_errors(folder, "a LevelDB is read only where its folder may be written to: copy it there"):
                opened = _Opened(folder)
            _opened[identity] = opened
        self._opened = opened

    def __len__(self) -> int:
        """The number of records, which LevelDB does not know: reads them all."""
        with _leveldb_errors(self.folder, READ_HINT):
            return sum(1 for _ in self._places())

    def close(self) -> None:
        del self._opened  # closed with the last reader that shares it

    def records(self, skip: int = 0) -> Iterator[tuple[bytes, bytes]]:
        """Keys and values in the order of the keys, the first `skip` left out."""
        with _leveldb_errors(self.folder, READ_HINT):
            for place in islice(self._places(), skip, None):
                yield place.item()

    def _places(self) -> Iterator[Any]:
        """The library's raw iterator at each record. Its other one ends without a word at a damaged last block."""
        place = self._opened.database.raw_iterator(verify_checksums=True, fill_cache=False)
        place.seek_to_first()
        while place.valid():
            yield place
            place.next()


class LevelDBStore:
    """A LevelDB being written into a folder, called `name` in errors."""

    def __init__(self, folder: Path, name: Path) -> None:
        import plyvel

        self.folder, self.name = folder, name
        with _leveldb_errors(name, "is the disk full, or the folder read-only?"):
            self._database: Any = plyvel.DB(
                os.fsencode(folder), create_if_missing=True, error_if_exists=True, **WRITE_OPTIONS
            )

    def write(self, records: Sequence[tuple[bytes, bytes]]) -> None:
        """Write records in one batch."""
        with _leveldb_errors(self.name, "is the disk full?"), self._database.write_batch() as batch:
            for key, value in records:
                batch.put(key, value)

    def flush(self) -> None:
        # By hand, since all that LevelDB flushes is a further record of the log, which Caffe's has not.
        for path in self.folder.iterdir():
            if path.suffix == ".log" or path.name.startswith("MANIFEST-"):
                with path.open("rb") as file:
                    os.fsync(file.fileno())

    def close(self) -> None:
        self._database.close()


@contextmanager
def _leveldb_errors(folder: Path, hint: str) -> Iterator[None]:
    import plyvel

    try:
        yield
    except plyvel.Error as error:
        said = error.args[0].decode("utf-8", "replace") if error.args else "unknown"
        damaged = isinstance(error, plyvel.CorruptionError)
        raise DatabaseError(f"{folder}: {said}; {'make it again' if damaged else hint}") from None


def _check_files(folder: Path) -> None:
    for path in sorted(folder.iterdir()):
        if path.suffix == ".log" or path.name.startswith("MANIFEST-"):
            check = _check_log
        elif path.suffix in (".ldb", ".sst"):
            check = _check_table
        else:
            continue
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if not check(file, size):
                raise DatabaseError(
                    f"{path}: {size} bytes where more were expected; it is truncated or damaged, make "
                    "the database again"
                )


def _check_log(file: BinaryIO, size: int) -> bool:
    """Whether a log, or a manifest, ends where a record does."""
    place, open_record = 0, False
    while place < size:
        if LOG_BLOCK_BYTES - place % LOG_BLOCK_BYTES < LOG_HEAD.size:
            place += LOG_BLOCK_BYTES - place % LOG_BLOCK_BYTES
            continue
        head = os.pread(file.fileno(), LOG_HEAD.size, place)
        if len(head) < LOG_HEAD.size:
            return False
        _, length, kind = LOG_HEAD.unpack(head)
        if not WHOLE <= kind <= LAST or open_record != (kind in (MIDDLE, LAST)):
            return False
        if place % LOG_BLOCK_BYTES + LOG_HEAD.size + length > LOG_BLOCK_BYTES:
            return False
        open_record = kind in (FIRST, MIDDLE)
        place += LOG_HEAD.size + length
    return place == size and not open_record


def _check_table(file: BinaryIO, size: int) -> bool:
    """Whether a table ends with the places of two blocks that are in it."""
    footer = os.pread(file.fileno(), FOOTER_BYTES, max(size - FOOTER_BYTES, 0))
    if len(footer) < FOOTER_BYTES or not footer.endswith(FOOTER_END):
        return False
    numbers = list(_varints(footer[: -len(FOOTER_END)], 4))
    return len(numbers) == 4 and all(
        offset + length + BLOCK_TRAILER_BYTES <= size - FOOTER_BYTES for offset, length in (numbers[:2], numbers[2:])
    )


def _varints(data: bytes, count: int) -> Iterator[int]:
    """The first `count` numbers of data, seven bits a byte, the lowest first, the last byte of each below 128."""
    value = shift = 0
    for byte in data:
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            yield value
            count, value, shift = count - 1, 0, 0
            if not count:
                return
