"""Nets drawn from seeds: blobs, gradients, three updates and ONNX, beside real Caffe where it is."""

import shutil
import types
from contextlib import chdir
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from caffe_root import CaffeRoot
from harness import assert_agrees, draw_parameters, make_databases, run_net, split_answers
from onnx_runtime import deploy_net, run_model
from parity import Parity
from random_nets import RandomNet, random_net
from solving import run_solver
from test_pycaffe import recorder
from values import Values

from pipeline.caffe.net import Net
from pipeline.caffe.onnx import to_onnx
from pipeline.caffe.proto.caffe_pb2 import TRAIN
from pipeline.caffe.proto.files import read_net

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["recorder"]

NETS = [random_net(number) for number in range(40)]
STEPS = 3
TOLERANCE = 5e-5  # several layers' rounding
UPDATES = 1e-4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the nets read: prototxts, weights and databases."""
    made = tmp_path_factory.mktemp("nets")
    make_databases(made)
    (made / "cases/random").mkdir(parents=True)
    with chdir(made):
        for net in NETS:
            name = f"net{net.number}"
            Path(f"cases/random/{name}.prototxt").write_text(net.case)
            Path(f"{name}.train.prototxt").write_text(net.trained)
            Path(f"{name}.solver.prototxt").write_text(net.solver)
            built = Net(read_net(Path(f"{name}.train.prototxt")), TRAIN)
            draw_parameters(built, Values(_case(net), ""))
            built.save(Path(f"{name}.caffemodel"))
    return made


def _case(net: RandomNet) -> str:
    return f"random/net{net.number}"


def _onnx_answer(folder: Path, net: RandomNet) -> dict:
    """The tops that ONNX Runtime makes of a net, by the keys of record.py."""
    path = folder / f"cases/{_case(net)}.prototxt"
    values = Values(_case(net), path.read_text())
    built = Net(deploy_net(path), read_net(path).state.phase)
    draw_parameters(built, values)
    tops = run_model(to_onnx(built), {name: values.input(name, built.shapes[name]) for name in built.inputs})
    return {f"top/{name}": top for name, top in tops.items()}


def _joined(answer: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """An answer, each layer's gradients of its parameters together: a bias's before BatchNorm is rounding alone."""
    layers: dict[str, list[np.ndarray]] = {}
    for key in sorted(answer):
        layers.setdefault(key.rpartition("/")[0] if key.startswith("parameter") else key, []).append(answer[key])
    return {
        key: np.concatenate([value.ravel() for value in values]) if key.startswith("parameter") else values[0]
        for key, values in layers.items()
    }


def _agree(ours: dict[str, np.ndarray], wanted: dict[str, np.ndarray], limit: float, what: str) -> float:
    return assert_agrees(_joined(ours), _joined(wanted), limit, what)


def test_the_ways_of_running_a_net_agree(folder: Path, recorder: types.ModuleType) -> None:
    for net in NETS:
        path = folder / f"cases/{_case(net)}.prototxt"
        at_once = run_net(path, _case(net))
        _agree(at_once, recorder.run_net(path, _case(net)), TOLERANCE, f"{_case(net)}: layer by layer\n{net.case}")
        if net.phase == "TEST":
            tops = _onnx_answer(folder, net)
            _agree(tops, {name: at_once[name] for name in tops}, TOLERANCE, f"{_case(net)}: ONNX\n{net.case}")


def test_nets_agree_with_live_caffe(caffe: CaffeRoot, folder: Path, recorder: types.ModuleType, parity: Parity) -> None:
    _copy(folder, caffe)
    caffe.record("cases", "cases")
    ways: dict[str, Callable[[Path, str], dict]] = {"forward and backward": run_net, "layer by layer": recorder.run_net}
    for net in NETS:
        answer = split_answers(caffe.folder / "cases/random/recorded.npz", f"net{net.number}")
        for way, run in ways.items():
            ours = run(folder / f"cases/{_case(net)}.prototxt", _case(net))
            off = _agree(ours, answer, TOLERANCE, f"{_case(net)}\n{net.case}")
            parity("Nets", "drawn at random", way, off)
        if net.phase == "TEST":
            tops = _onnx_answer(folder, net)
            wanted = {name: answer[name] for name in tops}
            parity("Nets", "drawn at random", "ONNX Runtime", _agree(tops, wanted, TOLERANCE, _case(net)))


def test_trainings_agree_with_live_caffe(
    caffe: CaffeRoot, folder: Path, monkeypatch: pytest.MonkeyPatch, parity: Parity
) -> None:
    _copy(folder, caffe)
    monkeypatch.chdir(folder)
    answers = caffe.solve([f"net{net.number}" for net in NETS], STEPS, "{}.caffemodel")
    for net in NETS:
        name = f"net{net.number}"
        ours = run_solver(name, STEPS, f"{name}.caffemodel")
        wanted = {key: value for key, value in answers[name].items() if key != "lr"}
        parity("Nets", "drawn at random", "three updates", _agree(ours, wanted, UPDATES, f"{name}\n{net.trained}"))


def _copy(folder: Path, caffe: CaffeRoot) -> None:
    shutil.copytree(folder, caffe.folder, dirs_exist_ok=True)
