"""The two forms of a database: what reads and what writes each."""

from typing import Final

from pipeline.caffe.database.datum import DatabaseError
from pipeline.caffe.database.db_leveldb import LevelDBFolder, LevelDBStore
from pipeline.caffe.database.db_lmdb import LMDBFile, LMDBStore

READERS: Final[dict[str, type[LMDBFile] | type[LevelDBFolder]]] = {"lmdb": LMDBFile, "leveldb": LevelDBFolder}
WRITERS: Final[dict[str, type[LMDBStore] | type[LevelDBStore]]] = {"lmdb": LMDBStore, "leveldb": LevelDBStore}


def check_backend(backend: str) -> None:
    """Raise DatabaseError when there is no such backend."""
    if backend not in READERS:
        raise DatabaseError(f"backend '{backend}' where {' or '.join(READERS)} was expected")
