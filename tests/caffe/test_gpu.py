"""Training on a GPU, which these tests pretend: what differs from the CPU, and what is said where there is none."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.pretended_gpu import OnGpu, pretended_gpus
from helpers.run_command import run_command

from pipeline import caffe
from pipeline.base.errors import InputError
from pipeline.caffe import precision
from pipeline.caffe.common import mode
from pipeline.caffe.database import DatabaseReader, DatabaseWriter, datum_from_image, record_key
from pipeline.caffe.net import Net
from pipeline.caffe.proto.caffe_pb2 import TRAIN, NetParameter, SolverParameter
from pipeline.caffe.proto.files import parse_text
from pipeline.caffe.solver import SOLVERS, Solver, get_solver, snapshot
from pipeline.caffe.solver.solve import Tested, solve

NET = """
layer { name: "data" type: "Data" top: "data" top: "label" transform_param { crop_size: 5 mirror: true scale: 0.01 }
  data_param { source: "database" batch_size: 4 backend: LMDB } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" convolution_param { num_output: 4 kernel_size: 2
  bias_term: false weight_filler { type: "xavier" } } }
layer { name: "bn" type: "BatchNorm" bottom: "conv" top: "conv" }
layer { name: "scale" type: "Scale" bottom: "conv" top: "conv" scale_param { bias_term: true } }
layer { name: "slope" type: "PReLU" bottom: "conv" top: "conv" }
layer { name: "drop" type: "Dropout" bottom: "conv" top: "conv" dropout_param { dropout_ratio: RATIO } }
layer { name: "fc" type: "InnerProduct" bottom: "conv" top: "fc" inner_product_param { num_output: 3
  weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" top: "loss" }
layer { name: "accuracy" type: "Accuracy" bottom: "fc" bottom: "label" top: "accuracy" include { phase: TEST } }
"""
MORE = "iter_size: 2 clip_gradients: 0.1 regularization_type: 'L1' snapshot_diff: true"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working folder, with a database and the prototxts of a net and a solver."""
    monkeypatch.chdir(tmp_path)
    random = np.random.RandomState(0)
    with DatabaseWriter(Path("database")) as database:
        for number in range(10):
            image = random.randint(0, 256, (1, 6, 6)).astype(np.uint8)
            database.put(record_key(number, f"{number}.png"), datum_from_image(image, number % 3))
    (tmp_path / "net.prototxt").write_text(NET.replace("RATIO", "0.5"))
    (tmp_path / "solver.prototxt").write_text(solver_text("SGD", "max_iter: 2 snapshot_prefix: 'run' display: 1"))
    yield tmp_path
    caffe.set_mode_cpu()
    mode.gpu = 0


def solver_text(kind: str, fields: str = "", ratio: float = 0.5) -> str:
    momentum = "" if kind in ("AdaGrad", "RMSProp") or "momentum" in fields else "momentum: 0.9"
    return (
        f'type: "{kind}" lr_policy: "fixed" base_lr: 0.01 weight_decay: 0.01 random_seed: 3 {momentum} {fields} '
        f"test_iter: 2 test_interval: 2 net_param {{ {NET.replace('RATIO', str(ratio))} }}"
    )


def solver(kind: str, device: str, fields: str = "", ratio: float = 0.5, computes_in: str = "float32") -> Solver:
    param = parse_text(solver_text(kind, fields, ratio), SolverParameter, "solver")
    return get_solver(param, device, computes_in)


def weights(made: Solver) -> np.ndarray:
    return np.concatenate([learnable.blob.detach().cpu().numpy().ravel() for learnable in made.net.learnable])


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        *((kind, fields) for kind in SOLVERS for fields in ("", MORE)),
        ("SGD", "momentum: 0"),
        ("AdaDelta", "debug_info: true display: 1 snapshot_format: HDF5"),
    ],
)
def test_a_solver_on_a_gpu_steps_as_on_the_cpu_and_resumes(kind: str, fields: str) -> None:
    on_cpu = solver(kind, "cpu", fields, ratio=0)
    with pretended_gpus() as gpu:
        whole = solver(kind, gpu, fields, ratio=0)
        for made in (on_cpu, whole):
            for _ in range(2):
                made.step()
        saved = snapshot.save(whole, "run")
        resumed = solver(kind, gpu, fields, ratio=0)
        assert snapshot.restore(resumed, saved.state)
        for made in (on_cpu, whole, resumed):
            made.step()
        assert all(isinstance(history, OnGpu) for history in resumed.history)
        np.testing.assert_array_equal(weights(resumed), weights(whole))
        np.testing.assert_allclose(weights(whole), weights(on_cpu), rtol=1e-5, atol=1e-6)
        assert list(whole.losses) == pytest.approx(list(on_cpu.losses))


def test_a_run_with_tests_and_dropout_resumes_on_a_gpu_to_the_bit() -> None:
    fields = "max_iter: 4 snapshot: 2 snapshot_prefix: 'run'"
    with pretended_gpus() as gpu:
        whole, resumed = solver("SGD", gpu, fields), solver("SGD", gpu, fields)
        tested = [event for event in solve(whole) if isinstance(event, Tested)]
        assert all(0 <= event.outputs["accuracy"].item() <= 1 for event in tested)
        assert snapshot.restore(resumed, Path("run_iter_2.solverstate"))
        list(solve(resumed))
        np.testing.assert_array_equal(weights(resumed), weights(whole))


