"""LMDB: its files read page by page, and written through the library as Caffe's db_lmdb.cpp does.

The library trusts a file: one flipped bit in a page number or a size makes it read beyond its map, which ends the
process, and a check of the whole file beforehand would be to read a large database twice. So the pages are walked here,
each checked when the walk comes to it. They are read with pread, whose failures are errors and not signals, so that
neither memory nor address space grows with the file.

A file has two meta pages, of which the later transaction's counts. Under its root are branch pages, then leaf pages
with nodes of a key and a value, and runs of overflow pages for values that no leaf has room for (LMDB 0.9, mdb.c; the
form of 64-bit, little-endian machines).
"""

import os
import struct
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from operator import lt
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pipeline.caffe.database.datum import DatabaseError
from pipeline.caffe.database.lock import refuse_locked

MAGIC, VERSION = 0xBEEFC0DE, 1
PAGE_HEAD = struct.Struct("<QHHHH")  # number, -, kind, lower and upper end of the free space
META = struct.Struct("<II16x48s48sQQ")  # magic, version, tree of free pages, main tree, last page, transaction
TREE = struct.Struct("<IHHQQQQQ")  # page size (of the free tree), flags, depth, 3 counts of pages, entries, root
NODE_BYTES = 8  # of its head: u16 low and high of the size, flags, size of the key; of a branch all three are the page
BRANCH, LEAF, OVERFLOW, META_PAGE = 0x01, 0x02, 0x04, 0x08
KINDS = 0x6F  # and those that only DUPSORT has
NO_PAGE = (1 << 64) - 1
IN_OVERFLOW, NAMED_DATABASE = 0x01, 0x02  # a node's flags
TREE_FLAGS = {
    0x02: "REVERSEKEY",
    0x04: "DUPSORT",
    0x08: "INTEGERKEY",
    0x10: "DUPFIXED",
    0x20: "INTEGERDUP",
    0x40: "REVERSEDUP",
}
EIGHT = np.arange(8)
PAGE_SIZES = [1 << bits for bits in range(9, 16)]
MAX_DEPTH = 32  # mdb.c, CURSOR_STACK
PIECE_BYTES = 1 << 20  # of overflow pages are read at once, or one record's if that has more
PAGES_BETWEEN = 16  # that are not asked for are read with those on both sides

INITIAL_MAP_BYTES = 1 << 20  # LMDB's default, which Caffe leaves: mdb.c, DEFAULT_MAPSIZE
LOCK_BYTES = 8192  # of lock.mdb for LMDB's 126 readers: mdb.c, mdb_env_setup_locks


class _Meta(NamedTuple):
    transaction: int
    page_size: int
    pages: int
    flags: int
    depth: int
    entries: int
    root: int


class _Leaf(NamedTuple):
    """A leaf page's nodes. values: places of the values in the page; of those in_overflow, of the numbers of pages."""

    data: bytes
    keys: list[bytes]
    values: np.ndarray
    sizes: np.ndarray
    in_overflow: np.ndarray


