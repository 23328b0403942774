"""HDF5 files against real Caffe's: snapshots exchanged both ways, and written as it writes them."""

import functools
import shutil
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from caffe_root import CaffeRoot
from harness import Arrays, assert_agrees, deviation, make_hdf5_files
from parity import Parity
from solving import (
    HDF5_EXCHANGED,
    HDF5_RECORDED,
    SOLVERS,
    after,
    assert_trained_alike,
    recorded_solver,
    run_solver,
)

from pipeline.caffe.glog import log_file
from pipeline.caffe.hdf5.files import HDF5Reader
from pipeline.caffe.net import build_net
from pipeline.caffe.proto.caffe_pb2 import TRAIN
from pipeline.caffe.proto.files import read_solver
from pipeline.caffe.solver import Solver, get_solver, snapshot
from pipeline.caffe.solver.solve import solve
from pipeline.caffe.solver.train_log_writer import TrainingLog

WEIGHTS, STATE = "caffemodel HDF5", "solverstate HDF5"  # rows of the parity page


@pytest.fixture
def folder(training_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the solvers read, as the working folder."""
    shutil.copytree(training_folder, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def whole(training_folder: Path) -> Callable[[str], Arrays]:
    """100 iterations without a break, once for all tests that ask."""

    @functools.cache
    def train(name: str) -> Arrays:
        with chdir(training_folder):
            return run_solver(name, 100, "net.caffemodel")

    return train


def restored(name: str, state: Path) -> Solver:
    solver = get_solver(read_solver(Path(f"{name}.solver.prototxt")))
    snapshot.restore(solver, state)
    return solver


def objects(path: Path) -> dict[str, Any]:
    """All that a file holds, by its place: types, attributes, values, and the bytes at which each begins."""
    found: dict[str, Any] = {}

    def visit(name: str, item: h5py.Group | h5py.Dataset) -> None:
        found[name] = [type(item).__name__, dict(item.attrs), h5py.h5o.get_info(item.id).addr]
        if isinstance(item, h5py.Dataset):
            plist, kind = item.id.get_create_plist(), item.id.get_type()
            found[name] += [
                item.shape,
                item.maxshape,
                item.id.get_space().get_simple_extent_type(),
                kind.encode(),
                plist.get_layout(),
                plist.get_nfilters(),
                item.id.get_offset(),
                item[()].tobytes(),
            ]

    with h5py.File(path) as file:
        file.visititems(visit)
        return {"": [path.stat().st_size, dict(file.attrs)], **found}


def arrays(path: Path) -> dict[str, np.ndarray]:
    """The numbers of a file, as h5py reads them."""
    with h5py.File(path) as file:
        names: list[str] = []
        file.visit(names.append)
        return {
            name: file[name][()]
            for name in names
            if isinstance(file[name], h5py.Dataset) and file[name].dtype.kind != "S"
        }


def assert_equal(ours: Arrays, theirs: Arrays, parity: Parity, row: str, column: str) -> None:
    """Compare what two files say, or a file and who read it, and enter it."""
    assert ours.keys() == theirs.keys()
    off = max(deviation(np.asarray(ours[key]), np.asarray(theirs[key])) for key in theirs)
    parity("File formats", row, column, off)
    assert off == 0


@pytest.mark.parametrize("name", HDF5_RECORDED)
def test_resumes_a_snapshot_of_caffe(name: str, folder: Path, parity: Parity) -> None:
    caffe = recorded_solver(f"{HDF5_EXCHANGED[name]} at 100")
    resumed = run_solver(name, 50, SOLVERS / f"snapshots/{name}_iter_50.solverstate.h5")
    off = assert_trained_alike(resumed, after(caffe, 50), name)
    parity("Solvers", name.partition("_")[0], "resumes Caffe", off)


@pytest.mark.parametrize("name", HDF5_RECORDED)
def test_reads_what_caffe_wrote(name: str, folder: Path, parity: Parity) -> None:
    state = SOLVERS / f"snapshots/{name}_iter_50.solverstate.h5"
    solver = restored(name, state)
    blobs = {
        f"data/{learnable.layer}/{learnable.index}": learnable.blob.detach().numpy()
        for learnable in solver.net.learnable
    }
    theirs = arrays(state.with_name(f"{name}_iter_50.caffemodel.h5"))
    assert_equal(blobs, theirs, parity, WEIGHTS, "read from Caffe")
    said = {f"history/{index}": blob.numpy() for index, blob in enumerate(solver.history)}
    said |= {"iter": np.array([solver.iteration]), "current_step": np.array([solver.current_step])}
    assert_equal(said, arrays(state), parity, STATE, "read from Caffe")


@pytest.mark.parametrize("name", HDF5_RECORDED)
def test_writes_a_snapshot_as_caffe_lays_it_out(name: str, folder: Path, parity: Parity) -> None:
    state = SOLVERS / f"snapshots/{name}_iter_50.solverstate.h5"
    written = snapshot.save(restored(name, state), name)
    for row, ours, theirs in (
        (WEIGHTS, written.weights, state.with_name(f"{name}_iter_50.caffemodel.h5")),
        (STATE, written.state, state),
    ):
        mine, caffes = objects(ours), objects(theirs)
        assert list(mine) == list(caffes)
        for place in caffes:
            assert mine[place] == caffes[place], place
        parity("File formats", row, "objects and their places", 0)  # ours has no times of modification


def test_logs_snapshots_as_caffe(folder: Path) -> None:
    param = read_solver(Path("SGD_multistep_hdf5.solver.prototxt"))
    param.max_iter = 1
    solver = get_solver(param)
    with log_file(Path("train.log")) as logger:
        log = TrainingLog(solver, logger)
        for event in solve(solver):
            log.record(event)
    messages = [line.partition("] ")[2] for line in Path("train.log").read_text().splitlines()]
    prefix = "SGD_multistep_hdf5_iter_1"
    assert f"Snapshotting to HDF5 file {prefix}.caffemodel.h5" in messages
    assert f"Snapshotting solver state to HDF5 file {prefix}.solverstate.h5" in messages


@pytest.fixture(scope="module")
def caffes_folder(training_folder: Path) -> Any:
    """Real Caffe, in a folder with what the solvers read, and its own HDF5 snapshots of 50 iterations."""
    root = CaffeRoot.from_environment()
    if root is None:
        pytest.skip("CAFFE_ROOT is not set; docker/caffe-root.sh makes a root with real Caffe")
    with root:
        shutil.copytree(training_folder, root.folder, dirs_exist_ok=True)
        root.solve([*HDF5_EXCHANGED], 50, "net.caffemodel")
        yield root


def test_resumes_snapshots_of_live_caffe(
    folder: Path, whole: Callable[[str], Arrays], caffes_folder: CaffeRoot, parity: Parity
) -> None:
    for name in HDF5_EXCHANGED:
        resumed = run_solver(name, 50, caffes_folder.folder / f"{name}_iter_50.solverstate.h5")
        off = assert_trained_alike(resumed, after(whole(name), 50), name)
        parity("Solvers", name.partition("_")[0], "resumes Caffe", off)


def test_live_caffe_resumes_our_snapshots(
    folder: Path, whole: Callable[[str], Arrays], caffe: CaffeRoot, parity: Parity
) -> None:
    shutil.copytree(folder, caffe.folder, dirs_exist_ok=True)
    for name in HDF5_EXCHANGED:
        run_solver(name, 50, "net.caffemodel")
        for suffix in ("caffemodel.h5", "solverstate.h5"):
            shutil.copy(f"{name}_iter_50.{suffix}", caffe.folder)
    # Without an iteration it writes what it has read.
    caffe.solve([*HDF5_EXCHANGED], 0, "{}_iter_50.solverstate.h5")
    for name in HDF5_EXCHANGED:
        for row, suffix in ((WEIGHTS, "caffemodel.h5"), (STATE, "solverstate.h5")):
            path = Path(f"{name}_iter_50.{suffix}")
            assert_equal(arrays(path), arrays(caffe.folder / path), parity, row, "read by Caffe")
    for name in HDF5_EXCHANGED:
        shutil.copy(f"{name}_iter_50.solverstate.h5", caffe.folder)
    resumed = caffe.solve([*HDF5_EXCHANGED], 50, "{}_iter_50.solverstate.h5")
    for name in HDF5_EXCHANGED:
        off = assert_trained_alike(resumed[name], after(whole(name), 50), name)
        parity("Solvers", name.partition("_")[0], "Caffe resumes", off)


def test_writes_updates_as_live_caffe(folder: Path, caffe: CaffeRoot, parity: Parity) -> None:
    name = "SGD_multistep_hdf5"
    with open(f"{name}.solver.prototxt", "a") as file:
        file.write("snapshot_diff: true\n")
    shutil.copytree(folder, caffe.folder, dirs_exist_ok=True)
    caffe.solve([name], 20, "net.caffemodel")
    run_solver(name, 20, "net.caffemodel")
    path = Path(f"{name}_iter_20.caffemodel.h5")
    ours, theirs = arrays(path), arrays(caffe.folder / path)
    assert any(name.startswith("diff/") and theirs[name].any() for name in theirs)
    parity("File formats", WEIGHTS, "snapshot_diff", assert_agrees(ours, theirs, 1e-4, name))


def test_live_caffe_reads_what_our_output_layer_writes(
    caffe: CaffeRoot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parity: Parity
) -> None:
    monkeypatch.chdir(tmp_path)
    make_hdf5_files(tmp_path)
    write = Path("write.prototxt")
    write.write_text(
        'layer { name: "d" type: "HDF5Data" top: "image" top: "label" hdf5_data_param { '
        'source: "hdf5_files.txt" batch_size: 9 } }\n'
        'layer { name: "o" type: "HDF5Output" bottom: "image" bottom: "label" '
        'hdf5_output_param { file_name: "written.h5" } }'
    )
    build_net(write, TRAIN).forward()
    shutil.copy("written.h5", caffe.folder)
    (caffe.folder / "written.txt").write_text("written.h5")
    (caffe.folder / "read.prototxt").write_text(
        'layer { name: "d" type: "HDF5Data" top: "data" top: "label" hdf5_data_param { source: "written.txt" '
        "batch_size: 9 } }"
    )
    theirs = caffe.net("read.prototxt", "HDF5Data/written")
    with HDF5Reader(Path("written.h5")) as file:
        ours = {f"top/{name}": file.array(name) for name in ("data", "label")}
    assert_equal(ours, {key: theirs[key] for key in ours}, parity, "HDF5 data", "read by Caffe")


def test_live_caffe_shuffles_as_we_do(
    caffe: CaffeRoot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parity: Parity
) -> None:
    """In another order, as generators differ: a pass has every row once, its tops side by side."""
    text = (
        'layer { name: "d" type: "HDF5Data" top: "image" top: "label" hdf5_data_param { source: '
        '"hdf5_files.txt" batch_size: 9 shuffle: true } }'
    )
    monkeypatch.chdir(tmp_path)
    for folder in (tmp_path, caffe.folder):
        make_hdf5_files(folder)
        (folder / "net.prototxt").write_text(text)
    theirs = caffe.net("net.prototxt", "HDF5Data/shuffle")
    net = build_net(Path("net.prototxt"), TRAIN)
    net.forward()

    def rows(image: np.ndarray, label: np.ndarray) -> list[tuple[float, ...]]:
        return sorted((*row.ravel(), *beside.ravel()) for row, beside in zip(image, label, strict=True))

    ours = rows(*(net.blobs[name].numpy() for name in ("image", "label")))
    assert ours == rows(theirs["top/image"], theirs["top/label"])
    parity("File formats", "HDF5 data", "read from Caffe", 0)