@pytest.mark.parametrize("first", ["cpu", "cuda:1"])
def test_a_run_resumes_on_another_device(first: str) -> None:
    """The data goes on where it was; dropout, which another generator draws there, draws anew."""
    with pretended_gpus() as gpu:
        whole, resumed = solver("SGD", first), solver("SGD", "cpu" if first == gpu else gpu)
        for _ in range(2):
            whole.step()
        assert snapshot.restore(resumed, snapshot.save(whole, "run").state)
        for made in (whole, resumed):
            made.step()
            assert made.iteration == 3
        np.testing.assert_array_equal(whole.net.blobs["label"].cpu().numpy(), resumed.net.blobs["label"].cpu().numpy())
        np.testing.assert_array_equal(whole.net.blobs["data"].cpu().numpy(), resumed.net.blobs["data"].cpu().numpy())


def test_what_an_lstm_keeps_is_restored_on_the_gpu() -> None:
    text = """layer { name: "x" type: "DummyData" top: "x" top: "cont" dummy_data_param {
      shape { dim: 3 dim: 2 dim: 4 } shape { dim: 3 dim: 2 } data_filler { value: 1 } data_filler { value: 1 } } }
    layer { name: "lstm" type: "LSTM" bottom: "x" bottom: "cont" top: "y" recurrent_param { num_output: 2
      weight_filler { type: "xavier" } } }"""
    with pretended_gpus() as gpu:
        first, second = (Net(parse_text(text, NetParameter, "net"), TRAIN, device=gpu, seed=1) for _ in range(2))
        first.forward()
        second.restore(first.state())
        assert first.forward()["y"].tolist() == second.forward()["y"].tolist()


def test_bfloat16_on_a_gpu_is_of_products_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, number in (("IMAGES", 2), ("CHANNELS", 2), ("SIDE", 4), ("SECONDS", 0)):
        monkeypatch.setattr(precision, name, number)
    with pretended_gpus() as gpu:
        made = solver("SGD", gpu, computes_in="bfloat16")
        for _ in range(2):
            made.step()
        made.test_batch(0)
        assert made.net.blobs["fc"].dtype == torch.bfloat16
        assert {learnable.blob.dtype for learnable in made.net.learnable} == {torch.float32}
        _, reason = precision.faster_precision(gpu)
    assert reason.endswith("times as fast as float32 here")


def test_float32_on_a_gpu_is_not_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    with pretended_gpus() as gpu:
        solver("SGD", gpu)
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32


def test_a_script_trains_on_the_gpu_that_it_sets() -> None:
    with pretended_gpus() as gpu:
        caffe.set_device(1)
        caffe.set_mode_gpu()
        assert mode.device() == gpu
        made = caffe.get_solver("solver.prototxt")
        before = made.net.params["fc"][0].data.copy()
        made.step(2)
        assert not np.array_equal(before, made.net.params["fc"][0].data)
        made.snapshot()
        made.restore("run_iter_2.solverstate")
        made.test_nets[0].forward()
        assert 0 <= made.test_nets[0].blobs["accuracy"].data <= 1


def test_commands_run_on_the_gpu_that_they_are_given() -> None:
    with pretended_gpus():
        ran = run_command("train", "-solver", "solver.prototxt", "-gpu", "1")
        assert ran.status == 0, ran.log
        assert "Using GPUs 1" in ran.log
        run = ("-model", "net.prototxt", "-iterations", "2", "-gpu", "1")
        for words in (
            ("test", *run, "-weights", "run_iter_2.caffemodel"),
            ("time", *run),
            ("average_snapshots", *run, "run_iter_2.caffemodel", "run_iter_2.caffemodel", "mean.caffemodel"),
            ("extract_features", "run_iter_2.caffemodel", "net.prototxt", "fc", "features", "2", "lmdb", "GPU", "1"),
        ):
            ran = run_command(*words)
            assert ran.status == 0, ran.log
    with DatabaseReader(Path("features"), "lmdb") as features:
        assert len(features) == 8


@pytest.mark.parametrize(("count", "there"), [(0, "no GPU"), (2, "only 2 GPUs, from 0,")])
def test_a_net_on_a_gpu_that_is_absent_is_refused(count: int, there: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: count)
    param = parse_text(NET.replace("RATIO", "0.5"), NetParameter, "net")
    with pytest.raises(InputError, match=f"^device cuda:2: torch .* finds {there} here; choose cpu$"):
        Net(param, TRAIN, device="cuda:2")


@pytest.mark.parametrize(
    "words",
    [
        ("train", "-solver", "solver.prototxt"),
        ("test", "-model", "net.prototxt", "-weights", "w"),
        ("time", "-model", "net.prototxt"),
        ("average_snapshots", "-model", "net.prototxt", "w", "out"),
        ("device_query",),
    ],
)
def test_a_command_on_a_gpu_that_is_absent_is_refused(words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    name, *rest = words
    ran = run_command(name, "-gpu", "all", *rest)
    assert ran.status == 1
    assert "torch finds none here" in ran.log
    assert "Traceback" not in ran.log
