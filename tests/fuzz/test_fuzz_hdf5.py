"""Altered HDF5 files: an error of one line, or values of a size that the file can hold; never a crash, never for long.

FUZZ_EXAMPLES=1000 pytest tests/fuzz/test_fuzz_hdf5.py
"""

import os
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.caffe.hdf5.files import HDF5Error, HDF5Reader

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "12"))  # of each file; each starts a process
SNAPSHOTS = Path(__file__).parents[1] / "conformance/solvers/snapshots"
SECONDS = 10.0  # one, where nothing else runs
DEFLATE_RATIO = 1032


def compressed(path: Path) -> None:
    """Rows in compressed chunks, behind a checksum."""
    with h5py.File(path, "w") as file:
        rows = np.random.RandomState(0).uniform(size=(20, 3, 4))
        file.create_dataset("data", data=rows, chunks=(6, 3, 4), compression="gzip", shuffle=True, fletcher32=True)
        file["label"] = np.arange(20)


def newest_format(path: Path) -> None:
    """Rows that may grow, in the file format of today."""
    with h5py.File(path, "w", libver="latest") as file:
        rows = np.random.RandomState(0).uniform(size=(20, 3, 4)).astype(np.float32)
        file.create_dataset("data", data=rows, chunks=(6, 3, 4), maxshape=(None, 3, 4))
        file["label"] = np.arange(20)


def weights(path: Path) -> None:
    """Real Caffe's weights."""
    path.write_bytes((SNAPSHOTS / "SGD_multistep_hdf5_iter_50.caffemodel.h5").read_bytes())


def state(path: Path) -> None:
    """Real Caffe's solver state."""
    path.write_bytes((SNAPSHOTS / "SGD_multistep_hdf5_iter_50.solverstate.h5").read_bytes())


ADDRESSES = [b"\xff" * 8, b"\0" * 8, b"\xff" * 7 + b"\x7f", (1 << 31).to_bytes(8, "little")]
# Places are parts of the file's bytes that are not 0: most of a small file is room that nobody reads.
ALTERATIONS = st.one_of(
    st.tuples(st.just("flip a bit"), st.floats(0, 1), st.integers(0, 7)),
    st.tuples(st.just("set a byte"), st.floats(0, 1), st.integers(0, 255)),
    st.tuples(st.just("copy eight bytes"), st.floats(0, 1), st.floats(0, 1)),
    st.tuples(st.just("set an address"), st.floats(0, 1), st.sampled_from(ADDRESSES)),
    st.tuples(st.just("truncate"), st.floats(0, 1), st.none()),
)


def altered(content: bytes, alterations: list[tuple]) -> bytes:
    """The file's bytes after all alterations."""
    used = np.flatnonzero(np.frombuffer(content, np.uint8))
    made = bytearray(content)

    def place(part: float) -> int:
        return min(int(used[int(part * (len(used) - 1))]), len(made) - 1)

    for kind, part, value in alterations:
        at = place(part)
        if kind == "flip a bit":
            made[at] ^= 1 << value
        elif kind == "set a byte":
            made[at] = value
        elif kind == "truncate":
            del made[max(1, at) :]
        else:
            at &= ~7
            made[at : at + 8] = content[place(value) & ~7 :][:8] if kind == "copy eight bytes" else value
    return bytes(made)


def read_all(file: HDF5Reader, *place: str) -> int:
    """Read all that stands under a place, as far as it is readable; return the number of values."""
    values = 0
    for name in file.names(*place)[:30]:
        try:
            values += file.array(*place, name).size
        except HDF5Error:
            if len(place) < 3:
                values += read_all(file, *place, name)
    return values


@pytest.mark.parametrize("make", [compressed, newest_format, weights, state])
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(alterations=st.lists(ALTERATIONS, min_size=1, max_size=6))
def test_an_altered_file_is_read_or_refused(
    make: Callable[[Path], object], alterations: list[tuple], tmp_path: Path
) -> None:
    whole, path = tmp_path / "whole.h5", tmp_path / "altered.h5"
    if not whole.exists():
        make(whole)
    path.write_bytes(altered(whole.read_bytes(), alterations))
    started = time.perf_counter()
    said = f"{path}: "
    try:
        with HDF5Reader(path) as file:
            assert read_all(file) <= 100 * DEFLATE_RATIO * path.stat().st_size
    except HDF5Error as error:
        said = str(error)
    assert said.startswith(f"{path}: ")
    assert "\n" not in said
    assert time.perf_counter() - started < SECONDS


def test_what_crashes_the_library_is_an_error_here() -> None:
    with HDF5Reader(Path(__file__).with_name("crash.h5")) as file, pytest.raises(HDF5Error, match="damaged"):
        file.array("data")  # HDF5 2.0.0: a segmentation fault
