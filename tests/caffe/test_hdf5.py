"""HDF5: snapshots gone on from to the bit, rows of files, and files that are damaged or ask for too much."""

import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from pipeline.caffe.hdf5.files import HDF5Error, HDF5Reader, is_hdf5, write_hdf5
from pipeline.caffe.layers import LayerError
from pipeline.caffe.net import Net, build_net
from pipeline.caffe.proto.caffe_pb2 import TEST, TRAIN, SolverParameter
from pipeline.caffe.proto.files import BinaryError, PrototxtError, parse_text, read_weights
from pipeline.caffe.solver import SOLVERS, Solver, get_solver, snapshot
from pipeline.caffe.weights import WeightsError

NET = """
layer { name: "x" type: "DummyData" top: "x" top: "y" dummy_data_param { shape { dim: 4 dim: 2 dim: 3 dim: 5 }
  shape { dim: 4 dim: 3 } data_filler { type: "gaussian" } data_filler { type: "uniform" } } }
layer { name: "conv" type: "Convolution" bottom: "x" top: "conv" convolution_param { num_output: 3 kernel_size: 2
  weight_filler { type: "xavier" } } }
layer { name: "bn" type: "BatchNorm" bottom: "conv" top: "conv" }
layer { name: "fc" type: "InnerProduct" bottom: "conv" top: "fc" param { name: "shared" } inner_product_param {
  num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "again" type: "InnerProduct" bottom: "conv" top: "again" param { name: "shared" } inner_product_param {
  num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "scale" type: "Scale" bottom: "again" top: "scale" scale_param { axis: 0 num_axes: 0 } }
layer { name: "loss" type: "EuclideanLoss" bottom: "fc" bottom: "y" top: "loss" }
layer { name: "loss2" type: "EuclideanLoss" bottom: "scale" bottom: "y" top: "loss2" }
"""


def solver(name: str = "SGD", fields: str = "", net: str = NET, seed: int = 3) -> Solver:
    momentum = "" if name in ("AdaGrad", "RMSProp") else "momentum: 0.9"
    text = (
        f'type: "{name}" lr_policy: "multistep" gamma: 0.5 stepvalue: 2 base_lr: 0.01 average_loss: 2 '
        f"random_seed: {seed} snapshot_format: HDF5 {momentum} {fields} net_param {{ {net} }}"
    )
    return get_solver(parse_text(text, SolverParameter, "solver"))


def saved(tmp_path: Path, fields: str = "") -> snapshot.Snapshot:
    made = solver(fields=fields)
    made.step()
    return snapshot.save(made, str(tmp_path / "run"))


@pytest.mark.parametrize("name", SOLVERS)
def test_a_run_goes_on_to_the_bit(name: str, tmp_path: Path) -> None:
    whole = solver(name)
    for _ in range(3):
        whole.step()
    written = snapshot.save(whole, str(tmp_path / "run"))
    assert (written.weights.name, written.state.name) == ("run_iter_3.caffemodel.h5", "run_iter_3.solverstate.h5")
    assert snapshot.find_snapshots(str(tmp_path / "run")) == [written]
    resumed = solver(name)
    assert snapshot.restore(resumed, written.state)
    for made in (whole, resumed):
        made.step()
    assert (resumed.iteration, resumed.current_step) == (4, 1)
    assert resumed.smoothed_loss() == whole.smoothed_loss()
    for ours, theirs in zip(resumed.history, whole.history, strict=True):
        assert torch.equal(ours, theirs)
    for mine, other in zip(resumed.net.learnable, whole.net.learnable, strict=True):
        assert torch.equal(mine.blob, other.blob)
    written.remove()
    assert not list(tmp_path.iterdir())


def test_equal_snapshots_are_equal_files(tmp_path: Path) -> None:
    first = saved(tmp_path).weights.read_bytes()
    time.sleep(1.1)  # HDF5 counts times in seconds
    assert saved(tmp_path).weights.read_bytes() == first


