"""Caffe's image databases: LMDB folders of Datums, written to the byte as convert_imageset writes them.

A key is the record's number in eight digits, "_" and the image's path; a value is a serialised Datum. Records are
committed by the thousand, and the map doubles when it is full (caffe/tools/convert_imageset.cpp, util/db_lmdb.cpp).
"""

import math
import os
import struct
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Self
from weakref import WeakValueDictionary

import lmdb
import numpy as np
from google.protobuf.message import DecodeError

from pipeline.atomic import atomic_folder
from pipeline.caffe.caffe_pb2 import Datum
from pipeline.errors import InputError
from pipeline.pictures import decode

RECORDS_PER_COMMIT = 1000
INITIAL_MAP_BYTES = 1 << 20  # LMDB's default, which Caffe leaves: mdb.c, DEFAULT_MAPSIZE

IMREAD_UNCHANGED = -1  # cv2's, which is imported only where a picture is decoded

READ_HINT = "is it a whole LMDB? make it again"
WRITE_HINT = "is the disk full, or the folder read-only?"

# LMDB must not be opened twice in one process: readers of the same file, known by device and inode, share it.
_environments: WeakValueDictionary[tuple[int, int], lmdb.Environment] = WeakValueDictionary()


class DatabaseError(InputError):
    """A database that cannot be read or written, or a record in it that is no usable Datum."""


def record_key(number: int, path: str) -> bytes:
    """The key convert_imageset gives the image at `path` (as in its list) on the list's line `number`, from 0."""
    return b"%08d_%s" % (number, os.fsencode(path))


def datum_from_image(image: np.ndarray, label: int) -> Datum:
    """Pack a (C, H, W) or (H, W) uint8 image, channels in blue, green, red order, as Caffe's CVMatToDatum does."""
    channels, height, width = image.shape if image.ndim == 3 else (1, *image.shape)
    # encoded is written although false is its default, as Caffe does.
    return Datum(channels=channels, height=height, width=width, data=image.tobytes(), label=label, encoded=False)


def datum_to_array(datum: Datum, name: str) -> np.ndarray:
    """Unpack a Datum to (C, H, W), uint8, or float32 where it holds floats; decodes an encoded image.

    Raises DatabaseError, speaking of the record as `name`, when shape and data disagree.
    """
    if datum.encoded:
        return _decode(datum.data, name)
    shape = (datum.channels, datum.height, datum.width)
    values = np.frombuffer(datum.data, np.uint8) if datum.data else np.array(datum.float_data, np.float32)
    if min(shape) < 1 or shape[0] * shape[1] * shape[2] != len(values):
        raise DatabaseError(f"{name}: {len(values)} values where shape {shape} was declared; make the database again")
    return values.reshape(shape)


def _decode(data: bytes, name: str) -> np.ndarray:
    image = decode(data, IMREAD_UNCHANGED)
    if image is None or image.dtype != np.uint8:
        raise DatabaseError(f"{name}: no readable image of 8 bits, where the Datum says encoded; make the database "
                            "again")
    return np.atleast_3d(image).transpose(2, 0, 1)


