"""LevelDBs of Datums: what is written is read, and what is wrong is named."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import plyvel
import pytest

from pipeline.caffe.database import DatabaseError, DatabaseReader, DatabaseWriter, datum_from_image, record_key


def write(path: Path, count: int) -> Path:
    with DatabaseWriter(path, "leveldb") as database:
        for number in range(count):
            image = np.full((8, 9), number % 256, np.uint8)
            database.put(record_key(number, "a b.png"), datum_from_image(image, number))
    return path


def with_a_table(path: Path) -> Path:
    """Move the records of the log into a table, as opening it does."""
    plyvel.DB(str(path)).close()
    return path


def labels(path: Path) -> list[int]:
    with DatabaseReader(path, "leveldb") as database:
        return [datum.label for _, datum in database]


def test_reads_what_was_written_in_order(tmp_path: Path) -> None:
    path = write(tmp_path / "leveldb", 2500)
    for _ in range(2):  # from the log, and then from the table that opening has made of it
        with DatabaseReader(path, "leveldb") as database:
            assert len(database) == 2500
            assert [(key, datum.label) for key, datum in database] == [(b"%08d_a b.png" % n, n) for n in range(2500)]
            images = np.concatenate(list(database.images(300)))
        np.testing.assert_array_equal(images[:, 0, 7, 8], np.arange(2500) % 256)
    assert not list(tmp_path.glob(".*"))


def test_cycles_from_a_position(tmp_path: Path) -> None:
    with DatabaseReader(write(tmp_path / "leveldb", 5), "leveldb") as database:
        cycle = database.cycle(3)
        assert [int(key[:8]) for key, _ in cycle.take(9)] == [3, 4, 0, 1, 2, 3, 4, 0, 1]
        assert cycle.position == 2
    with (
        DatabaseReader(write(tmp_path / "empty", 0), "leveldb") as database,
        pytest.raises(DatabaseError, match="empty: no records, where images were expected"),
    ):
        database.cycle().take(1)


def test_readers_in_one_process_share_a_database(tmp_path: Path) -> None:
    path = write(tmp_path / "leveldb", 3)
    with DatabaseReader(path, "leveldb") as one:
        assert labels(path) == [0, 1, 2]
        assert len(one) == 3


def test_a_database_that_another_process_has_open(tmp_path: Path) -> None:
    path = write(tmp_path / "leveldb", 3)
    program = "import plyvel, sys; d = plyvel.DB(sys.argv[1]); print('open', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", program, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(DatabaseError, match=r"leveldb: process \d+ has it open|Resource temporarily unavailable"):
            labels(path)
        other.communicate()
    assert labels(path) == [0, 1, 2]


@contextmanager
def as_nobody() -> Iterator[None]:
    """Root may write anywhere."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_folder_that_may_not_be_written_to(open_folder: Path) -> None:
    path = write(open_folder / "leveldb", 3)
    for file in path.iterdir():
        file.chmod(0o444)
    path.chmod(0o555)
    try:
        with as_nobody(), pytest.raises(DatabaseError, match="a LevelDB is read only where its folder may be written"):
            labels(path)
    finally:
        path.chmod(0o755)


def test_what_is_no_leveldb(tmp_path: Path) -> None:
    with pytest.raises(DatabaseError, match="absent: no CURRENT inside, where a LevelDB was expected"):
        DatabaseReader(tmp_path / "absent", "leveldb")
    (tmp_path / "CURRENT").write_text("MANIFEST-000001\n")
    with pytest.raises(DatabaseError, match="MANIFEST-000001"):
        DatabaseReader(tmp_path, "leveldb")
    with pytest.raises(DatabaseError, match="backend 'rocksdb' where lmdb or leveldb was expected"):
        DatabaseReader(tmp_path, "rocksdb")
    with pytest.raises(DatabaseError, match="backend 'LMDB' where lmdb or leveldb was expected"):
        DatabaseWriter(tmp_path / "new", "LMDB")


def test_an_existing_folder_is_not_written_to(tmp_path: Path) -> None:
    path = write(tmp_path / "leveldb", 3)
    with pytest.raises(DatabaseError, match="leveldb: exists already"), DatabaseWriter(path, "leveldb"):
        pass
    assert labels(path) == [0, 1, 2]


def test_an_error_leaves_nothing(tmp_path: Path) -> None:
    datum = datum_from_image(np.zeros((2, 2), np.uint8), 0)

    def write_keys(*keys: bytes) -> None:
        with DatabaseWriter(tmp_path / "leveldb", "leveldb") as database:
            for key in keys:
                database.put(key, datum)

    with pytest.raises(DatabaseError, match="where ascending keys were expected"):
        write_keys(b"1", b"0")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kept", [0.0, 0.01, 0.3, 0.9, 0.999])
@pytest.mark.parametrize(
    ("pattern", "made"), [("*.log", write), ("*.ldb", lambda *args: with_a_table(write(*args))), ("MANIFEST-*", write)]
)
def test_a_truncated_file(tmp_path: Path, pattern: str, made: Callable[[Path, int], Path], kept: float) -> None:
    (file,) = made(tmp_path / "leveldb", 2500).glob(pattern)
    data = file.read_bytes()
    file.write_bytes(data[: max(int(len(data) * kept), 5)])
    with pytest.raises(DatabaseError, match=f"{file.name}: .* bytes where more were expected; it is truncated"):
        labels(file.parent)


def test_a_changed_byte_is_seen(tmp_path: Path) -> None:
    (file,) = with_a_table(write(tmp_path / "leveldb", 2500)).glob("*.ldb")
    data = bytearray(file.read_bytes())
    for place in (1000, len(data) // 2, len(data) - 1000, len(data) - 60):
        data[place] ^= 4
        file.write_bytes(data)
        with pytest.raises(DatabaseError, match=r"Corruption: .*; make it again"):
            labels(file.parent)
        data[place] ^= 4
    file.write_bytes(data)
    assert len(labels(file.parent)) == 2500


def test_a_table_whose_index_would_take_all_memory(tmp_path: Path) -> None:
    (file,) = with_a_table(write(tmp_path / "leveldb", 2500)).glob("*.ldb")
    data = bytearray(file.read_bytes())
    data[-48:-8] = bytes([0, 8, 0]) + b"\xff" * 8 + b"\x01" + bytes(28)  # 2^63 bytes of index
    file.write_bytes(data)
    with pytest.raises(DatabaseError, match=f"{file.name}: .* it is truncated or damaged"):
        labels(file.parent)


def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    program = (
        "import resource, sys; sys.path[:0] = sys.argv[2:]; from test_database_leveldb import Path, write; "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)); write(Path(sys.argv[1]), 2500)"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "leveldb"), str(Path(__file__).parent)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "leveldb: IO error: " in done.stderr.splitlines()[-1]
    assert done.stderr.endswith("is the disk full?\n")
    assert not list(tmp_path.iterdir())
