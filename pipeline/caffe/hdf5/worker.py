"""Reads an HDF5 file in a process of its own, which pipeline/caffe/hdf5/files.py starts and asks.

A damaged file can make the HDF5 library read wild addresses (2 of 20,000 altered copies of a small compressed file
ended its process, HDF5 2.0.0), go in circles, or ask for any amount of memory. Here that ends this process, which has
little time and memory, and not the one that trains or serves.

A request is a line of JSON, [command, [names from the root to the group or dataset]], and the answer another,
{"value": what was asked for} or {"error": reason}. "array" is answered by several: the number of bytes that follow the
line, float32 values, and 0 at the end. This file is run as a script, so it imports nothing of its package.
"""

import functools
import json
import math
import os
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import h5py
import numpy as np

MAX_VALUES = 2**31 - 1  # caffe/blob.cpp, Reshape: an int counts them
MAX_TEXT_BYTES = 1 << 16  # far above any path
MAX_SOFT_LINKS = 16  # on the way to an object, as HDF5 itself has it (H5L_NUM_LINKS)
DEFLATE_RATIO = 1032  # a deflated byte holds no more (zlib.net/zlib_tech.html); one packed by LZF holds less
SLAB_BYTES = 16 << 20
SECONDS, BYTES_PER_SECOND = 0.5, 20e6  # of CPU time: what is no circle is many times faster
SPARE_BYTES = 256 << 20


class _RefusedError(Exception):
    """What stands in the file is not what was asked for, or would do harm."""


