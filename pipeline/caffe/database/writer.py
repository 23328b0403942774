"""Writing a database of Datums, byte for byte as convert_imageset does.

A key is the record's number in eight digits, "_" and the image's path; a value is a serialised Datum. Records are
committed by the thousand (caffe/tools/convert_imageset.cpp).
"""

import os
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from pipeline.base.atomic import atomic_folder
from pipeline.caffe.database.backends import WRITERS, check_backend
from pipeline.caffe.database.datum import DatabaseError
from pipeline.caffe.proto.caffe_pb2 import Datum

RECORDS_PER_COMMIT = 1000


def record_key(number: int, path: str) -> bytes:
    """The key convert_imageset gives the image at `path` (as in its list) on the list's line `number`, from 0."""
    return b"%08d_%s" % (number, os.fsencode(path))


class DatabaseWriter:
    """Writes an LMDB or LevelDB of Datums. The folder must not exist; it appears when the block ends without an error.

    backend: "lmdb" or "leveldb".

        with DatabaseWriter(path) as database:
            database.put(record_key(0, "face.png"), datum_from_image(image, label))
    """

    def __init__(self, path: Path, backend: str = "lmdb") -> None:
        check_backend(backend)
        self.path = path
        self.backend = backend
        self._pending: list[tuple[bytes, bytes]] = []
        self._last_key = b""

    def put(self, key: bytes, datum: Datum | bytes) -> None:
        """Add a record. datum: serialised already, as DatabaseReader.records() gives it, or not.

        Raises DatabaseError when its key is not above the last one, or the disk is full.
        """
        if key <= self._last_key:
            raise DatabaseError(
                f"{self.path}: key {key!r} after {self._last_key!r}, where ascending keys were "
                "expected; number the records in order"
            )
        self._last_key = key
        self._pending.append((key, datum if isinstance(datum, bytes) else datum.SerializeToString()))
        if len(self._pending) == RECORDS_PER_COMMIT:
            self._commit()

    def _commit(self) -> None:
        if self._pending:
            self._store.write(self._pending)
            self._pending.clear()

    def __enter__(self) -> Self:
        if self.path.exists():
            raise DatabaseError(f"{self.path}: exists already; remove it, or give another folder")
        with ExitStack() as stack:
            folder = stack.enter_context(atomic_folder(self.path))
            self._store = WRITERS[self.backend](folder, self.path)
            stack.callback(self._store.close)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._stack:
            if error is not None:
                raise error
            self._commit()
            self._store.flush()
