"""Training against real Caffe: every lr policy, decay and clipping; each engine resuming the other's snapshot."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from caffe_root import CaffeRoot
from harness import SOLVERS, Arrays, assert_agrees, recorded_solver, run_solver

from pipeline.caffe import snapshot
from pipeline.caffe.log import TrainingLog
from pipeline.caffe.proto import read_solver
from pipeline.caffe.solver import get_solver
from pipeline.caffe.training import solve

NAMES = sorted(path.name.removesuffix(".solver.prototxt") for path in SOLVERS.glob("*.solver.prototxt"))
STEPS = 200


@pytest.fixture
def folder(training_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the solvers read, as the working folder."""
    shutil.copytree(training_folder, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def first_weights(name: str) -> str:
    return "face_emotion_net.caffemodel" if name == "face_emotion_net" else "net.caffemodel"


def assert_trained_alike(ours: Arrays, caffe: Arrays, what: str) -> None:
    np.testing.assert_allclose(ours["loss"], caffe["loss"], rtol=0, atol=1e-4, err_msg=f"{what}: loss")
    np.testing.assert_allclose(ours["lr"], caffe["lr"], rtol=1e-5, err_msg=f"{what}: lr")  # six digits in Caffe's log
    parameters = {key: value for key, value in caffe.items() if key not in ("loss", "lr")}
    if parameters:
        assert_agrees(ours, parameters, 1e-4, what)


@pytest.mark.parametrize("name", NAMES)
def test_trains_as_caffe(name: str, folder: Path) -> None:
    ours = run_solver(Path(f"{name}.solver.prototxt"), STEPS, Path(first_weights(name)))
    assert_trained_alike(ours, recorded_solver(name), name)


@pytest.mark.parametrize("name", NAMES)
def test_trains_as_live_caffe(name: str, folder: Path, caffe: CaffeRoot) -> None:
    shutil.copytree(folder, caffe.folder, dirs_exist_ok=True)
    answer = caffe.solve(name, STEPS, first_weights(name))
    ours = run_solver(Path(f"{name}.solver.prototxt"), STEPS, Path(first_weights(name)))
    if name == "face_emotion_net":  # its 5,452,711 values are not recorded either
        answer = {key: answer[key] for key in ("loss", "lr")}
    assert_trained_alike(ours, answer, name)


def test_resumes_a_snapshot_of_caffe(folder: Path) -> None:
    ours = run_solver(Path("multistep.solver.prototxt"), 50, SOLVERS / "multistep_iter_50.solverstate")
    whole = recorded_solver("resumed at 50")
    assert_trained_alike(ours, {**whole, "loss": whole["loss"][50:], "lr": whole["lr"][50:]}, "resumed")


def test_writes_a_snapshot_to_the_byte(folder: Path) -> None:
    solver = get_solver(read_solver(Path("multistep.solver.prototxt")))
    snapshot.restore(solver, SOLVERS / "multistep_iter_50.solverstate")
    written = snapshot.save(solver, "multistep")
    assert written.weights.read_bytes() == (SOLVERS / "multistep_iter_50.caffemodel").read_bytes()
    assert written.state.read_bytes() == (SOLVERS / "multistep_iter_50.solverstate").read_bytes()


def test_live_caffe_resumes_our_snapshot(folder: Path, caffe: CaffeRoot) -> None:
    ours = run_solver(Path("multistep.solver.prototxt"), 100, Path("net.caffemodel"))
    run_solver(Path("multistep.solver.prototxt"), 50, Path("net.caffemodel"))
    shutil.copytree(folder, caffe.folder, dirs_exist_ok=True)
    theirs = caffe.solve("multistep", 50, "multistep_iter_50.solverstate")
    assert_trained_alike({**ours, "loss": ours["loss"][50:], "lr": ours["lr"][50:]}, theirs, "resumed by Caffe")


def test_logs_as_caffe(folder: Path) -> None:
    solver = get_solver(read_solver(Path("log.prototxt")))
    solver.net.copy_from(Path("net.caffemodel"))
    with TrainingLog(Path("train.log"), solver) as log:
        for event in solve(solver):
            log.record(event)
    ours, caffe = messages(Path("train.log").read_text()), messages((SOLVERS / "log.txt").read_text())
    assert [words for words, _ in ours] == [words for words, _ in caffe]
    for (words, numbers), (_, expected) in zip(ours, caffe, strict=True):
        np.testing.assert_allclose(numbers, expected, rtol=1e-4, err_msg=words)


def messages(log: str) -> list[tuple[str, list[float]]]:
    """A log's lines from "Solving" on, without their glog prefixes and speeds: words, and the numbers among them."""
    found = []
    for line in log[: log.index("Optimization Done.")].splitlines():
        prefix = re.match(r"I\d{4} \d\d:\d\d:\d\d\.\d{6} +\d+ \S+:\d+\] ", line)
        message = re.sub(r" \(\S+ iter/s, \S+/5 iters\)", "", line[prefix.end():] if prefix else line)
        number = r"(?<![\w#])\d+(?:\.\d+)?(?:e[+-]\d+)?"
        found.append((re.sub(number, "N", message), [float(value) for value in re.findall(number, message)]))
    return found[[words.startswith("Solving") for words, _ in found].index(True) :]
