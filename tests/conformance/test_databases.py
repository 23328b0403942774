"""Real Caffe, live, on our databases: its tools make the same bytes, it reads our records and we read its own.

What its tools answered is recorded too, in tests/recorded; how its Data layer reads our databases in cases/Data.
"""

import shutil
from pathlib import Path

import numpy as np
import pytest
from caffe_root import CaffeRoot
from helpers.record_databases import caffe_answers, sha256
from parity import Parity

from pipeline.caffe.database import DatabaseReader, DatabaseWriter, datum_to_array
from pipeline.caffe.proto.caffe_pb2 import Datum
from pipeline.stages.mean import mean

NET = """
state {{ phase: TEST }}
layer {{ name: "data" type: "Data" top: "data" top: "label"
         data_param {{ source: "{source}" batch_size: {count} backend: {backend} }} }}
"""


def records(path: Path, backend: str = "lmdb") -> list[tuple[bytes, Datum]]:
    with DatabaseReader(path, backend) as database:
        return list(database)


def read_by_caffe(caffe: CaffeRoot, source: str, count: int, backend: str) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels as real Caffe's Data layer gives them."""
    (caffe.folder / "net.prototxt").write_text(NET.format(source=source, count=count, backend=backend))
    answer = caffe.net("net.prototxt", "databases")
    return answer["top/data"], answer["top/label"]


def listed_images(caffe: CaffeRoot, folder: Path) -> None:
    shutil.copytree(folder / "images", caffe.folder / "images")
    shutil.copy(folder / "kaggle/val.txt", caffe.folder)


def test_caffes_tools_write_the_same_bytes(
    recorded_set: Path, caffe: CaffeRoot, tmp_path: Path, parity: Parity
) -> None:
    answers = caffe_answers(caffe, recorded_set)
    for part in ("train", "val", "test"):
        assert sha256(recorded_set / f"kaggle/{part}_lmdb/data.mdb") == answers[f"{part}_lmdb/data.mdb"]
    mean(recorded_set / "kaggle/train_lmdb", tmp_path / "mean.binaryproto")
    assert sha256(tmp_path / "mean.binaryproto") == answers["mean.binaryproto"]
    parity("File formats", "LMDB", "bytes", 0)
    parity("File formats", "Datum", "bytes", 0)


def test_caffe_reads_our_records(recorded_set: Path, caffe: CaffeRoot, parity: Parity) -> None:
    shutil.copytree(recorded_set / "kaggle/val_lmdb", caffe.folder / "val_lmdb")
    theirs = caffe.database("val_lmdb")
    ours = [
        (key.decode(), datum.label, datum_to_array(datum, key.decode()))
        for key, datum in records(recorded_set / "kaggle/val_lmdb")
    ]
    assert ours
    assert [key for key, _, _ in ours] == theirs["keys"].tolist()
    assert [label for _, label, _ in ours] == theirs["labels"].tolist()
    assert np.array_equal(np.stack([image for _, _, image in ours]), theirs["images"])
    parity("File formats", "LMDB", "read by Caffe", 0)
    parity("File formats", "Datum", "read by Caffe", 0)


@pytest.mark.parametrize("backend", ["lmdb", "leveldb"])
@pytest.mark.parametrize("encode_type", ["png", "jpg"])
def test_reads_encoded_records_of_caffe(
    recorded_set: Path, caffe: CaffeRoot, parity: Parity, encode_type: str, backend: str
) -> None:
    listed_images(caffe, recorded_set)
    caffe.run(
        "convert_imageset",
        "--gray",
        "--encoded",
        "--encode_type",
        encode_type,
        "--backend",
        backend,
        "images/",
        "val.txt",
        "encoded",
    )
    raw = records(recorded_set / "kaggle/val_lmdb")
    shutil.copytree(caffe.folder / "encoded", caffe.folder / "theirs")  # a LevelDB is another one once it was open
    data, labels = read_by_caffe(caffe, "theirs", len(raw), backend.upper())
    encoded = records(caffe.folder / "encoded", backend)
    assert [key for key, _ in encoded] == [key for key, _ in raw]
    assert all(datum.encoded for _, datum in encoded)
    assert [datum.label for _, datum in encoded] == labels.tolist() == [datum.label for _, datum in raw]
    images = np.stack([datum_to_array(datum, "encoded") for _, datum in encoded])
    assert np.array_equal(images, data)
    if encode_type == "png":
        assert np.array_equal(images, np.stack([datum_to_array(datum, "raw") for _, datum in raw]))
    parity("File formats", backend.upper(), "read from Caffe", 0)
    parity("File formats", "Datum", "read from Caffe", 0)


def test_a_leveldb_is_what_convert_imageset_writes(
    recorded_set: Path, caffe: CaffeRoot, tmp_path: Path, parity: Parity
) -> None:
    listed_images(caffe, recorded_set)
    shutil.copy(recorded_set / "kaggle/train.txt", caffe.folder)  # more than one batch of records
    caffe.run("convert_imageset", "--gray", "--backend", "leveldb", "images/", "train.txt", "theirs")
    raw = records(recorded_set / "kaggle/train_lmdb")
    with DatabaseWriter(tmp_path / "ours", "leveldb") as database:
        for key, datum in raw:
            database.put(key, datum)
    names = sorted(file.name for file in (caffe.folder / "theirs").iterdir())
    assert sorted(file.name for file in (tmp_path / "ours").iterdir()) == names
    for name in names:
        if name != "LOG":  # which tells the time
            assert (tmp_path / "ours" / name).read_bytes() == (caffe.folder / "theirs" / name).read_bytes(), name
    assert records(caffe.folder / "theirs", "leveldb") == raw
    parity("File formats", "LEVELDB", "bytes", 0)


def test_caffe_reads_our_leveldb_and_we_its_tables(
    recorded_set: Path, caffe: CaffeRoot, tmp_path: Path, parity: Parity
) -> None:
    raw = records(recorded_set / "kaggle/val_lmdb")
    with DatabaseWriter(caffe.folder / "ours", "leveldb") as database:
        for key, datum in raw:
            database.put(key, datum)
    data, labels = read_by_caffe(caffe, "ours", len(raw), "LEVELDB")
    assert np.array_equal(data, np.stack([datum_to_array(datum, "raw") for _, datum in raw]))
    assert labels.tolist() == [datum.label for _, datum in raw]
    parity("File formats", "LEVELDB", "read by Caffe", 0)
    # Opening it has made a table, compressed by real Caffe's library, of the log.
    assert list((caffe.folder / "ours").glob("*.ldb"))
    assert records(caffe.folder / "ours", "leveldb") == raw
    # And the other way round: what ours has made a table of is still read there.
    caffe.run("compute_image_mean", "--backend", "leveldb", "ours", "mean.binaryproto")
    mean(recorded_set / "kaggle/val_lmdb", tmp_path / "mean.binaryproto")
    assert (caffe.folder / "mean.binaryproto").read_bytes() == (tmp_path / "mean.binaryproto").read_bytes()
    parity("File formats", "LEVELDB", "read from Caffe", 0)
