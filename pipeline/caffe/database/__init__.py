"""Caffe's image databases: LMDBs and LevelDBs of Datums."""

from pipeline.caffe.database.datum import DatabaseError, datum_from_image, datum_to_array
from pipeline.caffe.database.reader import DatabaseReader
from pipeline.caffe.database.writer import DatabaseWriter, record_key

__all__ = ["DatabaseError", "DatabaseReader", "DatabaseWriter", "datum_from_image", "datum_to_array", "record_key"]
