"""Training against real Caffe: every solver under every setting, and each engine resuming the other's snapshot."""

import functools
import shutil
from collections.abc import Callable, Iterator
from contextlib import chdir
from pathlib import Path

import numpy as np
import pytest
from caffe_root import CaffeRoot
from harness import Arrays, assert_agrees, deviation
from logs import messages
from parity import Parity
from solving import (
    EXCHANGED,
    FACE_EMOTION_NET_CASE,
    FACE_EMOTION_NET_STEPS,
    LOGS,
    NAMES,
    SETTINGS,
    SOLVERS,
    STEPS,
    TYPES,
    after,
    assert_trained_alike,
    recorded_solver,
    run_solver,
)

from pipeline.caffe.glog import log_file
from pipeline.caffe.proto.blob_proto import from_blobproto
from pipeline.caffe.proto.caffe_pb2 import SolverState
from pipeline.caffe.proto.files import read_binary, read_solver
from pipeline.caffe.solver import POLICIES, get_solver, snapshot
from pipeline.caffe.solver import SOLVERS as SOLVER_TYPES
from pipeline.caffe.solver.solve import solve
from pipeline.caffe.solver.train_log_writer import TrainingLog

Trainer = Callable[[str, int], Arrays]


@pytest.fixture(scope="module")
def ours(training_folder: Path) -> Trainer:
    """Trains a case from its first weights, once for all tests that ask."""

    @functools.cache
    def train(name: str, steps: int) -> Arrays:
        with chdir(training_folder):
            return run_solver(name, steps, first_weights(name))

    return train


