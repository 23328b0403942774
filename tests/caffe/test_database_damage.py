"""LMDBs and Datums that no honest writer makes: an error that names the place, within a second, and no memory taken."""

import resource
import struct
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import lmdb
import numpy as np
import pytest

from pipeline.caffe.database import DatabaseError, DatabaseReader, DatabaseWriter, datum_from_image, datum_to_array
from pipeline.caffe.database.datum import MAX_PIXELS
from pipeline.caffe.proto.caffe_pb2 import Datum

PAGE = 4096
BRANCH, LEAF, OVERFLOW = 1, 2, 4


@contextmanager
def soon_and_small() -> Iterator[None]:
    """Fail when the block takes a second of processor, or much memory: of Python's and numpy's, or of the process."""
    tracemalloc.start()
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    try:
        yield
    finally:
        seconds, (_, peak) = time.process_time() - start, tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert seconds < 1
    assert peak < 32 << 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A data.mdb with every kind of page: 300 records, two of three in an overflow page, one in two of them."""
    path = tmp_path_factory.mktemp("whole") / "lmdb"
    with DatabaseWriter(path) as database:
        for number in range(300):
            shape = (80, 60) if number == 7 else (48, 48) if number % 3 else (6, 5)
            database.put(b"%08d" % number, datum_from_image(np.full(shape, number % 256, np.uint8), number))
    return (path / "data.mdb").read_bytes()


def pages(data: bytes | bytearray, kind: int) -> list[int]:
    """Numbers of the pages of a kind that are in use."""
    (root,) = struct.unpack_from("<Q", data, meta(data) + 16 + 24 + 48 + 40)
    found: dict[int, list[int]] = {BRANCH: [], LEAF: [], OVERFLOW: []}

    def visit(page: int) -> None:
        _, _, flags, lower = struct.unpack_from("<QHHH", data, page * PAGE)
        found[flags].append(page)
        for (place,) in struct.iter_unpack("<H", data[page * PAGE + 16 : page * PAGE + lower]):
            low, high, node_flags, key = struct.unpack_from("<HHHH", data, page * PAGE + place)
            if flags == BRANCH:
                visit(low | high << 16)
            elif node_flags:
                found[OVERFLOW] += struct.unpack_from("<Q", data, page * PAGE + place + 8 + key)

    visit(root)
    return found[kind]


def meta(data: bytes | bytearray) -> int:
    """Where the meta page that counts begins: the later transaction's."""
    return max((0, PAGE), key=lambda page: struct.unpack_from("<Q", data, page + 16 + 24 + 96 + 8))


def node(data: bytes | bytearray, page: int, index: int = 0) -> int:
    """Where a page's node begins."""
    return page * PAGE + struct.unpack_from("<H", data, page * PAGE + 16 + 2 * index)[0]


def put(data: bytearray, place: int, form: str, *values: int) -> None:
    struct.pack_into(f"<{form}", data, place, *values)


def set_tree(offset: int, form: str, value: int) -> Callable[[bytearray], None]:
    """Change a field of the main tree in its meta page."""
    return lambda data: put(data, meta(data) + 16 + 24 + 48 + offset, form, value)


def set_in_page(kind: int, offset: int, form: str, *values: int) -> Callable[[bytearray], None]:
    """Change the head of the last page of a kind."""
    return lambda data: put(data, pages(data, kind)[-1] * PAGE + offset, form, *values)