class LMDBFile:
    """The records of a folder's data.mdb. It takes no lock and writes nothing.

    Raises DatabaseError naming the file and the page that is damaged. Damage inside a key or a value is not seen here:
    LMDB has no checksums.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "data.mdb"
        if not self.path.is_file():
            hint = (
                "it is a LevelDB: set backend: LEVELDB"
                if (folder / "CURRENT").is_file()
                else "make it with convert_imageset"
            )
            raise DatabaseError(f"{folder}: no data.mdb inside, where an LMDB was expected; {hint}")
        refuse_locked(folder / "lock.mdb")
        try:
            self._descriptor = os.open(self.path, os.O_RDONLY)
        except OSError as error:
            raise DatabaseError(f"{self.path}: cannot be read: {error.strerror}") from None
        self._closing = weakref.finalize(self, os.close, self._descriptor)
        try:
            self._meta = self._read_meta()
            self._pages = _run_heads(self._meta.page_size)
        except BaseException:
            self.close()
            raise

    def __len__(self) -> int:
        return self._meta.entries

    def close(self) -> None:
        self._closing()

    def records(self, skip: int = 0) -> Iterator[tuple[bytes, bytes]]:
        """Keys and values in the order of the keys, the first `skip` left out without reading their values."""
        seen = 0
        last: list[bytes] = []
        for page in self._leaves(self._meta.root, 1):
            leaf = self._read_leaf(page)
            self._expect(all(map(lt, last + leaf.keys, (last + leaf.keys)[1:])), page, "ascending keys")
            last = leaf.keys[-1:]
            first = max(skip - seen, 0)
            seen += len(leaf.keys)
            self._expect(seen <= len(self), page, f"an end after {len(self)} records")
            if first < len(leaf.keys):
                for keys, values in self._pieces(page, leaf, first):
                    yield from zip(keys, values, strict=True)
        if seen != len(self):
            raise DatabaseError(
                f"{self.path}: {seen} records where {len(self)} were expected; it is damaged, make it again"
            )

    def _read_meta(self) -> _Meta:
        size = os.fstat(self._descriptor).st_size
        first = self._read_meta_page(0)
        second = self._read_meta_page(first.page_size)
        meta = max(first, second)
        expected = meta.pages * meta.page_size
        if size < expected:
            raise DatabaseError(
                f"{self.path}: {size} bytes where {expected} were expected; it is truncated, make it again"
            )
        names = [name for flag, name in TREE_FLAGS.items() if meta.flags & flag]
        if names:
            raise DatabaseError(
                f"{self.path}: a database with {' and '.join(names)}, which Caffe's have not; make it again without"
            )
        return meta

    def _read_meta_page(self, offset: int) -> _Meta:
        data = os.pread(self._descriptor, PAGE_HEAD.size + META.size, offset)
        if len(data) == PAGE_HEAD.size + META.size:
            _, _, kind, _, _ = PAGE_HEAD.unpack_from(data)
            magic, version, free, main, last_page, transaction = META.unpack_from(data, PAGE_HEAD.size)
            page_size = TREE.unpack(free)[0]
            _, flags, depth, _, _, _, entries, root = TREE.unpack(main)
            meta = _Meta(transaction, page_size, last_page + 1, flags, depth, entries, root)
            whole = (magic, version) == (MAGIC, VERSION) and kind & KINDS == META_PAGE and page_size in PAGE_SIZES
            # An empty tree has no root; a record takes at least a place of 2 bytes and its node's head.
            fits = (root, depth) == (NO_PAGE, 0) if not entries else root < meta.pages and 0 < depth <= MAX_DEPTH
            if whole and fits and entries * (2 + NODE_BYTES) <= meta.pages * page_size and offset in (0, page_size):
                return meta
        raise DatabaseError(f"{self.path}: no meta page at byte {offset}; is it a whole LMDB? make it again")

    def _expect(self, holds: bool | np.bool_, page: int, expected: str) -> None:
        if not holds:
            raise DatabaseError(
                f"{self.path}: page {page} is damaged, {expected} expected; is it a whole LMDB? make it again"
            )

    def _read(self, page: int, size: int) -> bytes:
        try:
            data = os.pread(self._descriptor, size, page * self._meta.page_size)
        except OSError as error:
            raise DatabaseError(f"{self.path}: page {page} cannot be read: {error.strerror}") from None
        self._expect(len(data) == size, page, "more of the file")
        return data

    def _read_nodes(self, page: int, kind: int) -> tuple[bytes, np.ndarray, np.ndarray]:
        """A page, the places of its nodes (N,), and the four numbers of each node's head (N, 4), all checked."""
        size = self._meta.page_size
        self._expect(1 < page < self._meta.pages, page, "a page in the file")
        data = self._read(page, size)
        number, _, kinds, lower, upper = PAGE_HEAD.unpack_from(data)
        self._expect(number == page, page, f"number {page} and not {number}")
        self._expect(kinds & KINDS == kind, page, "a branch page" if kind == BRANCH else "a leaf page")
        self._expect(PAGE_HEAD.size < lower <= upper <= size and not lower % 2, page, "nodes inside the page")
        places = np.frombuffer(data, "<u2", (lower - PAGE_HEAD.size) // 2, PAGE_HEAD.size).astype(np.int64)
        inside = places.min() >= upper and places.max() <= size - NODE_BYTES and not (places & 1).any()
        self._expect(inside, page, "nodes inside the page")
        heads = np.frombuffer(data, "<u2")[places[:, None] // 2 + np.arange(4)].astype(np.int64)
        return data, places, heads

    def _leaves(self, page: int, level: int) -> Iterator[int]:
        """Numbers of the leaf pages under a page, in their order. The root's level is 1, a leaf's the tree's depth."""
        if not len(self):
            return
        if level == self._meta.depth:
            yield page
            return
        _, _, heads = self._read_nodes(page, BRANCH)
        for child in (heads[:, :3] << [0, 16, 32]).sum(axis=1).tolist():
            yield from self._leaves(child, level + 1)

    def _read_leaf(self, page: int) -> _Leaf:
        data, places, heads = self._read_nodes(page, LEAF)
        named = (heads[:, 2] & NAMED_DATABASE).any()
        keys = places + NODE_BYTES
        values = keys + heads[:, 3]
        sizes = heads[:, 0] | heads[:, 1] << 16
        in_overflow = heads[:, 2] == IN_OVERFLOW
        ends = values + np.where(in_overflow, 8, sizes)
        self._expect(ends.max() <= len(data), page, "nodes inside the page")
        names = [data[start:end] for start, end in zip(keys.tolist(), values.tolist(), strict=True)]
        if named:
            name = names[int((heads[:, 2] & NAMED_DATABASE).argmax())].decode("utf-8", "replace")
            raise DatabaseError(
                f"{self.path}: holds a named database '{name}' where Caffe's records were expected; "
                "copy that into a database of its own"
            )
        self._expect((heads[:, 2] <= IN_OVERFLOW).all(), page, "records without duplicates")
        return _Leaf(data, names, values, sizes, in_overflow)

    def _pieces(self, page: int, leaf: _Leaf, first: int) -> Iterator[tuple[list[bytes], list[bytes]]]:
        """Keys and values of a leaf's nodes from the `first` on, as many at once as lie together."""
        changes = (np.flatnonzero(leaf.in_overflow[1:] != leaf.in_overflow[:-1]) + 1).tolist()
        for start, end in pairwise([first, *(change for change in changes if change > first), len(leaf.keys)]):
            places, sizes = leaf.values[start:end], leaf.sizes[start:end]
            if leaf.in_overflow[start]:
                for cut, other, data, values in self._read_runs(page, leaf.data, places, sizes):
                    yield leaf.keys[start + cut : start + other], _slices(data, values, sizes[cut:other])
            else:
                yield leaf.keys[start:end], _slices(leaf.data, places, sizes)

    def _read_runs(
        self, page: int, leaf: bytes, places: np.ndarray, sizes: np.ndarray
    ) -> Iterator[tuple[int, int, bytes, np.ndarray]]:
        """Runs of overflow pages whose numbers stand in a leaf, as many at once as lie together.

        Yields which of them (the first, and the one after the last), what was read, and the places of the values in it.
        """
        page_size, limit = self._meta.page_size, self._meta.pages
        numbers = np.frombuffer(leaf, np.uint8)[places[:, None] + EIGHT].view("<u8")[:, 0]
        self._expect(numbers.min() > 1 and numbers.max() < limit, page, "overflow pages in the file")
        starts = numbers.astype(np.int64)
        counts = (sizes + (PAGE_HEAD.size + page_size - 1)) // page_size
        ends = starts + counts
        self._expect(ends.max() <= limit, page, "overflow pages in the file")
        between = starts[1:] - ends[:-1]
        large = counts * page_size > PIECE_BYTES
        enough = (counts * page_size).cumsum() // PIECE_BYTES
        apart = (between < 0) | (between > PAGES_BETWEEN) | (enough[1:] != enough[:-1]) | large[1:] | large[:-1]
        cuts = np.flatnonzero(apart) + 1
        for cut, other in pairwise([0, *cuts.tolist(), len(starts)]):
            run = starts[cut:other]
            start = int(run[0])
            if other == cut + 1:  # a size is believed, and memory taken for it, only when the run's own head agrees
                self._check_heads(self._read(start, PAGE_HEAD.size), _run_heads(PAGE_HEAD.size), run, counts[cut:other])
            data = self._read(start, (int(ends[other - 1]) - start) * page_size)
            self._check_heads(data, self._pages, run, counts[cut:other])
            yield cut, other, data, (run - start) * page_size + PAGE_HEAD.size

    def _check_heads(self, data: bytes, form: np.dtype, starts: np.ndarray, counts: np.ndarray) -> None:
        heads = np.frombuffer(data, form)
        runs = starts - starts[0]
        right = heads["number"][runs] == starts
        right &= heads["kind"][runs] & KINDS == OVERFLOW
        right &= heads["pages"][runs] >= counts
        self._expect(right.all(), int(starts[right.argmin()]), "an overflow page as long as its record")


def _run_heads(size: int) -> np.dtype:
    """Records of `size` bytes that begin as an overflow page does: its number, its kind, and the pages of its run."""
    return np.dtype(
        {
            "names": ["number", "kind", "pages"],
            "formats": ["<u8", "<u2", "<u4"],
            "offsets": [0, 10, 12],
            "itemsize": size,
        }
    )


def _slices(data: bytes, places: np.ndarray, sizes: np.ndarray) -> list[bytes]:
    return [data[start:end] for start, end in zip(places.tolist(), (places + sizes).tolist(), strict=True)]


class LMDBStore:
    """An LMDB being written into a folder, called `name` in errors. Its map doubles when it is full."""

    def __init__(self, folder: Path, name: Path) -> None:
        import lmdb

        self.folder, self.name = folder, name
        # LMDB maps this file without having room for it: on a full disk its first word ends the process (SIGBUS).
        (folder / "lock.mdb").write_bytes(bytes(LOCK_BYTES))
        with _write_errors(name):
            # The folder counts only once it has its name: one flush at the end does for all commits.
            self._map_bytes = INITIAL_MAP_BYTES
            self._environment = lmdb.open(os.fsencode(folder), map_size=self._map_bytes, sync=False)

    def write(self, records: Sequence[tuple[bytes, bytes]]) -> None:
        """Write records in one transaction."""
        import lmdb

        with _write_errors(self.name):
            while True:
                # LMDB reads the pages of its tree through the map, and they stay in memory until it is mapped anew.
                self._environment.set_mapsize(self._map_bytes)
                try:
                    with self._environment.begin(write=True) as transaction:
                        for key, value in records:
                            transaction.put(key, value)
                    return
                except lmdb.MapFullError:
                    self._map_bytes *= 2

    def flush(self) -> None:
        with _write_errors(self.name):
            self._environment.sync(True)

    def close(self) -> None:
        self._environment.close()


@contextmanager
def _write_errors(name: Path) -> Iterator[None]:
    import lmdb

    try:
        yield
    except lmdb.Error as error:
        raise DatabaseError(f"{name}: {error}; is the disk full, or the folder read-only?") from None