def test_shared_blobs_are_saved_once_but_their_updates_with_each(tmp_path: Path) -> None:
    with h5py.File(saved(tmp_path, "snapshot_diff: true").weights) as file:
        assert [*file["data/fc"]] == ["0", "1"]
        assert [*file["data/again"]] == ["1"]
        assert [*file["data/loss"]] == []
        assert [*file["diff/again"]] == ["0", "1"]
        assert np.abs(file["diff/fc/0"]).max() > 0
        assert np.array_equal(file["diff/fc/0"], file["diff/again/0"])
        assert file["data/scale/0"].shape == ()


def test_weights_start_a_net_in_either_format(tmp_path: Path) -> None:
    made = solver().net
    made.save(tmp_path / "binary")
    made.save_hdf5(tmp_path / "hdf5")  # told by its first bytes, not by its name
    for name in ("binary", "hdf5"):
        started = solver(fields=f'weights: "{tmp_path / name}"', seed=4).net
        for layer, blobs in made.params.items():
            for blob, started_blob in zip(blobs, started.params[layer], strict=True):
                assert torch.equal(blob, started_blob)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda data: data.pop("fc"), None),
        (lambda data: data.update(other=data["fc"]), None),
        (lambda data: data["fc"].pop("0"), "layer 'fc' has 1 blobs where the net has 2, without number 0;"),
        (lambda data: data["fc"].update({"2": np.zeros(3)}), "layer 'fc' has 3 blobs where the net has 2;"),
        (lambda data: data.update(x={"0": np.zeros(3)}), "layer 'x' has 1 blobs where the net has 0;"),
        (lambda data: data["fc"].update({"0": np.zeros((1, 1, 3, 24))}), r"/data/fc/0 has shape \(1, 1, 3, 24\)"),
        (lambda data: data["fc"].update({"0": "text"}), "/data/fc/0: type"),
        (lambda data: data.update(fc=np.zeros(3)), "/data/fc: a dataset where a group"),
        (lambda data: data.clear(), "none of its layers is one of net"),
    ],
)
def test_weights_of_another_net_are_refused_as_caffe_refuses_them(
    tmp_path: Path, change: Any, said: str | None
) -> None:
    net = solver().net
    data: dict[str, Any] = net.to_hdf5()
    change(data)
    write_hdf5(tmp_path / "changed.h5", {"data": data})
    if said is None:
        net.copy_from(tmp_path / "changed.h5")
        return
    with pytest.raises((WeightsError, HDF5Error), match=said):
        net.copy_from(tmp_path / "changed.h5")


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("SGD", {"history": {}}, "0 history blobs where the solver has 9"),
        ("Adam", {}, "9 history blobs where the solver has 18"),
        ("SGD", {"iter": np.zeros(2, int)}, r"/iter: shape \(2,\) where one integer"),
        ("SGD", {"iter": np.zeros(1)}, "/iter: type float32 where integers"),
        ("SGD", {"learned_net": np.zeros(1)}, "/learned_net: type float32 where a string"),
        ("SGD", {"current_step": None}, "/current_step: missing"),
    ],
)
def test_the_state_of_another_solver_is_refused(tmp_path: Path, name: str, change: Any, said: str) -> None:
    state = saved(tmp_path).state
    with HDF5Reader(state) as file:
        tree: dict[str, Any] = {
            "iter": np.array([1]),
            "current_step": np.array([0]),
            "learned_net": file.text("learned_net"),
            "history": {index: file.array("history", index) for index in file.names("history")},
        } | change
    write_hdf5(state, {key: value for key, value in tree.items() if value is not None})
    with pytest.raises((WeightsError, HDF5Error), match=said):
        snapshot.restore(solver(name), state)


@pytest.mark.parametrize(
    ("name", "said"),
    [("inception/1x1", "HDF5 takes no '/'"), (".", "HDF5 takes no '/'"), ("fc", "another layer has this name")],
)
def test_names_that_hdf5_cannot_hold_are_refused_before_the_training(name: str, said: str) -> None:
    renamed = NET.replace('name: "again"', f'name: "{name}"')
    with pytest.raises(LayerError, match=f"layer '{name}': {said}"):
        solver(net=renamed)


