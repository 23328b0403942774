"""Reading a database of Datums, whatever its backend."""

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Self

import numpy as np

from pipeline.caffe.database.backends import READERS, check_backend
from pipeline.caffe.database.datum import (
    IMREAD_UNCHANGED,
    DatabaseError,
    datum_to_array,
    images_of_equal_form,
    parse_datum,
)
from pipeline.caffe.proto.caffe_pb2 import Datum

Record = tuple[bytes, bytes]  # key and value


class DatabaseReader:
    """Reads an LMDB or LevelDB of Datums in the order of its keys; memory does not grow with its size.

    backend: "lmdb" or "leveldb". An LMDB is neither locked nor written to, so that one on a read-only disk does; a
    LevelDB needs a folder that may be written to. One that another process has open is refused, since it may still be
    growing. Errors are DatabaseError.

        with DatabaseReader(path) as database:
            for key, datum in database: ...
    """

    def __init__(self, path: Path, backend: str = "lmdb") -> None:
        self.path = path
        check_backend(backend)
        self._store = READERS[backend](path)

    def __len__(self) -> int:
        """The number of records; a LevelDB is read through for it."""
        return len(self._store)

    def __iter__(self) -> Iterator[tuple[bytes, Datum]]:
        """Every record once, with its key."""
        return ((key, self.datum(key, value)) for key, value in self._store.records())

    def cycle(self, position: int = 0) -> "Cycle":
        """Records without end, from the one at `position` and over and over, as Caffe's Data layer reads them."""
        return Cycle(self, position)

    def records(self, skip: int = 0) -> Iterator[Record]:
        """Every record once, its value unparsed, the first `skip` left out."""
        return self._store.records(skip)

    def images(self, count: int) -> Iterator[np.ndarray]:
        """All images, (N, C, H, W) at a time with N = `count`, less in the end; uint8, or float32 from float Datums.

        Raises DatabaseError naming the first record whose shape is not the first one's.
        """
        records = self._store.records()
        shape = None
        while batch := list(islice(records, count)):
            images, _ = self.unpack(batch)
            shape = shape or images[0].shape
            for (key, _), image in zip(batch, images, strict=True):
                if image.shape != shape:
                    raise DatabaseError(
                        f"{self.name(key)}: shape {image.shape} where {shape} as in the first record "
                        "was expected; make the database again from images of one size"
                    )
            yield images if isinstance(images, np.ndarray) else np.stack(images)

    def unpack(
        self, records: Sequence[Record], mode: int = IMREAD_UNCHANGED
    ) -> tuple[np.ndarray | list[np.ndarray], np.ndarray]:
        """Images and labels (N,) of records: (N, C, H, W) of those as convert_imageset writes them, else a list.

        mode: how encoded ones are decoded, a cv2.IMREAD_ flag.
        """
        key, value = records[0]
        first = datum_to_array(self.datum(key, value), self.name(key), mode)
        alike = images_of_equal_form([value for _, value in records], first.shape)
        if alike is not None:
            return alike
        data = [self.datum(key, value) for key, value in records]
        images = [datum_to_array(datum, self.name(key), mode) for (key, _), datum in zip(records, data, strict=True)]
        return images, np.array([datum.label for datum in data])

    def name(self, key: bytes) -> str:
        """What to call a record in an error."""
        return f"{self.path}: record {key.decode('utf-8', 'replace')}"

    def datum(self, key: bytes, value: bytes) -> Datum:
        """Parse a record's value."""
        return parse_datum(value, self.name(key))

    def close(self) -> None:
        self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class Cycle:
    """A place in a database that is read over and over. position: of the next record; at the end, their number."""

    def __init__(self, reader: DatabaseReader, position: int) -> None:
        self.reader = reader
        self.position = position
        self._records = reader.records(position)

    def take(self, count: int) -> list[Record]:
        """The next `count` records. Raises DatabaseError when there is none at all."""
        batch = list(islice(self._records, count))
        self.position += len(batch)
        while len(batch) < count:
            self._records = self.reader.records()
            more = list(islice(self._records, count - len(batch)))
            if not more:
                raise DatabaseError(
                    f"{self.reader.path}: no records, where images were expected; has the set any of this Usage?"
                )
            self.position = len(more)
            batch += more
        return batch