class DatabaseReader:
    """Reads an LMDB of Datums in the order of its keys; memory does not grow with its size.

    It takes no lock and writes nothing into the folder, so a database on a read-only disk does; one that another
    process has open is refused, since it may still be growing. Errors are DatabaseError.

        with DatabaseReader(path) as database:
            for key, datum in database: ...
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        file = path / "data.mdb"
        if not file.is_file():
            raise DatabaseError(f"{path}: no data.mdb inside, where an LMDB was expected; make it with the lmdb stage")
        _refuse_locked(path)
        with _lmdb_errors(path, READ_HINT):
            self._environment = _open(file)
            statistics = self._environment.stat()
            pages = self._environment.info()["last_pgno"] + 1
        # Reading a page beyond the file's end would kill the process: look before.
        size, expected = file.stat().st_size, pages * statistics["psize"]
        if size < expected:
            raise DatabaseError(f"{file}: {size} bytes where {expected} were expected; it is truncated, make it again")
        self._length: int = statistics["entries"]

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[tuple[bytes, Datum]]:
        """Every record once, with its key."""
        return ((key, self._datum(key, value)) for key, value in self._records())

    def cycle(self, position: int = 0) -> Iterator[tuple[bytes, Datum]]:
        """Records without end, from the one at `position` and over and over, as Caffe's Data layer reads them.

        Raises DatabaseError when there is none.
        """
        if not self._length:
            raise DatabaseError(f"{self.path}: no records, where images were expected; has the set any of this Usage?")
        records = self._records(position % self._length)
        while True:
            yield from ((key, self._datum(key, value)) for key, value in records)
            records = self._records()

    def images(self, count: int) -> Iterator[np.ndarray]:
        """All images, (N, C, H, W) at a time with N = `count`, less in the end; uint8, or float32 from float Datums.

        Raises DatabaseError naming the first record whose shape is not the first one's.
        """
        records = self._records()
        shape = None
        while batch := list(islice(records, count)):
            if shape is None:
                key, value = batch[0]
                shape = datum_to_array(self._datum(key, value), self.name(key)).shape
            images = _images_of_equal_form([value for _, value in batch], shape)
            yield self._images(batch, shape) if images is None else images

    def _images(self, batch: list[tuple[bytes, bytes]], shape: tuple[int, ...]) -> np.ndarray:
        images = [datum_to_array(self._datum(key, value), self.name(key)) for key, value in batch]
        for (key, _), image in zip(batch, images, strict=True):
            if image.shape != shape:
                raise DatabaseError(f"{self.name(key)}: shape {image.shape} where {shape} as in the first record was "
                                    "expected; make the database again from images of one size")
        return np.stack(images)

    def name(self, key: bytes) -> str:
        """What to call a record in an error."""
        return f"{self.path}: record {key.decode('utf-8', 'replace')}"

    def _records(self, position: int = 0) -> Iterator[tuple[bytes, bytes]]:
        with _lmdb_errors(self.path, READ_HINT), self._environment.begin() as transaction:
            yield from islice(transaction.cursor(), position, None)

    def _datum(self, key: bytes, value: bytes) -> Datum:
        try:
            return Datum.FromString(value)
        except DecodeError:
            raise DatabaseError(f"{self.name(key)}: not a Datum; make the database again") from None

    def close(self) -> None:
        del self._environment  # closed with the last reader that shares it

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _images_of_equal_form(values: list[bytes], shape: tuple[int, ...]) -> np.ndarray | None:
    """Images of Datums that differ in pixels and label alone, (N, C, H, W); None when they differ otherwise.

    That is how convert_imageset writes them: fields in the order of their numbers, each label below 128 one byte.
    Looking at a batch of them as one array is ten times as fast as parsing each.
    """
    form = datum_from_image(np.zeros(shape, np.uint8), 0).SerializeToString()
    if any(len(value) != len(form) for value in values):
        return None
    records = np.frombuffer(b"".join(values), np.uint8).reshape(len(values), len(form))
    label = len(form) - 3  # before encoded's two bytes
    start = label - 1 - math.prod(shape)  # of the pixels, before label's tag
    head, tail = np.frombuffer(form[:start], np.uint8), np.frombuffer(form[label - 1 :], np.uint8)
    differs = records[:, label - 1 :] != tail
    if (records[:, :start] != head).any() or differs[:, [0, 2, 3]].any() or (records[:, label] > 127).any():
        return None
    return records[:, start : label - 1].reshape(-1, *shape)


class DatabaseWriter:
    """Writes an LMDB of Datums. The folder must not exist; it appears when the block ends without an error.

        with DatabaseWriter(path) as database:
            database.put(record_key(0, "face.png"), datum_from_image(image, label))
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._pending: list[tuple[bytes, bytes]] = []
        self._last_key = b""

    def put(self, key: bytes, datum: Datum) -> None:
        """Add a record. Raises DatabaseError when its key is not above the last one, or the disk is full."""
        if key <= self._last_key:
            raise DatabaseError(f"{self.path}: key {key!r} after {self._last_key!r}, where ascending keys were "
                                "expected; number the records in order")
        self._last_key = key
        self._pending.append((key, datum.SerializeToString()))
        if len(self._pending) == RECORDS_PER_COMMIT:
            self._commit()

    def _commit(self) -> None:
        with _lmdb_errors(self.path, WRITE_HINT):
            while self._pending:
                try:
                    with self._environment.begin(write=True) as transaction:
                        for key, value in self._pending:
                            transaction.put(key, value)
                    self._pending.clear()
                except lmdb.MapFullError:
                    self._environment.set_mapsize(2 * self._environment.info()["map_size"])

    def __enter__(self) -> Self:
        if self.path.exists():
            raise DatabaseError(f"{self.path}: exists already; remove it, or give another folder")
        with ExitStack() as stack:
            folder = stack.enter_context(atomic_folder(self.path))
            with _lmdb_errors(self.path, WRITE_HINT):
                # The folder counts only once it has its name: one flush at the end does for all commits.
                self._environment = lmdb.open(str(folder), map_size=INITIAL_MAP_BYTES, sync=False)
            stack.callback(self._environment.close)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._stack:
            if error is not None:
                raise error
            self._commit()
            with _lmdb_errors(self.path, WRITE_HINT):
                self._environment.sync(True)


@contextmanager
def _lmdb_errors(path: Path, hint: str) -> Iterator[None]:
    try:
        yield
    except lmdb.Error as error:
        raise DatabaseError(f"{path}: {error}; {hint}") from None


def _open(file: Path) -> lmdb.Environment:
    status = file.stat()
    identity = (status.st_dev, status.st_ino)
    environment = _environments.get(identity)
    if environment is None:
        environment = lmdb.open(str(file), subdir=False, readonly=True, lock=False, create=False)
        _environments[identity] = environment
    return environment


def _refuse_locked(path: Path) -> None:
    """Raise DatabaseError when another process has the database open with LMDB's lock, as convert_imageset does."""
    if not sys.platform.startswith("linux"):
        return
    import fcntl  # not everywhere

    try:
        with open(path / "lock.mdb", "rb") as file:
            # struct flock: type, whence, start, length, pid. F_GETLK asks who stands in the way, and takes nothing.
            query = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
            answer = struct.unpack("hhqqi4x", fcntl.fcntl(file, fcntl.F_GETLK, query))
    except FileNotFoundError:
        return
    if answer[0] != fcntl.F_UNLCK:
        raise DatabaseError(f"{path}: process {answer[4]} has it open; wait until that has ended")