# HDF5Data and HDF5Output


def rows(folder: Path, *counts: int, name: str = "rows", start: int = 0) -> Path:
    """Files of so many rows, numbered through: the number as the label, and twice in the data; a list of them."""
    files = []
    for index, count in enumerate(counts):
        numbers = np.arange(start, start + count, dtype=np.float32)
        files.append(folder / f"{name}{index}.h5")
        write_hdf5(files[-1], {"data": np.stack([numbers, numbers], axis=1), "label": numbers})
        start += count
    listed = folder / f"{name}.txt"
    listed.write_text("\n".join(map(str, files)))
    return listed


def data_net(source: Path, batch: int, more: str = "", layer: str = "", tops: str = 'top: "data" top: "label"') -> Net:
    path = source.with_name("net.prototxt")
    path.write_text(
        f'layer {{ name: "rows" type: "HDF5Data" {tops} {layer} hdf5_data_param {{ source: "{source}" '
        f"batch_size: {batch} {more} }} }}"
    )
    return build_net(path, TRAIN, seed=1)


def labels(net: Net) -> list[float]:
    net.forward()
    assert torch.equal(net.blobs["data"], net.blobs["label"][:, None].expand(-1, 2))
    return net.blobs["label"].tolist()


def test_a_pass_runs_over_all_files_and_begins_again(tmp_path: Path) -> None:
    net = data_net(rows(tmp_path, 3, 2), 4)
    assert [labels(net) for _ in range(3)] == [[0, 1, 2, 3], [4, 0, 1, 2], [3, 4, 0, 1]]


@pytest.mark.parametrize("counts", [(7,), (4, 5)])
def test_shuffled_passes_have_every_row_once_each_in_another_order(tmp_path: Path, counts: tuple[int, ...]) -> None:
    total = sum(counts)
    net = data_net(rows(tmp_path, *counts), total, "shuffle: true")
    passes = [labels(net) for _ in range(5)]
    for one in passes:
        assert Counter(one) == Counter(range(total))
    assert len({tuple(one) for one in passes}) == 5
    firsts = {tuple(sorted(one[: counts[0]])) for one in passes}
    assert len(firsts) > (len(counts) > 1)  # files change places too


@pytest.mark.parametrize("more", ["", "shuffle: true"])
def test_reading_goes_on_where_it_stood(tmp_path: Path, more: str) -> None:
    source = rows(tmp_path, 4, 5)
    whole = data_net(source, 5, more)
    for _ in range(2):
        whole.forward()
    resumed = data_net(source, 5, more)
    resumed.restore(whole.state())
    assert [labels(resumed) for _ in range(2)] == [labels(whole) for _ in range(2)]


