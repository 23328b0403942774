"""Snapshots: gone on from to the bit by every solver, and refused when they are another's."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.caffe.proto.caffe_pb2 import NetParameter, SolverParameter
from pipeline.caffe.proto.files import BinaryError, parse_text, read_binary
from pipeline.caffe.solver import SOLVERS, Solver, get_solver, snapshot
from pipeline.caffe.weights import WeightsError

NET = """
layer { name: "x" type: "DummyData" top: "x" top: "y" dummy_data_param { shape { dim: 4 dim: 2 dim: 3 dim: 5 }
  shape { dim: 4 dim: 3 } data_filler { type: "gaussian" } data_filler { type: "uniform" } } }
layer { name: "conv" type: "Convolution" bottom: "x" top: "conv" convolution_param { num_output: 3 kernel_size: 2
  weight_filler { type: "xavier" } } }
layer { name: "bn" type: "BatchNorm" bottom: "conv" top: "conv" }
layer { name: "fc" type: "InnerProduct" bottom: "conv" top: "fc" inner_product_param { num_output: 3
  weight_filler { type: "xavier" } } }
layer { name: "loss" type: "EuclideanLoss" bottom: "fc" bottom: "y" top: "loss" }
"""


def solver(name: str, fields: str = "") -> Solver:
    momentum = "" if name in ("AdaGrad", "RMSProp") else "momentum: 0.9"
    text = (
        f'type: "{name}" lr_policy: "multistep" gamma: 0.5 stepvalue: 2 base_lr: 0.01 weight_decay: 0.01 '
        f"average_loss: 2 random_seed: 3 {momentum} {fields} net_param {{ {NET} }}"
    )
    return get_solver(parse_text(text, SolverParameter, "solver"))


@pytest.mark.parametrize("name", SOLVERS)
def test_a_run_goes_on_to_the_bit(name: str, tmp_path: Path) -> None:
    whole = solver(name)
    for _ in range(3):
        whole.step()
    saved = snapshot.save(whole, str(tmp_path / "run"))
    resumed = solver(name)
    assert snapshot.restore(resumed, saved.state)
    for made in (whole, resumed):
        for _ in range(3):
            made.step()
    assert resumed.smoothed_loss() == whole.smoothed_loss()
    assert (resumed.iteration, resumed.current_step) == (6, 1)
    for ours, theirs in zip(resumed.history, whole.history, strict=True):
        assert torch.equal(ours, theirs)
    for mine, other in zip(resumed.net.learnable, whole.net.learnable, strict=True):
        assert torch.equal(mine.blob, other.blob)


def test_a_sidecar_beside_a_snapshot_that_caffe_has_written_over_is_left_aside(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = solver("SGD")
    made.step()
    saved = snapshot.save(made, str(tmp_path / "run"))
    sidecar = saved.sidecar.read_bytes()
    saved.sidecar.unlink()
    other = solver("SGD", "clip_gradients: 0.1")
    other.step()
    assert snapshot.save(other, str(tmp_path / "run")) == saved
    saved.sidecar.write_bytes(sidecar)
    resumed = solver("SGD")
    assert not snapshot.restore(resumed, saved.state)
    assert "is of other weights" in caplog.text
    assert not resumed.losses


@pytest.mark.parametrize("fields", ["", "snapshot_format: HDF5"])
@pytest.mark.parametrize("damaged", ["weights", "state"])
def test_a_file_that_is_no_longer_what_was_written_is_refused(damaged: str, fields: str, tmp_path: Path) -> None:
    made = solver("SGD", fields)
    made.step()
    saved = snapshot.save(made, str(tmp_path / "run"))
    path: Path = getattr(saved, damaged)
    content = bytearray(path.read_bytes())
    value = made.history[3] if damaged == "state" else made.net.params["fc"][0]
    place = content.find(value.detach().numpy().tobytes()[:24])
    assert place > 0
    content[place + 1] ^= 1  # a bit of a weight: it is read as another one
    path.write_bytes(content)
    resumed = solver("SGD", fields)
    before = resumed.net.params["fc"][0].detach().clone()
    with pytest.raises(BinaryError, match=f"^{path}: another sum"):
        snapshot.restore(resumed, saved.state)
    assert torch.equal(resumed.net.params["fc"][0], before)
    assert resumed.iteration == 0


def test_a_sidecar_of_before_the_states_sum_is_read(tmp_path: Path) -> None:
    made = solver("SGD")
    made.step()
    saved = snapshot.save(made, str(tmp_path / "run"))
    sidecar = json.loads(saved.sidecar.read_text())
    sidecar["form"] = 2
    del sidecar["state"]
    saved.sidecar.write_text(json.dumps(sidecar))
    assert snapshot.restore(solver("SGD"), saved.state)


def test_the_state_of_a_solver_with_other_history_is_refused(tmp_path: Path) -> None:
    saved = snapshot.save(solver("Adam"), str(tmp_path / "run"))
    with pytest.raises(WeightsError, match="14 history blobs where the solver has 7"):
        snapshot.restore(solver("SGD"), saved.state)


@pytest.mark.parametrize("name", SOLVERS)
def test_snapshot_diff_keeps_what_the_weights_lost(name: str, tmp_path: Path) -> None:
    made = solver(name, "snapshot_diff: true")
    before = [blob.detach().clone() for blob in made.net.params["conv"]]
    made.step()
    saved = snapshot.save(made, str(tmp_path / "run"))
    layers = {layer.name: layer for layer in read_binary(saved.weights, NetParameter).layer}
    for old, new, blob in zip(before, made.net.params["conv"], layers["conv"].blobs, strict=True):
        lost = (old - new.detach()).numpy().ravel()
        np.testing.assert_allclose(blob.diff, lost, rtol=1e-4, atol=1e-7)
        assert np.abs(lost).max() > 0
    assert not any(any(blob.diff) for blob in layers["bn"].blobs)


def test_gradients_are_left_out_of_a_snapshot_otherwise(tmp_path: Path) -> None:
    made = solver("Adam")
    made.step()
    weights = read_binary(snapshot.save(made, str(tmp_path / "run")).weights, NetParameter)
    assert not any(blob.diff for layer in weights.layer for blob in layer.blobs)


def test_the_whole_snapshots_of_a_prefix_are_found_oldest_first(tmp_path: Path) -> None:
    for name in (
        *("a+b_iter_9", "a+b_iter_100"),  # whole
        "aab_iter_1",  # another prefix's, though a+b as a pattern would take it
        "a+b_iter_last",
        "x_a+b_iter_2",
    ):
        (tmp_path / f"{name}.caffemodel").touch()
        (tmp_path / f"{name}.solverstate").touch()
    (tmp_path / "a+b_iter_30.caffemodel.h5").touch()
    (tmp_path / "a+b_iter_30.solverstate.h5").touch()
    (tmp_path / "a+b_iter_40.solverstate").touch()  # no weights yet
    (tmp_path / "a+b_iter_50.caffemodel").touch()  # no state yet
    (tmp_path / "a+b_iter_9.solverstate.part").touch()
    prefix = str(tmp_path / "a+b")
    found = snapshot.find_snapshots(prefix)
    assert [(each.prefix, each.iteration, each.hdf5) for each in found] == [
        (prefix, 9, False),
        (prefix, 30, True),
        (prefix, 100, False),
    ]
    found[1].remove()
    assert snapshot.find_snapshots(prefix) == [found[0], found[2]]
    assert not list(tmp_path.glob("a+b_iter_30*"))


def test_a_snapshots_files_are_named_as_caffe_names_them() -> None:
    for hdf5, suffix in ((False, ""), (True, ".h5")):
        named = snapshot.Snapshot("out/net", 1200, hdf5)
        assert named.weights == Path(f"out/net_iter_1200.caffemodel{suffix}")
        assert named.state == Path(f"out/net_iter_1200.solverstate{suffix}")
        assert named.sidecar == Path("out/net_iter_1200.resume.json")