def set_in_node(kind: int, offset: int, form: str, *values: int) -> Callable[[bytearray], None]:
    """Change the last node of the last page of a kind."""

    def change(data: bytearray) -> None:
        page = pages(data, kind)[-1]
        (lower,) = struct.unpack_from("<H", data, page * PAGE + 12)
        put(data, node(data, page, (lower - 16) // 2 - 1) + offset, form, *values)

    return change


def branch_to_itself(data: bytearray) -> None:
    (page,) = pages(data, BRANCH)
    put(data, node(data, page), "H", page)


def branch_to_one_leaf_twice(data: bytearray) -> None:
    (page,) = pages(data, BRANCH)
    put(data, node(data, page, 1), "H", pages(data, LEAF)[0])


def overflow_in_a_leaf(data: bytearray) -> None:
    set_in_node(LEAF, 16, "Q", pages(data, LEAF)[0])(data)


def a_long_record(data: bytearray) -> None:
    """A record of 1 GB in a file that seems to have it."""
    put(data, meta(data) + 16 + 24 + 96, "Q", (1 << 30) // 2)
    set_in_node(LEAF, 0, "HHH", 0, 1 << 14, 1)(data)


DAMAGE = {
    "no magic": (lambda data: put(data, 16, "I", 0), "no meta page at byte 0"),
    "another version": (lambda data: put(data, 20, "I", 999), "no meta page at byte 0"),
    "page size 0": (lambda data: put(data, 16 + 24, "I", 0), "no meta page at byte 0"),
    "page size 2^31": (lambda data: put(data, 16 + 24, "I", 1 << 31), "no meta page at byte 0"),
    "no second meta page": (lambda data: put(data, PAGE + 16, "I", 0), "no meta page at byte 4096"),
    "duplicates": (set_tree(4, "H", 4), "a database with DUPSORT, which Caffe's have not"),
    "depth 0": (set_tree(6, "H", 0), "no meta page"),
    "depth 65535": (set_tree(6, "H", 65535), "no meta page"),
    "a depth too many": (set_tree(6, "H", 3), "page .* is damaged, a branch page expected"),
    "a depth too few": (set_tree(6, "H", 1), "page .* is damaged, a leaf page expected"),
    "2^60 records": (set_tree(32, "Q", 1 << 60), "no meta page"),
    "a record too many": (set_tree(32, "Q", 301), "300 records where 301 were expected"),
    "a record too few": (set_tree(32, "Q", 299), "page .* is damaged, an end after 299 records expected"),
    "root outside": (set_tree(40, "Q", 1 << 40), "no meta page"),
    "root a meta page": (set_tree(40, "Q", 1), "page 1 is damaged, a page in the file expected"),
    "2^60 pages": (lambda data: put(data, meta(data) + 16 + 24 + 96, "Q", 1 << 60), "bytes where .* were expected"),
    "a branch to itself": (branch_to_itself, "page .* is damaged, a leaf page expected"),
    "two ways to a leaf": (branch_to_one_leaf_twice, "page .* is damaged, ascending keys expected"),
    "a branch outside": (set_in_node(BRANCH, 0, "HHH", 9, 9, 9), "page .* is damaged, a page in the file expected"),
    "a branch just outside": (set_in_node(BRANCH, 0, "HHH", 9999, 0, 0), "page 9999 is damaged, a page in the file"),
    "another page's number": (set_in_page(LEAF, 0, "Q", 5), "page .* is damaged, number .* and not 5 expected"),
    "another kind": (set_in_page(LEAF, 10, "H", OVERFLOW), "page .* is damaged, a leaf page expected"),
    "no nodes": (set_in_page(LEAF, 12, "H", 16), "page .* is damaged, nodes inside the page"),
    "65535 nodes": (set_in_page(LEAF, 12, "HH", 65534, 65535), "page .* is damaged, nodes inside the page"),
    "half a node": (set_in_page(BRANCH, 12, "H", 19), "page .* is damaged, nodes inside the page"),
    "a node outside": (set_in_page(LEAF, 16, "H", 4094), "page .* is damaged, nodes inside the page"),
    "a node in the head": (set_in_page(LEAF, 16, "H", 2), "page .* is damaged, nodes inside the page"),
    "a long key": (set_in_node(LEAF, 6, "H", 65535), "page .* is damaged, nodes inside the page"),
    "a long value": (set_in_node(LEAF, 0, "HHH", 65535, 65535, 0), "page .* is damaged, nodes inside the page"),
    "unknown flags": (set_in_node(LEAF, 4, "H", 0x80), "page .* is damaged, records without duplicates"),
    "a 4 GB value": (set_in_node(LEAF, 0, "HHH", 65535, 65535, 1), "page .* is damaged, overflow pages in the file"),
    "a 1 GB value": (a_long_record, "is damaged|is truncated"),
    "an overflow page outside": (set_in_node(LEAF, 16, "Q", 1 << 63), "page .* is damaged, overflow pages in the file"),
    "overflow in a meta page": (set_in_node(LEAF, 16, "Q", 1), "page .* is damaged, overflow pages in the file"),
    "overflow in a leaf": (overflow_in_a_leaf, "is damaged, an overflow page as long as its record"),
    "a short run": (set_in_page(OVERFLOW, 12, "I", 0), "page .* is damaged, an overflow page as long as its record"),
}


def read(folder: Path) -> int:
    with DatabaseReader(folder) as database:
        return sum(1 for _ in database)


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_lmdb(tmp_path: Path, whole: bytes, damage: str) -> None:
    change, message = DAMAGE[damage]
    data = bytearray(whole)
    change(data)
    assert data != whole
    (tmp_path / "data.mdb").write_bytes(data)
    with soon_and_small(), pytest.raises(DatabaseError, match=f"data.mdb: .*{message}"):
        read(tmp_path)


def test_records_are_skipped_without_their_values(tmp_path: Path, whole: bytes) -> None:
    data = bytearray(whole)
    put(data, pages(data, OVERFLOW)[0] * PAGE, "Q", 0)  # of record 1
    (tmp_path / "data.mdb").write_bytes(data)
    with DatabaseReader(tmp_path) as database:
        for skip in (0, 1):
            with pytest.raises(DatabaseError, match="an overflow page as long as its record"):
                list(database.records(skip))
        for skip in (2, 3, 8, 99, 299, 300, 1000):
            keys = [int(key) for key, _ in database.records(skip)]
            assert keys == list(range(skip, 300))


def test_a_file_that_is_cut_while_it_is_read(tmp_path: Path, whole: bytes) -> None:
    (tmp_path / "data.mdb").write_bytes(whole)
    with DatabaseReader(tmp_path) as database:
        records = iter(database)
        next(records)
        (tmp_path / "data.mdb").write_bytes(whole[: len(whole) // 4])
        with pytest.raises(DatabaseError, match=r"page \d+ is damaged, more of the file expected"):
            list(records)


@pytest.mark.parametrize("value_bytes", [1, 100, 2000, 2037, 2038, 2039, 4079, 4080, 4081, 9000])
def test_reads_what_the_library_reads(tmp_path: Path, value_bytes: int) -> None:
    random = np.random.RandomState(value_bytes)
    with lmdb.open(str(tmp_path), map_size=1 << 26, sync=False) as environment:
        for _ in range(3):  # pages are freed and used again
            with environment.begin(write=True) as transaction:
                for number in random.permutation(1000):
                    size = random.randint(1, value_bytes + 1)
                    transaction.put(b"%d" % number * random.randint(1, 20), random.bytes(size))
                for number in random.permutation(1000)[:300]:
                    transaction.delete(b"%d" % number)
        with environment.begin() as transaction:
            expected = list(transaction.cursor())
    with DatabaseReader(tmp_path) as database:
        assert list(database.records()) == expected
        assert list(database.records(500)) == expected[500:]


def test_named_databases_and_duplicates(tmp_path: Path) -> None:
    with lmdb.open(str(tmp_path), max_dbs=1) as environment:
        environment.open_db(b"faces")
    with pytest.raises(DatabaseError, match="holds a named database 'faces' where Caffe's records were expected"):
        read(tmp_path)


def png_of(width: int, height: int) -> bytes:
    """The head of a PNG, and no pixels."""
    parts = ((b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(bytes(100))))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in parts
    )


def jpeg_of(width: int, height: int) -> bytes:
    """A JPEG whose head declares another size."""
    data = bytearray(cv2.imencode(".jpg", np.zeros((8, 8, 3), np.uint8))[1].tobytes())
    struct.pack_into(">HH", data, data.index(b"\xff\xc0") + 5, height, width)
    return bytes(data)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(
    "data",
    [png_of(60_000, 60_000), png_of(8193, 8192), png_of(1 << 30, 1), jpeg_of(65_500, 65_500), jpeg_of(9000, 9000)],
)
def test_a_picture_that_declares_more_than_memory_holds(data: bytes) -> None:
    datum_to_array(Datum(data=cv2.imencode(".png", np.zeros((9, 9)))[1].tobytes(), encoded=True), "it")  # imports
    with soon_and_small(), pytest.raises(DatabaseError, match=f"^it: .*{MAX_PIXELS} pixels"):
        datum_to_array(Datum(data=data, encoded=True), "it")


@pytest.mark.parametrize("shape", [(2**31 - 1,) * 3, (-(2**31),) * 3, (1, 2**31 - 1, 2**31 - 1), (0, 0, 0)])
def test_a_datum_of_an_absurd_shape(shape: tuple[int, int, int]) -> None:
    datum = Datum(channels=shape[0], height=shape[1], width=shape[2], data=b"abc")
    with soon_and_small(), pytest.raises(DatabaseError, match="it: 3 values where shape"):
        datum_to_array(datum, "it")