def test_numbers_beyond_float32_are_infinite_as_in_caffe(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "rows0.h5", "w") as file:
        file["data"] = np.array([1e300, -1e300, np.nan, 1e-320])
    (tmp_path / "rows.txt").write_text(str(tmp_path / "rows0.h5"))
    net = data_net(tmp_path / "rows.txt", 4, tops='top: "data"')
    np.testing.assert_array_equal(net.forward()["data"], np.array([np.inf, -np.inf, np.nan, 0], np.float32))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"batch": 0}, "batch_size 0"),
        ({"batch": 2**31}, "batch_size 2147483648"),
        ({"layer": "transform_param { scale: 2 }"}, "transform_param is given"),
        ({"tops": 'top: "data" top: "other"'}, "/other: missing"),
        ({"tops": 'top: "data" top: "a/b"'}, "/a/b: missing"),
        ({"tops": 'top: "data" top: "word"'}, "/word: type .* where floating numbers or integers"),
        ({"tops": 'top: "data" top: "flag"'}, "/flag: type bool"),
        ({"tops": 'top: "data" top: "one"'}, r"/one has shape \(\) where some rows"),
        ({"tops": 'top: "data" top: "short"'}, r"/short has shape \(2,\) where some rows"),
        ({"tops": 'top: "none"'}, r"/none has shape \(0, 3\) where some rows"),
    ],
)
def test_rows_that_caffe_refuses_are_refused(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    source = rows(tmp_path, 3)
    with h5py.File(tmp_path / "rows0.h5", "a") as file:
        file["word"], file["flag"], file["one"] = np.bytes_(b"abc"), np.ones(3, bool), 1.0
        file["short"], file["none"] = np.zeros(2), np.zeros((0, 3))
    with pytest.raises((PrototxtError, HDF5Error), match=said):
        data_net(source, **{"batch": 2} | changes)


def test_lists_and_later_files_that_are_none_are_named(tmp_path: Path) -> None:
    source = rows(tmp_path, 2, 2)
    write_hdf5(tmp_path / "rows1.h5", {"data": np.zeros((2, 3)), "label": np.zeros(2)})
    net = data_net(source, 1)
    net.forward()
    with pytest.raises(HDF5Error, match=r"rows1\.h5: rows of shapes .*\(3,\).* where .*\(2,\).* as in the first"):
        net.forward()
    source.write_text(" \n")
    with pytest.raises(HDF5Error, match=r"rows\.txt: names no file"):
        data_net(source, 1)
    source.write_text("# rows0.h5")
    with pytest.raises(FileNotFoundError):
        data_net(source, 1)


def output_net(folder: Path, name: str, data: str = "dim: 2 dim: 3", label: str = "dim: 2") -> Net:
    path = folder / "net.prototxt"
    path.write_text(
        f'layer {{ name: "in" type: "Input" top: "data" top: "label" input_param {{ shape {{ {data} }} '
        f'shape {{ {label} }} }} }}\nlayer {{ name: "out" type: "HDF5Output" bottom: "data" '
        f'bottom: "label" hdf5_output_param {{ file_name: "{folder / name}" }} }}'
    )
    return build_net(path, TEST)


def test_one_forward_pass_is_written_with_four_axes(tmp_path: Path) -> None:
    net = output_net(tmp_path, "out.h5")
    assert not (tmp_path / "out.h5").exists()
    data = np.arange(6, dtype=np.float32).reshape(2, 3)
    net.forward(data=data, label=np.ones(2))
    with HDF5Reader(tmp_path / "out.h5") as file:
        assert np.array_equal(file.array("data"), data.reshape(2, 3, 1, 1))
        assert file.array("label").shape == (2, 1, 1, 1)
    with pytest.raises(LayerError, match="layer 'out': a second forward pass"):
        net.forward(data=data, label=np.ones(2))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"data": "dim: 3 dim: 3"}, "as many rows in both"),
        ({"data": "dim: 2 dim: 1 dim: 1 dim: 1 dim: 1"}, "at most four axes"),
        ({"name": "no/out.h5"}, "no file that can be written"),
        ({"name": ""}, "no file that can be written"),
    ],
)
def test_what_cannot_be_written_is_said_as_the_net_is_built(tmp_path: Path, changes: dict[str, str], said: str) -> None:
    with pytest.raises(PrototxtError, match=f":2: layer 'out': .*{said}"):
        output_net(tmp_path, **{"name": "out.h5"} | changes)


# Files that come from anywhere