@pytest.fixture
def folder(training_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the solvers read, as the working folder."""
    shutil.copytree(training_folder, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def caffe_in_training(training_folder: Path) -> Iterator[CaffeRoot]:
    """Real Caffe in a folder with what the solvers read. Skips where there is none."""
    root = CaffeRoot.from_environment()
    if root is None:
        pytest.skip("CAFFE_ROOT is not set; docker/caffe-root.sh makes a root with real Caffe")
    with root:
        shutil.copytree(training_folder, root.folder, dirs_exist_ok=True)
        yield root


@pytest.fixture(scope="module")
def live(caffe_in_training: CaffeRoot) -> dict[str, dict[str, np.ndarray]]:
    """Real Caffe's answers to all cases but FaceEmotionNet, in one process: starting it takes longer than a case."""
    return caffe_in_training.solve(NAMES, STEPS, "net.caffemodel")


def first_weights(name: str) -> str:
    return "face_emotion_net.caffemodel" if name == FACE_EMOTION_NET_CASE else "net.caffemodel"


def test_every_solver_and_policy_has_a_case() -> None:
    assert set(TYPES) == set(SOLVER_TYPES)
    assert set(POLICIES) <= set(SETTINGS)


def enter(parity: Parity, name: str, ours: Arrays, caffe: Arrays) -> None:
    """Compare a case's training with real Caffe's, and enter how far it is from that."""
    off = assert_trained_alike(ours, caffe, name)
    solver_type, _, setting = name.partition("_")
    parity("Solvers", solver_type, setting, off)
    if setting in POLICIES:
        parity("Learning rate policies", setting, "rates", deviation(ours["lr"], caffe["lr"]))
        parity("Learning rate policies", setting, "losses and parameters", off)


@pytest.mark.parametrize("name", NAMES)
def test_trains_as_caffe(name: str, ours: Trainer, parity: Parity) -> None:
    enter(parity, name, ours(name, STEPS), recorded_solver(name))


def test_face_emotion_net_trains_as_caffe(ours: Trainer) -> None:
    name = FACE_EMOTION_NET_CASE
    assert_trained_alike(ours(name, FACE_EMOTION_NET_STEPS), recorded_solver(name), name)


@pytest.mark.parametrize("name", NAMES)
def test_trains_as_live_caffe(name: str, ours: Trainer, live: dict[str, Arrays], parity: Parity) -> None:
    enter(parity, name, ours(name, STEPS), live[name])


def test_face_emotion_net_trains_as_live_caffe(ours: Trainer, caffe_in_training: CaffeRoot) -> None:
    name = FACE_EMOTION_NET_CASE
    answer = caffe_in_training.solve([name], FACE_EMOTION_NET_STEPS, first_weights(name))[name]
    losses_and_rates = {key: answer[key] for key in ("loss", "lr")}  # its 5,452,711 values are not recorded either
    assert_trained_alike(ours(name, FACE_EMOTION_NET_STEPS), losses_and_rates, name)


@pytest.mark.parametrize("name", EXCHANGED)
def test_resumes_a_snapshot_of_caffe(name: str, folder: Path, ours: Trainer, parity: Parity) -> None:
    resumed = run_solver(name, 50, SOLVERS / f"snapshots/{name}_iter_50.solverstate")
    whole = recorded_solver(f"{name} at 100")
    assert_trained_alike(ours(name, 100), whole, "not interrupted")
    enter_exchange(parity, name, "resumes Caffe", resumed, after(whole, 50))


def enter_exchange(parity: Parity, name: str, column: str, resumed: Arrays, whole: Arrays) -> None:
    """Compare a resumed training with one in one go, and enter how far it is from that."""
    parity("Solvers", name.partition("_")[0], column, assert_trained_alike(resumed, whole, f"{name} {column}"))


@pytest.mark.parametrize("name", EXCHANGED)
def test_caffe_resumed_our_snapshot(name: str, ours: Trainer, parity: Parity) -> None:
    enter_exchange(parity, name, "Caffe resumes", after(ours(name, 100), 50), recorded_solver(f"{name} from ours"))


@pytest.mark.parametrize("name", EXCHANGED)
def test_keeps_the_history_that_caffe_keeps(name: str, folder: Path) -> None:
    run_solver(name, 50, "net.caffemodel")
    ours = read_binary(Path(f"{name}_iter_50.solverstate"), SolverState)
    caffe = read_binary(SOLVERS / f"snapshots/{name}_iter_50.solverstate", SolverState)
    assert (ours.iter, ours.current_step, ours.learned_net) == (caffe.iter, caffe.current_step, caffe.learned_net)
    assert_agrees(history(ours), history(caffe), 1e-4, name)


def history(state: SolverState) -> dict[str, np.ndarray]:
    return {f"history {index}": from_blobproto(blob, "history") for index, blob in enumerate(state.history)}


@pytest.mark.parametrize("name", EXCHANGED)
def test_writes_a_snapshot_to_the_byte(name: str, folder: Path, parity: Parity) -> None:
    solver = get_solver(read_solver(Path(f"{name}.solver.prototxt")))
    theirs = SOLVERS / f"snapshots/{name}_iter_50.solverstate"
    snapshot.restore(solver, theirs)
    written = snapshot.save(solver, name)
    assert written.weights.read_bytes() == theirs.with_suffix(".caffemodel").read_bytes()
    assert written.state.read_bytes() == theirs.read_bytes()
    for form in ("caffemodel", "solverstate"):
        for column in ("bytes", "read from Caffe"):  # what was read is what is written again
            parity("File formats", form, column, 0)


def test_resumes_snapshots_of_live_caffe(
    folder: Path, ours: Trainer, caffe_in_training: CaffeRoot, parity: Parity
) -> None:
    caffe_in_training.solve(EXCHANGED, 50, "net.caffemodel")
    for name in EXCHANGED:
        resumed = run_solver(name, 50, caffe_in_training.folder / f"{name}_iter_50.solverstate")
        enter_exchange(parity, name, "resumes Caffe", resumed, after(ours(name, 100), 50))


def test_live_caffe_resumes_our_snapshots(folder: Path, caffe_in_training: CaffeRoot, parity: Parity) -> None:
    for name in EXCHANGED:
        run_solver(name, 50, "net.caffemodel")
        for suffix in ("caffemodel", "solverstate"):
            shutil.copy(f"{name}_iter_50.{suffix}", caffe_in_training.folder)
    resumed = caffe_in_training.solve(EXCHANGED, 50, "{}_iter_50.solverstate")
    whole = caffe_in_training.solve(EXCHANGED, 100, "net.caffemodel")
    for name in EXCHANGED:
        enter_exchange(parity, name, "Caffe resumes", resumed[name], after(whole[name], 50))


@pytest.mark.parametrize("name", LOGS)
def test_logs_as_caffe(name: str, folder: Path) -> None:
    solver = get_solver(read_solver(Path(f"{name}.prototxt")))
    with log_file(Path("train.log")) as logger:
        log = TrainingLog(solver, logger)
        for event in solve(solver):
            log.record(event)
    ours, caffe = course(Path("train.log").read_text()), course((SOLVERS / f"{name}.txt").read_text())
    assert [words for words, _ in ours] == [words for words, _ in caffe]
    for (words, numbers), (_, expected) in zip(ours, caffe, strict=True):
        np.testing.assert_allclose(numbers, expected, rtol=1e-4, err_msg=words)


def course(log: str) -> list[tuple[str, list[float]]]:
    """The lines of a log from "Solving" on, until the training is done."""
    found = messages(log[: log.index("Optimization Done.")])
    return found[[words.startswith("Solving") for words, _ in found].index(True) :]
