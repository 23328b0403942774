"""HDF5 files as Caffe writes and reads them: groups, float datasets, integers and strings (caffe/util/hdf5.cpp).

What is written is laid out as Caffe's own files are, to the byte but for the datasets' times of modification, which
are left out: equal contents make equal files.

What is read may come from anywhere: pipeline/caffe/hdf5/worker.py reads it, in a process of its own that may fail.
Links and datasets of other files, which would open any file of the machine, are refused, and so are datasets that
declare far more values than their bytes can hold.
"""

import contextlib
import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Self, Union, cast

import numpy as np

from pipeline.base.atomic import atomic_file
from pipeline.caffe.proto.files import BinaryError

if TYPE_CHECKING:
    from io import BufferedReader

    import h5py

SIGNATURE = b"\x89HDF\r\n\x1a\n"

Tree = Mapping[str, Union["Tree", np.ndarray, str]]  # groups, datasets and strings by name


class HDF5Error(BinaryError):
    """An HDF5 file that cannot be read, or in which something is missing or not what was expected."""


def is_hdf5(path: Path) -> bool:
    """Whether a file has HDF5's signature at byte 0, 512, 1024, 2048 and so on, as H5Fis_hdf5 looks for it."""
    with open(path, "rb") as file:
        size = file.seek(0, 2)
        offset = 0
        while offset < size:
            file.seek(offset)
            if file.read(len(SIGNATURE)) == SIGNATURE:
                return True
            offset = 2 * offset or 512
    return False


def write_hdf5(path: Path, tree: Tree) -> None:
    """Write groups (mappings), float32 datasets (arrays) and strings, in their order, with Caffe's types.

    Integer arrays become int32 datasets. The file is made in memory, so that it appears whole or not at all.
    """
    with atomic_file(path) as target:
        target.write(hdf5_bytes(tree))


def hdf5_bytes(tree: Tree) -> bytes:
    """What write_hdf5() writes."""
    import h5py

    with h5py.File("memory", "w", driver="core", backing_store=False) as file:
        _write(file, tree)
        file.flush()
        image: bytes = file.id.get_file_image()
    return image


def _write(group: "h5py.Group", tree: Tree) -> None:
    import h5py

    for name, value in tree.items():
        if "/" in name or name in ("", "."):
            raise HDF5Error(f"'{name}' cannot be a name in an HDF5 file")
        if isinstance(value, Mapping):
            _write(group.create_group(name), value)
        elif isinstance(value, str):
            text = value.encode() + b"\0"
            string = h5py.h5t.C_S1.copy()  # h5py's own fixed strings do not end in a zero, which Caffe needs
            string.set_size(len(text))
            plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            plist.set_obj_track_times(False)
            dataset = h5py.h5d.create(group.id, name.encode(), string, h5py.h5s.create(h5py.h5s.SCALAR), plist)
            dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, np.array(text, f"S{len(text)}"), string)
        else:
            kind = np.int32 if np.issubdtype(value.dtype, np.integer) else np.float32
            group.create_dataset(name, data=np.asarray(value, kind), track_times=False)


class HDF5Reader:
    """Reads an HDF5 file; a group or dataset is given by the names that lead to it from the root.

        with HDF5Reader(path) as file:
            file.array("data", "conv1", "0")

    Errors are HDF5Error, and OSError where the file cannot be opened at all.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not stat.S_ISREG(path.stat().st_mode) or not is_hdf5(path):
            raise HDF5Error(f"{path}: not an HDF5 file, where one was expected; is it truncated, or of another kind?")
        # -P: beside the script stand modules with names of Python's own. A session of its own: Ctrl-C, after which a
        # training writes a snapshot, must not end it.
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(Path(__file__).with_name("worker.py")), str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
        )
        self._requests = cast("BinaryIO", self._process.stdin)
        self._answers = cast("BufferedReader", self._process.stdout)
        try:
            self._answer()
        except HDF5Error:
            self.close()
            raise

    def names(self, *place: str) -> list[str]:
        """What a group holds, alphabetically."""
        return sorted(self._ask("names", place))

    def array(self, *place: str, shape: tuple[int, ...] | None = None) -> np.ndarray:
        """A dataset of numbers, floating or integer ones of any size, as float32.

        shape: what it must have, a blob of a net; the error says so.
        """
        stored = tuple(self._ask("shape", place))
        if shape is not None and stored != shape:
            raise HDF5Error(
                f"{self.path}: /{'/'.join(place)} has shape {stored} where the net has {shape}; is it of another net?"
            )
        left = self._ask("array", place)  # before memory is taken: it has looked whether the file can hold so much
        values = np.empty(stored, np.float32)
        bytes_left = values.reshape(-1).view(np.uint8).data
        while left:
            self._answers.readinto(bytes_left[:left])  # less only where the process has ended: no answer follows
            bytes_left = bytes_left[left:]
            left = self._answer(*place)
        return values

    def integer(self, *place: str) -> int:
        """A dataset of one integer."""
        return int(self._ask("integer", place))

    def text(self, *place: str) -> str:
        """A string of fixed length."""
        return str(self._ask("text", place))

    def _ask(self, command: str, place: tuple[str, ...]) -> Any:
        with contextlib.suppress(BrokenPipeError):  # the missing answer says it
            self._requests.write(json.dumps([command, place]).encode() + b"\n")
            self._requests.flush()
        return self._answer(*place)

    def _answer(self, *place: str) -> Any:
        name = f"{self.path}: /{'/'.join(place)}" if place else str(self.path)
        line = self._answers.readline()
        if not line.endswith(b"\n"):
            code = self._process.wait()
            reason = signal.Signals(-code).name if code < 0 else f"status {code}"
            raise HDF5Error(f"{name}: the process that reads it ended with {reason}; is the file damaged?")
        answer = json.loads(line)
        if "error" in answer:
            raise HDF5Error(f"{name}: {answer['error']}")
        return answer["value"]

    def close(self) -> None:
        """End the reading process."""
        self._process.kill()
        self._process.communicate()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