class _File:
    def __init__(self, path: str) -> None:
        self.size = os.path.getsize(path)
        self.file = h5py.File(path, "r", locking="best-effort")

    def names(self, place: list[str]) -> list[str]:
        """What a group holds."""
        group = self.open(place)
        if not isinstance(group, h5py.Group):
            raise _RefusedError("a dataset where a group was expected")
        return list(group)

    def shape(self, place: list[str]) -> list[int]:
        """The shape of a dataset of numbers."""
        return list(self.dataset(place, (h5py.h5t.FLOAT, h5py.h5t.INTEGER)).shape)

    def integer(self, place: list[str]) -> int:
        """A dataset of one integer."""
        dataset = self.dataset(place, (h5py.h5t.INTEGER,))
        if dataset.size != 1:
            raise _RefusedError(f"shape {dataset.shape} where one integer was expected")
        self.check_size(dataset)
        value = np.empty(dataset.shape, np.int64)
        dataset.id.read(h5py.h5s.ALL, h5py.h5s.ALL, value)
        return int(value.item())

    def text(self, place: list[str]) -> str:
        """A string of fixed length."""
        dataset = self.dataset(place, (h5py.h5t.STRING,))
        if dataset.size != 1 or dataset.dtype.kind != "S" or dataset.dtype.itemsize > MAX_TEXT_BYTES:
            raise _RefusedError(f"no string of a fixed length of at most {MAX_TEXT_BYTES}, where one was expected")
        self.check_size(dataset)
        value = np.empty(dataset.shape, dataset.dtype)
        dataset.id.read(h5py.h5s.ALL, h5py.h5s.ALL, value)
        return bytes(value.item()).decode(errors="replace")

    def slabs(self, place: list[str]) -> Iterator[np.ndarray]:
        """A dataset's values as float32, some rows at a time; HDF5 itself converts them, as it does for Caffe."""
        dataset = self.dataset(place, (h5py.h5t.FLOAT, h5py.h5t.INTEGER))
        declared = self.check_size(dataset)
        if not dataset.size:
            return
        rows = dataset.shape[0] if dataset.shape else 1
        chunk = dataset.chunks[0] if dataset.chunks else 1
        step = max(1, SLAB_BYTES * rows // declared // chunk) * chunk
        bytes_per_row = 4 * dataset.size // rows
        limit(self.size + declared, 2 * min(step, rows) * bytes_per_row + 2 * declared // rows * chunk)
        for start in range(0, rows, step):
            count = (min(step, rows - start), *dataset.shape[1:])
            values = np.empty(count if dataset.shape else (), np.float32)
            if dataset.shape:
                stored, wanted = dataset.id.get_space(), h5py.h5s.create_simple(count)
                stored.select_hyperslab((start, *[0] * (len(count) - 1)), count)
                dataset.id.read(wanted, stored, values)
            else:
                dataset.id.read(h5py.h5s.ALL, h5py.h5s.ALL, values)
            yield values

    def open(self, place: list[str]) -> Any:
        """Follow names from the root; soft links lead elsewhere in the file, all others nowhere."""
        names = place[::-1]
        followed = 0
        found: Any = self.file
        while names:
            name = names.pop()
            link = found.get(name, getlink=True) if isinstance(found, h5py.Group) and "/" not in name else None
            if link is None:
                raise _RefusedError("missing, where it was expected; is it the file of another net?")
            if isinstance(link, h5py.SoftLink) and followed < MAX_SOFT_LINKS:
                followed += 1
                if link.path.startswith("/"):
                    found = self.file
                names += [part for part in link.path.split("/")[::-1] if part not in ("", ".")]
            elif isinstance(link, h5py.HardLink):
                found = found[name]
            else:
                raise _RefusedError(f"'{name}' is a link out of the file or in a circle; store it in the file")
        return found

    def dataset(self, place: list[str], classes: tuple[int, ...]) -> Any:
        """The dataset at a place, whose type is of one of HDF5's classes."""
        dataset = self.open(place)
        if not isinstance(dataset, h5py.Dataset) or dataset.shape is None:
            raise _RefusedError("no dataset, where one was expected")
        if dataset.id.get_type().get_class() not in classes:
            wanted = {h5py.h5t.FLOAT: "floating numbers", h5py.h5t.INTEGER: "integers", h5py.h5t.STRING: "a string"}
            raise _RefusedError(
                f"type {dataset.dtype} where {' or '.join(wanted[kind] for kind in classes)} was expected"
            )
        return dataset

    def check_size(self, dataset: Any) -> int:
        """The declared bytes. Refuses more than the file's can hold: they would be made up, or fill the memory."""
        plist = dataset.id.get_create_plist()
        if plist.get_layout() == h5py.h5d.VIRTUAL or plist.get_external_count():
            raise _RefusedError("its values are in other files; store them in this one")
        filters = [plist.get_filter(index)[0] for index in range(plist.get_nfilters())]
        packers = [number for number in filters if number not in (h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32)]
        if len(filters) != len(set(filters)) or len(packers) > 1:
            raise _RefusedError(f"compressed several times (filters {filters}); compress it once")
        if math.prod(length or 1 for length in dataset.shape) > MAX_VALUES:
            raise _RefusedError(f"shape {dataset.shape} where a blob has at most {MAX_VALUES} values")
        stored = min(dataset.id.get_storage_size(), self.size)
        room = stored * (DEFLATE_RATIO if packers else 1)
        item = dataset.id.get_type().get_size()
        declared = math.prod(dataset.shape) * item
        if declared and max(declared, math.prod(dataset.chunks or (0,)) * item) > room:
            raise _RefusedError(
                f"{declared} bytes of values declared where its {stored} bytes in the file hold at "
                f"most {room}; is it damaged, or was it never filled?"
            )
        return int(declared)


def limit(work: int, memory: int) -> None:
    """Let this process end when it uses more time than `work` bytes take, or more memory than `memory` bytes on top."""
    signal.setitimer(signal.ITIMER_PROF, SECONDS + work / BYTES_PER_SECOND)
    if sys.platform == "linux":
        import resource

        with open("/proc/self/statm", encoding="ascii") as file:
            now = int(file.read().split()[0]) * resource.getpagesize()
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        wanted = now + SPARE_BYTES + memory
        resource.setrlimit(resource.RLIMIT_AS, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))


def answer(replies: BinaryIO, work: Callable[[], Any]) -> None:
    """Answer with what `work` gives, or why it gives nothing."""
    # h5py raises almost any built-in exception, chosen by HDF5's error numbers.
    try:
        reply = {"value": work()}
    except _RefusedError as error:
        reply = {"error": _line(error)}
    except Exception as error:
        reply = {"error": f"not readable ({_line(error)}); is the file truncated or damaged?"}
    replies.write(json.dumps(reply).encode() + b"\n")
    replies.flush()


def _line(error: Exception) -> str:
    """What an error says, which may quote the file, in one line that is not too long."""
    return " ".join(str(error).split())[:300]


def serve(path: str, requests: BinaryIO, replies: BinaryIO) -> None:
    """Answer requests until there are none; the first answer says whether the file could be opened."""
    limit(os.path.getsize(path), 0)
    opened: list[_File] = []

    def open_file() -> None:
        opened.append(_File(path))

    def stream(place: list[str]) -> int:
        for slab in opened[0].slabs(place):
            replies.write(json.dumps({"value": slab.nbytes}).encode() + b"\n")
            replies.write(slab.data)
        return 0

    answer(replies, open_file)
    for line in requests if opened else ():
        file = opened[0]
        commands = {
            "names": file.names,
            "shape": file.shape,
            "integer": file.integer,
            "text": file.text,
            "array": stream,
        }
        command, place = json.loads(line)
        limit(file.size, 0)
        answer(replies, functools.partial(commands[command], place))


if __name__ == "__main__":
    serve(sys.argv[1], sys.stdin.buffer, sys.stdout.buffer)
