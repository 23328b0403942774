"""LMDBs of Datums: what is written is read, and what is wrong is named."""

import math
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import lmdb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from pipeline.caffe.database import (
    DatabaseError,
    DatabaseReader,
    DatabaseWriter,
    datum_from_image,
    datum_to_array,
    record_key,
)
from pipeline.caffe.proto.caffe_pb2 import Datum


def write(path: Path, count: int) -> Path:
    """`count` images of 4x3 whose pixels and label tell their number."""
    with DatabaseWriter(path) as database:
        for number in range(count):
            image = np.full((4, 3), number % 256, np.uint8)
            database.put(record_key(number, "a b.png"), datum_from_image(image, number))
    return path


def test_a_datum_is_serialised_as_caffe_does() -> None:
    datum = datum_from_image(np.arange(6, dtype=np.uint8).reshape(1, 2, 3), 5)
    # channels, height, width, data, label, and encoded although it is false.
    assert datum.SerializeToString() == bytes.fromhex("0801 1002 1803 2206 000102030405 2805 3800")


@given(
    image=arrays(np.uint8, array_shapes(min_dims=3, max_dims=3, max_side=6)),
    label=st.integers(-(2**31), 2**31 - 1),
)
def test_what_a_datum_holds_comes_back(image: np.ndarray, label: int) -> None:
    datum = Datum.FromString(datum_from_image(image, label).SerializeToString())
    assert datum.label == label
    np.testing.assert_array_equal(datum_to_array(datum, "it"), image)


@settings(max_examples=200)
@given(
    shape=st.tuples(st.integers(-2, 2**31 - 1), st.integers(-2, 4), st.integers(-2, 4)),
    data=st.binary(max_size=16),
    floats=st.lists(st.floats(width=32), max_size=4),
)
def test_a_datum_holds_as_many_values_as_its_shape_or_is_refused(
    shape: tuple[int, int, int], data: bytes, floats: list[float]
) -> None:
    datum = Datum(channels=shape[0], height=shape[1], width=shape[2], data=data, float_data=floats)
    values = list(data) or floats
    if min(shape) > 0 and math.prod(shape) == len(values):
        np.testing.assert_array_equal(datum_to_array(datum, "it"), np.array(values, np.float32).reshape(shape))
    else:
        with pytest.raises(DatabaseError, match=f"^it: {len(values)} values where shape "):
            datum_to_array(datum, "it")


def test_an_encoded_datum_is_decoded(tmp_path: Path) -> None:
    image = np.random.RandomState(0).randint(0, 256, (5, 4, 3)).astype(np.uint8)
    grey, colour = (cv2.imencode(".png", each)[1].tobytes() for each in (image[:, :, 0], image))
    np.testing.assert_array_equal(datum_to_array(Datum(data=colour, encoded=True), "it"), image.transpose(2, 0, 1))
    np.testing.assert_array_equal(datum_to_array(Datum(data=grey, encoded=True), "it"), image[None, :, :, 0])
    deep = cv2.imencode(".png", image.astype(np.uint16))[1].tobytes()
    for data in (b"", b"no image", deep):
        with pytest.raises(DatabaseError, match="it: no readable image of 8 bits"):
            datum_to_array(Datum(data=data, encoded=True), "it")


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="only Linux tells what is mapped")
def test_what_was_written_does_not_stay_in_memory(tmp_path: Path) -> None:
    with DatabaseWriter(tmp_path / "db") as database:
        for number in range(240_000):  # near the end of the map, which has become new at half of its size
            database.put(record_key(number, "a.png"), bytes(104))
        mapped = Path("/proc/self/smaps").read_text().partition(f"{tmp_path}/")[2]
        resident = int(mapped.partition("\nRss:")[2].split()[0])  # kB
    assert (tmp_path / "db/data.mdb").stat().st_size > 31_000_000
    assert resident < 1_000


def test_reads_what_was_written_in_order(tmp_path: Path) -> None:
    with DatabaseReader(write(tmp_path / "lmdb", 2500)) as database:
        assert len(database) == 2500
        for number, (key, datum) in enumerate(database):
            assert key == b"%08d_a b.png" % number
            assert datum.label == number
            assert datum.data == bytes([number % 256] * 12)
        assert number == 2499
        images = list(database.images(300))
    assert [len(batch) for batch in images] == [300] * 8 + [100]
    np.testing.assert_array_equal(np.concatenate(images)[:, 0, 0, 0], np.arange(2500) % 256)


def test_cycles_from_a_position(tmp_path: Path) -> None:
    with DatabaseReader(write(tmp_path / "lmdb", 5)) as database:
        cycle = database.cycle(3)
        taken = cycle.take(1) + cycle.take(8)
        assert [int(key[:8]) for key, _ in taken] == [3, 4, 0, 1, 2, 3, 4, 0, 1]
        assert cycle.position == 2
        assert database.cycle(5).take(1) == database.cycle().take(6)[5:]
    with (
        DatabaseReader(write(tmp_path / "empty", 0)) as database,
        pytest.raises(DatabaseError, match="empty: no records, where images were expected"),
    ):
        database.cycle().take(1)


def test_two_readers_share_a_database(tmp_path: Path) -> None:
    path = write(tmp_path / "lmdb", 3)
    with DatabaseReader(path) as other:
        with DatabaseReader(path) as one:
            assert next(iter(one))[1].label == 0
        assert [datum.label for _, datum in other] == [0, 1, 2]