def refused(path: Path, *place: str) -> str:
    """What is said of a file, in less than a second, without it having taken memory here."""
    started = time.perf_counter()
    with pytest.raises(HDF5Error) as caught, HDF5Reader(path) as file:
        file.array(*place or ("data",))
    assert time.perf_counter() - started < 5  # a second alone; tests share the machine
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_no_hdf5_file_is_said(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    for content in (b"", b"\x89HDF", b"text" * 1000):
        path.write_bytes(content)
        assert not is_hdf5(path)
        assert "not an HDF5 file" in refused(path)
    assert "not an HDF5 file" in refused(tmp_path)
    with pytest.raises(BinaryError):
        read_weights(path)


def test_truncated_files_are_said(tmp_path: Path) -> None:
    rows(tmp_path, 500)
    whole = (tmp_path / "rows0.h5").read_bytes()
    path = tmp_path / "cut.h5"
    for length in (8, 96, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        assert "truncated" in refused(path)


def test_a_user_block_may_stand_before(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w", userblock_size=1024) as file:
        file["data"] = np.arange(3)
    with HDF5Reader(tmp_path / "x.h5") as file:
        assert file.array("data").tolist() == [0, 1, 2]


def test_links_lead_nowhere_but_within_the_file(tmp_path: Path) -> None:
    write_hdf5(tmp_path / "secret.h5", {"data": np.ones(3)})
    (tmp_path / "secret.bin").write_bytes(bytes(100))
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file["group/values"] = np.arange(3)
        file["soft"] = h5py.SoftLink("/group/./values")
        file["group/relative"] = h5py.SoftLink("values")
        file["circle"] = h5py.SoftLink("/circle")
        file["outside"] = h5py.ExternalLink(str(tmp_path / "secret.h5"), "/data")
        file["through"] = h5py.SoftLink("/outside")
        file.create_dataset("stored", (10,), "f4", external=[(str(tmp_path / "secret.bin"), 0, 40)])
        layout = h5py.VirtualLayout((3,), "f4")
        layout[:] = h5py.VirtualSource(str(tmp_path / "secret.h5"), "data", (3,))
        file.create_virtual_dataset("virtual", layout)
    with HDF5Reader(path) as file:
        assert file.array("soft").tolist() == file.array("group", "relative").tolist() == [0, 1, 2]
    for name in ("circle", "outside", "through"):
        assert "a link out of the file or in a circle" in refused(path, name)
    for name in ("stored", "virtual"):
        assert "its values are in other files" in refused(path, name)


def test_no_memory_is_taken_for_what_a_file_cannot_hold(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("data", (2**28, 7), "f4")  # never filled
        file.create_dataset("chunked", (2**28,), "f4", chunks=(2**20,), compression="gzip")
        file.create_dataset("too many", (2**31,), "i1", chunks=(2**20,), compression="gzip")
        twice = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        twice.set_chunk((2**20,))
        for _ in range(2):
            twice.set_deflate(9)
        space = h5py.h5s.create_simple((2**20,))
        dataset = h5py.h5d.create(file.id, b"twice", h5py.h5t.NATIVE_FLOAT, space, twice)
        dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, np.zeros(2**20, np.float32))
        wide = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        wide.set_chunk((2**29,))
        h5py.h5d.create(file.id, b"wide", h5py.h5t.NATIVE_FLOAT, h5py.h5s.create_simple((4,), (2**29,)), wide)
    for name in ("data", "chunked", "wide"):
        assert "bytes of values declared where its 0 bytes in the file hold at most 0" in refused(path, name)
    assert "at most 2147483647 values" in refused(path, "too many")
    assert "compressed several times" in refused(path, "twice")


@pytest.mark.parametrize(
    ("work", "ended"), [("while True: pass", -signal.SIGPROF), ("bytearray(1 << 30)", 1), ("bytearray(1 << 20)", 0)]
)
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux limits a process's memory")
def test_the_reading_process_has_little_time_and_memory(work: str, ended: int) -> None:
    code = f"from pipeline.caffe.hdf5.worker import limit\nlimit(0, 0)\n{work}"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == ended


def test_deep_groups_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    depth = 3000
    with h5py.File(path, "w") as file:
        group = file
        for _ in range(depth):
            group = group.create_group("g")
        group["data"] = np.arange(3)
    with HDF5Reader(path) as file:
        assert file.names() == ["g"]
        assert file.array(*["g"] * depth, "data").tolist() == [0, 1, 2]


def test_large_datasets_are_read_in_slabs(tmp_path: Path) -> None:
    values = np.arange(2**20 * 3, dtype=np.float64).reshape(-1, 3)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["plain"] = values
        file.create_dataset("chunked", data=values, chunks=(70_000, 2), compression="gzip", compression_opts=1)
        file["wide"] = values.reshape(1, -1)
    with HDF5Reader(tmp_path / "x.h5") as file:
        for name in ("plain", "chunked", "wide"):
            assert np.array_equal(file.array(name), values.reshape(file.array(name).shape).astype(np.float32))
