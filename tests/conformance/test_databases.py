"""Real Caffe, live, on our databases: its tools make the same bytes, it reads our records and we read its own.

What its tools answered is recorded too, in tests/recorded; how its Data layer reads our databases in cases/Data.
"""

import shutil
from pathlib import Path

import numpy as np
from caffe_root import CaffeRoot
from record_databases import caffe_answers, sha256

from pipeline.caffe.database import DatabaseReader, datum_to_array
from pipeline.mean import mean


def test_caffes_tools_write_the_same_bytes(recorded_set: Path, caffe: CaffeRoot, tmp_path: Path) -> None:
    answers = caffe_answers(caffe, recorded_set)
    for part in ("train", "val", "test"):
        assert sha256(recorded_set / f"kaggle/{part}_lmdb/data.mdb") == answers[f"{part}_lmdb/data.mdb"]
    mean(recorded_set / "kaggle/train_lmdb", tmp_path / "mean.binaryproto")
    assert sha256(tmp_path / "mean.binaryproto") == answers["mean.binaryproto"]


def test_caffe_reads_our_records(recorded_set: Path, caffe: CaffeRoot) -> None:
    shutil.copytree(recorded_set / "kaggle/val_lmdb", caffe.folder / "val_lmdb")
    theirs = caffe.database("val_lmdb")
    with DatabaseReader(recorded_set / "kaggle/val_lmdb") as database:
        ours = [(key.decode(), datum.label, datum_to_array(datum, key.decode())) for key, datum in database]
    assert ours
    assert [key for key, _, _ in ours] == theirs["keys"].tolist()
    assert [label for _, label, _ in ours] == theirs["labels"].tolist()
    assert np.array_equal(np.stack([image for _, _, image in ours]), theirs["images"])


def test_reads_encoded_records_of_caffe(recorded_set: Path, caffe: CaffeRoot) -> None:
    shutil.copytree(recorded_set / "images", caffe.folder / "images")
    shutil.copy(recorded_set / "kaggle/val.txt", caffe.folder)
    caffe.run("convert_imageset", "--gray", "--encoded", "--encode_type", "png", "images/", "val.txt", "encoded_lmdb")
    with (DatabaseReader(caffe.folder / "encoded_lmdb") as encoded,
          DatabaseReader(recorded_set / "kaggle/val_lmdb") as raw):
        assert len(encoded) == len(raw)
        for (key, datum), (raw_key, raw_datum) in zip(encoded, raw, strict=True):
            assert datum.encoded
            assert (key, datum.label) == (raw_key, raw_datum.label)
            assert np.array_equal(datum_to_array(datum, "encoded"), datum_to_array(raw_datum, "raw"))