def test_reading_leaves_the_folder_as_it_is(tmp_path: Path) -> None:
    path = write(tmp_path / "lmdb", 3)
    (path / "lock.mdb").unlink()
    before = (path / "data.mdb").read_bytes()
    with DatabaseReader(path) as database:
        list(database)
    assert [file.name for file in path.iterdir()] == ["data.mdb"]
    assert (path / "data.mdb").read_bytes() == before


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are any bytes on Linux alone")
@pytest.mark.parametrize("backend", ["lmdb", "leveldb"])
def test_the_folders_name_is_any_bytes(tmp_path: Path, backend: str) -> None:
    path = tmp_path / os.fsdecode(b"\xe9 \xff")
    with DatabaseWriter(path, backend) as database:
        database.put(b"key", Datum(label=3))
    with DatabaseReader(path, backend) as database:
        assert [(key, datum.label) for key, datum in database] == [(b"key", 3)]


def test_a_map_that_is_full_grows(tmp_path: Path) -> None:
    image = np.zeros((100, 1000), np.uint8)
    with DatabaseWriter(tmp_path / "lmdb") as database:
        for number in range(100):  # 10 MB in one commit, from a map of 1 MB
            database.put(record_key(number, ""), datum_from_image(image, number))
    with DatabaseReader(tmp_path / "lmdb") as database:
        assert [datum.label for _, datum in database] == list(range(100))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if (
        not shutil.which("mount")
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", disk], capture_output=True, check=False
        ).returncode
    ):
        pytest.skip("needs the right to mount a small file system")
    yield disk
    subprocess.run(["umount", disk], check=True)


WRITE = """if True:
    import sys
    from pathlib import Path
    import numpy as np
    from pipeline.caffe.database import DatabaseWriter, datum_from_image, record_key
    from pipeline.base.console import in_words
    from pipeline.base.errors import InputError
    try:
        with DatabaseWriter(Path(sys.argv[1]), sys.argv[2]) as database:
            for number in range(200):
                database.put(record_key(number, "it"), datum_from_image(np.full((48, 48), number, np.uint8), 0))
    except (InputError, OSError) as error:
        sys.exit(in_words(error))
"""


@pytest.mark.parametrize("backend", ["lmdb", "leveldb"])
@pytest.mark.parametrize("free", [0, 4096, 65536])
def test_a_full_disk_is_told(small_disk: Path, backend: str, free: int) -> None:
    """And does not end the process, as a map of a file does for which there is no room."""
    (small_disk / "other").write_bytes(bytes(256 * 1024 - free))
    command: list[str | Path] = [sys.executable, "-c", WRITE, small_disk / "database", backend]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
    assert done.stderr.startswith(f"{small_disk / 'database'}")
    assert [path.name for path in small_disk.iterdir()] == ["other"]


def test_keys_must_ascend(tmp_path: Path) -> None:
    datum = datum_from_image(np.zeros((2, 2), np.uint8), 0)

    def write_keys(*keys: bytes) -> None:
        with DatabaseWriter(tmp_path / "lmdb") as database:
            for key in keys:
                database.put(key, datum)

    for second in (b"00000001", b"00000000"):
        with pytest.raises(DatabaseError, match=f"key {second!r} after .*, where ascending keys were expected"):
            write_keys(b"00000001", second)
        assert not list(tmp_path.iterdir())


def test_an_existing_folder_is_not_written_to(tmp_path: Path) -> None:
    path = write(tmp_path / "lmdb", 3)
    with pytest.raises(DatabaseError, match="lmdb: exists already"), DatabaseWriter(path):
        pass
    with DatabaseReader(path) as database:
        assert len(database) == 3


def test_a_missing_database(tmp_path: Path) -> None:
    with pytest.raises(DatabaseError, match=r"absent: no data\.mdb inside, where an LMDB was expected"):
        DatabaseReader(tmp_path / "absent")


@pytest.mark.parametrize("size", [0, 100, 5000, 8192, 50_000, -1])
def test_a_truncated_database(tmp_path: Path, size: int) -> None:
    path = write(tmp_path / "lmdb", 2500)
    data = (path / "data.mdb").read_bytes()
    (path / "data.mdb").write_bytes(data[:size])
    with pytest.raises(DatabaseError, match="make it again"):
        DatabaseReader(path)


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "data.mdb").write_bytes(b"emotion,pixels,Usage\n" * 1000)
    with pytest.raises(DatabaseError, match="is it a whole LMDB"):
        DatabaseReader(tmp_path)


def test_a_record_that_is_no_datum(tmp_path: Path) -> None:
    with lmdb.open(str(tmp_path)) as environment, environment.begin(write=True) as transaction:
        transaction.put(b"00000000_face.png", b"\xff\xff")
    message = r"record 00000000_face\.png: not a Datum"
    with DatabaseReader(tmp_path) as database, pytest.raises(DatabaseError, match=message):
        list(database)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the question who holds a lock is Linux's")
def test_a_database_that_another_process_has_open(tmp_path: Path) -> None:
    path = write(tmp_path / "lmdb", 3)
    program = "import lmdb, sys; e = lmdb.open(sys.argv[1]); print('open', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", program, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(DatabaseError, match=f"process {other.pid} has it open; wait until that has ended"):
            DatabaseReader(path)
        other.communicate()
    with DatabaseReader(path) as database:
        assert len(database) == 3
