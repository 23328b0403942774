"""The second engine: what the log of real Caffe tells, how it is started, and what is said where it is missing.

Training and measuring in real Caffe is in tests/conformance/test_engines.py.
"""

import io
import re
import stat
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from pipeline.base.errors import InputError
from pipeline.caffe.proto.caffe_pb2 import LayerParameter, NetParameter, SolverParameter
from pipeline.caffe.proto.files import parse_text
from pipeline.caffe.real_caffe import CaffeError, RealCaffe, events, refuse_extensions, root_from_environment
from pipeline.caffe.solver import solve
from pipeline.caffe.solver.snapshot import Snapshot
from pipeline.stages.train import _Caffe, train

PREFIX = "I1121 12:36:46.900000  1777 solver.cpp:347] "
MESSAGES = """\
Solving Small
Learning Rate Policy: multistep
Iteration 0, Testing net (#0)
Restarting data prefetching from start.
    Test net output #0: accuracy = 0.25
    Test net output #1: loss = 1.5 (* 1 = 1.5 loss)
Iteration 0, Testing net (#1)
    Test net output #0: scores = 1
    Test net output #1: scores = 2
Iteration 0 (0 iter/s, 0.5s/5 iters), loss = 2.5
    Train net output #0: loss = 2.25 (* 1 = 2.25 loss)
Iteration 0, lr = 0.01
Snapshotting to binary proto file out/small_iter_5.caffemodel
Snapshotting solver state to binary proto file out/small_iter_5.solverstate
Iteration 5 (9 iter/s, 0.5s/5 iters), loss = 0.5
    Train net output #0: loss = 0.25 (* 1 = 0.25 loss)
Iteration 5, lr = 0.001
Snapshotting to HDF5 file out/small_iter_10.caffemodel.h5
Snapshotting solver state to HDF5 file out/small_iter_10.solverstate.h5
Iteration 10, loss = 0.125
Iteration 10, Testing net (#0)
    Test net output #0: accuracy = 0.75
Optimization Done.
"""


def test_a_log_is_told_as_the_events_of_a_training() -> None:
    told = list(events((PREFIX + line for line in MESSAGES.splitlines(keepends=True)), SolverParameter(max_iter=10)))
    assert [type(event) for event in told] == [
        solve.Tested,
        solve.Tested,
        solve.Iterated,
        solve.Snapshotted,
        solve.Iterated,
        solve.Snapshotted,
        solve.Finished,
        solve.Tested,
    ]
    first, second, displayed, saved, _, hdf5, finished, last = told
    assert isinstance(first, solve.Tested)
    assert (first.iteration, first.net, {name: value.tolist() for name, value in first.outputs.items()}) == (
        0,
        0,
        {"accuracy": [0.25], "loss": [1.5]},
    )
    assert isinstance(second, solve.Tested)
    assert torch.equal(second.outputs["scores"], torch.tensor([1.0, 2.0]))
    assert isinstance(displayed, solve.Iterated)
    assert (displayed.iteration, displayed.loss, displayed.rate, displayed.displayed) == (0, 2.5, 0.01, True)
    assert isinstance(saved, solve.Snapshotted)
    assert saved.snapshot == Snapshot("out/small", 5)
    assert isinstance(hdf5, solve.Snapshotted)
    assert hdf5.snapshot.state == Path("out/small_iter_10.solverstate.h5")
    assert finished == solve.Finished(10, 0.125)
    assert isinstance(last, solve.Tested)
    assert (last.iteration, last.outputs["accuracy"].item()) == (10, 0.75)


def test_a_test_that_was_interrupted_is_none() -> None:
    lines = ["Iteration 5, Testing net (#0)", "Test interrupted.", "Optimization stopped early."]
    assert not list(events((f"{PREFIX}{line}\n" for line in lines), SolverParameter(max_iter=10)))


