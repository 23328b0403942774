"""Databases and Datums with bytes changed, cut off or put in: all are read, or refused by a DatabaseError."""

import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
import plyvel
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.caffe.database import DatabaseError, DatabaseReader, DatabaseWriter, datum_from_image, datum_to_array
from pipeline.caffe.proto.caffe_pb2 import Datum

SECONDS = 1  # of processor an example may take
CHECKS = [HealthCheck.function_scoped_fixture]

Change = tuple[str, float, bytes]
Result = TypeVar("Result")


def changes() -> st.SearchStrategy[list[Change]]:
    """What is done to a file, one after another: "set" and "cut" at a part of it, "head" soon after a page begins."""
    values = st.one_of(
        st.binary(min_size=1, max_size=1),
        st.binary(min_size=8, max_size=8),
        st.sampled_from([b"\xff" * 2, b"\xff" * 4, b"\xff" * 8, bytes(8), b"\x80" * 8]),
    )
    kinds = st.sampled_from(["head", "head", "set", "flip", "cut"])
    return st.lists(st.tuples(kinds, st.floats(0, 1, exclude_max=True), values), min_size=1, max_size=4)


def changed(data: bytes, todo: list[Change], page: int = 4096) -> bytes:
    result = bytearray(data)
    for kind, part, value in todo:
        if not result:
            break
        place = int(part * len(result))
        if kind == "head":
            place = place // page * page + value[0] % 80
        if kind == "cut":
            del result[place:]
        elif kind == "flip" and place < len(result):
            result[place] ^= 1 << value[0] % 8
        else:
            result[place : place + len(value)] = value[: max(len(result) - place, 0)]
    return bytes(result)


def write(path: Path, backend: str) -> Path:
    random = np.random.RandomState(0)
    with DatabaseWriter(path, backend) as database:
        for number in range(200):
            side = 70 if number == 9 else 48 if number % 3 else 5
            image = random.randint(0, 256, (1, side, side)).astype(np.uint8)
            database.put(b"%08d_%d.png" % (number, number), datum_from_image(image, number))
    return path


@pytest.fixture(scope="module")
def databases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("databases")
    write(folder / "lmdb", "lmdb")
    shutil.copytree(write(folder / "log", "leveldb"), folder / "table")
    plyvel.DB(str(folder / "table")).close()  # makes a table of the log
    return folder


def outcome(act: Callable[[], Result]) -> tuple[Result | None, str]:
    """What it returns, or what its DatabaseError says; no other error is let through, and it may not take long."""
    start = time.process_time()
    try:
        return act(), ""
    except DatabaseError as error:
        return None, str(error)
    finally:
        assert time.process_time() - start < SECONDS


def read(path: Path, backend: str) -> int:
    """Read everything there is in every way; return the number of records."""
    with DatabaseReader(path, backend) as database:
        count = sum(1 for _ in database)
        if count:
            database.cycle(count // 2).take(3)
    return count


@settings(max_examples=300, deadline=None, suppress_health_check=CHECKS)
@given(todo=changes())
def test_an_lmdb(databases: Path, tmp_path: Path, todo: list[Change]) -> None:
    (tmp_path / "data.mdb").write_bytes(changed((databases / "lmdb/data.mdb").read_bytes(), todo))
    count, error = outcome(lambda: read(tmp_path, "lmdb"))
    assert count == 200 or error.startswith(str(tmp_path))


@pytest.mark.parametrize(
    ("form", "pattern"),
    [("log", "*.log"), ("log", "MANIFEST-*"), ("table", "*.ldb"), ("table", "MANIFEST-*"), ("table", "CURRENT")],
)
@settings(max_examples=40, deadline=None, suppress_health_check=CHECKS)
@given(todo=changes())
def test_a_leveldb(databases: Path, form: str, pattern: str, todo: list[Change]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "leveldb"
        shutil.copytree(databases / form, folder)
        (file,) = folder.glob(pattern)
        file.write_bytes(changed(file.read_bytes(), todo, page=32768))
        count, error = outcome(lambda: read(folder, "leveldb"))
        # A log that is cut off where a batch of records ends is a whole one.
        assert count == 200 or error.startswith(str(folder)) or (count, pattern) == (0, "*.log")


def raw() -> bytes:
    return datum_from_image(np.arange(60, dtype=np.uint8).reshape(3, 4, 5), 3).SerializeToString()


def of_floats() -> bytes:
    return Datum(channels=2, height=3, width=1, float_data=range(6), label=-1).SerializeToString()


def encoded(suffix: str) -> Callable[[], bytes]:
    image = np.random.RandomState(0).randint(0, 256, (20, 30, 3)).astype(np.uint8)
    return lambda: Datum(data=cv2.imencode(suffix, image)[1].tobytes(), encoded=True, label=1).SerializeToString()


@pytest.mark.parametrize("make", [raw, of_floats, encoded(".png"), encoded(".jpg"), encoded(".bmp")])
@settings(max_examples=80, deadline=None, suppress_health_check=CHECKS)
@given(todo=changes(), mode=st.sampled_from([-1, 0, 1]))
def test_a_datum(databases: Path, make: Callable[[], bytes], todo: list[Change], mode: int) -> None:
    with DatabaseReader(databases / "lmdb") as database:
        unpacked, error = outcome(lambda: database.unpack([(b"key", changed(make(), todo))], mode))
        if unpacked is None:
            assert error.startswith(f"{databases / 'lmdb'}: record key")
        else:
            images, labels = unpacked
            assert images[0].ndim == 3
            assert images[0].size
            assert len(labels) == 1


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=64))
def test_bytes_that_are_no_picture(data: bytes) -> None:
    image, error = outcome(lambda: datum_to_array(Datum(data=data, encoded=True), "it"))
    assert error.startswith("it: ") if image is None else image.ndim == 3