def test_a_prefix_may_have_spaces() -> None:
    line = f"{PREFIX}Snapshotting solver state to binary proto file my runs/a net_iter_5.solverstate\n"
    assert list(events([line], SolverParameter(max_iter=10))) == [solve.Snapshotted(Snapshot("my runs/a net", 5))]


def executable(path: Path, script: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.mark.parametrize("where", ["docker", "podman", "conda"])
def test_what_is_not_installed_is_said_with_how_to_get_it(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CaffeError, match=rf"{where} is not installed; get it by: {where} (build -f|env create)"):
        RealCaffe(where, 2)


@pytest.mark.parametrize("where", ["docker", "podman", "conda"])
def test_a_missing_image_or_environment_is_said_with_how_to_make_it(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    executable(tmp_path / where, "echo 'no such thing' >&2; exit 1")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(CaffeError, match=rf"failed \(no such thing\); get it by: {where} .*docker/caffe"):
        RealCaffe(where, 2)


@pytest.mark.parametrize("where", ["docker", "podman"])
def test_a_container_sees_the_working_folder_under_its_own_path(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    executable(tmp_path / where, f'echo "$@" >> {tmp_path}/calls')
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.chdir(tmp_path)
    RealCaffe(where, 3).run("caffe", "train", "-solver", "run/solver.prototxt")
    *_, call = (tmp_path / "calls").read_text().splitlines()
    assert f"--volume {tmp_path}:{tmp_path} --workdir {tmp_path}" in call
    assert "--env OPENBLAS_NUM_THREADS=3" in call
    assert call.endswith(" caffe caffe train -solver run/solver.prototxt")


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], RealCaffe]:
    """Makes a docker that does what a script says to train, and notes what it is called with in `calls`."""

    def make(script: str) -> RealCaffe:
        executable(tmp_path / "docker", f'echo "$@" >> {tmp_path}/calls; case "$*" in *"caffe train"*) {script};; esac')
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
        return RealCaffe("docker", 1)

    return make


def test_a_container_that_is_left_is_ended_before_the_next_and_after_a_failure(
    docker: Callable[[str], RealCaffe], tmp_path: Path
) -> None:
    caffe = docker(f'echo "{PREFIX}Iteration 0, lr = 1" >&2; exec sleep 60')
    told = caffe.train(SolverParameter(max_iter=9), tmp_path / "solver.prototxt", None, io.StringIO())
    assert isinstance(next(told), solve.Iterated)
    told.close()  # as where the loss is no number
    *_, before, run, after = (tmp_path / "calls").read_text().splitlines()
    name = re.search("--name (caffe-[0-9a-f]{16}) ", run)
    assert name
    assert before == after == f"rm --force {name[1]}"


def test_an_interrupt_before_caffe_has_started_stops_it(docker: Callable[[str], RealCaffe], tmp_path: Path) -> None:
    caffe = docker("exec sleep 60")
    caffe.interrupt()
    assert not list(caffe.train(SolverParameter(max_iter=9), tmp_path / "solver.prototxt", None, io.StringIO()))


def test_a_failure_after_an_interrupt_is_said(docker: Callable[[str], RealCaffe], tmp_path: Path) -> None:
    caffe = docker(
        f'trap "echo F1121 io.cpp:69] Check failed: no space >&2; exit 134" INT; '
        f'echo "{PREFIX}Iteration 0, lr = 1" >&2; while :; do sleep 0.05; done'
    )
    told = caffe.train(SolverParameter(max_iter=9), tmp_path / "solver.prototxt", None, io.StringIO())
    next(told)
    caffe.interrupt()
    with pytest.raises(CaffeError, match=r"status 134: F1121 io\.cpp:69\] Check failed: no space"):
        list(told)


def test_a_folder_that_is_no_root_is_said(tmp_path: Path) -> None:
    with pytest.raises(CaffeError, match=r"usr/bin/caffe does not exist; get it by: sudo sh docker/caffe-root\.sh"):
        RealCaffe(str(tmp_path), 2)


def test_without_a_word_of_where_every_way_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CAFFE_ROOT", raising=False)
    with pytest.raises(CaffeError, match=r"docker build.*podman build.*conda env create.*caffe-root\.sh"):
        root_from_environment()


def test_a_failure_of_caffe_is_said_by_its_fatal_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    executable(
        tmp_path / "docker",
        'case "$*" in *train*) echo "F1121 db.cpp:9] Check failed: no such database" >&2; '
        'echo "*** Check failure stack trace: ***" >&2; exit 134;; esac',
    )
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    (tmp_path / "data").mkdir()
    (tmp_path / "net.prototxt").write_text('layer { name: "a" type: "DummyData" top: "a" }')
    solver = tmp_path / "solver.prototxt"
    solver.write_text(
        f'net: "{tmp_path}/net.prototxt" max_iter: 5 base_lr: 1 lr_policy: "fixed" snapshot_prefix: "{tmp_path}/s/net"'
    )
    with pytest.raises(CaffeError, match=r"status 134: F1121 db\.cpp:9\] Check failed: no such database"):
        train(solver, "cpu", engine="caffe", caffe="docker")


def test_auto_is_float32_in_caffe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.stages.train.RealCaffe", lambda where, threads: SimpleNamespace(version="caffe"))
    layers = [LayerParameter(name="a", type="DummyData", top=["a"])]
    param = SolverParameter(lr_policy="fixed", net_param=NetParameter(layer=layers))
    trainer = _Caffe(param, tmp_path / "s.prototxt", "cpu", "auto", threads=1, where="docker")
    assert (trainer.settings["precision_asked"], trainer.settings["precision"]) == ("auto", "float32")


def test_what_caffe_cannot_compute_is_refused(tmp_path: Path) -> None:
    solver = tmp_path / "solver.prototxt"
    solver.write_text('net: "net.prototxt"')
    with pytest.raises(InputError, match="precision bfloat16, where Caffe"):
        train(solver, "cpu", "bfloat16", engine="caffe", caffe=str(tmp_path))
    (tmp_path / "net.prototxt").write_text('layer { name: "a" type: "DummyData" top: "a" }')
    for fields, said in (
        ('lr_policy: "plateau"', "lr_policy 'plateau', which Caffe has not"),
        ("warmup_iter: 5", "sets warmup_iter, which Caffe does not have"),
        ("early_stopping: 2", "sets early_stopping, which Caffe does not have"),
    ):
        solver.write_text(f'net: "{tmp_path}/net.prototxt" {fields}')
        with pytest.raises(InputError, match=said):
            train(solver, "cpu", engine="caffe", caffe=str(tmp_path))


@pytest.mark.parametrize(
    ("net", "said"),
    [
        (
            'layer { name: "low" type: "ReLU6" bottom: "a" top: "b" }',
            r"net\.prototxt: layer 'low' is of type ReLU6, which is none of Caffe 1\.0's but the fork of MobileNets",
        ),
        (
            'layer { name: "axes" type: "Permute" bottom: "a" top: "b" permute_param { order: 1 } }',
            "is of type Permute",
        ),
        (
            'layer { name: "low" type: "ReLU" bottom: "a" top: "b" norm_param { eps: 0.1 } }',
            "layer 'low' sets norm_param, which Caffe does not have",
        ),
    ],
)
def test_layers_of_forks_are_refused_by_their_type(net: str, said: str) -> None:
    with pytest.raises(CaffeError, match=said):
        refuse_extensions(parse_text(net, NetParameter, "net.prototxt"), "net.prototxt")


def test_what_caffe_does_not_have_is_refused_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "net.prototxt").write_text(
        'layer { name: "faces" type: "Data" top: "a" transform_param { augmentation_param { rotation: 5 } } }'
    )
    solver = tmp_path / "solver.prototxt"
    solver.write_text(f'net: "{tmp_path}/net.prototxt"')
    with pytest.raises(CaffeError, match=r"net\.prototxt: layer 'faces': transform_param sets augmentation_param"):
        train(solver, "cpu", engine="caffe", caffe=str(tmp_path))
