"""Several processes that train one net: Caffe's parts of the data, one process's losses, and the ends they come to."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from google.protobuf import text_format
from helpers.ranks import Rank, run_ranks, signalled
from helpers.run_command import run_command
from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from pipeline.caffe.common import mode
from pipeline.caffe.database import DatabaseWriter, datum_from_image, record_key
from pipeline.caffe.hdf5.files import write_hdf5
from pipeline.caffe.net import Net
from pipeline.caffe.proto.caffe_pb2 import TEST, TRAIN, NetParameter, Phase
from pipeline.caffe.proto.files import read_solver
from pipeline.caffe.solver import get_solver, parallel
from pipeline.caffe.solver.parallel import RankError
from pipeline.caffe.solver.snapshot import restore

NET = """
layer {{ name: "data" type: "Data" top: "data" top: "label"
  data_param {{ source: "database" batch_size: {batch} backend: LMDB }}
  transform_param {{ scale: 0.0039 {transform} }} }}
layer {{ name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param {{ num_output: 4 kernel_size: 3 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "relu" type: "ReLU" bottom: "conv" top: "conv" }}
{more}
layer {{ name: "fc" type: "InnerProduct" bottom: "conv" top: "fc"
  inner_product_param {{ num_output: 3 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" top: "loss" }}
layer {{ name: "accuracy" type: "Accuracy" bottom: "fc" bottom: "label" top: "accuracy" include {{ phase: TEST }} }}
"""
DROPOUT = 'layer { name: "drop" type: "Dropout" bottom: "conv" top: "conv" }'
RECORDS = 50


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working folder, with a database of 50 images of noise."""
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # on a loaded machine the threads of so small a net wait for one another
    random = np.random.RandomState(0)
    with DatabaseWriter(Path("database"), "lmdb") as database:
        for number in range(RECORDS):
            image = random.randint(0, 256, (1, 6, 6)).astype(np.uint8)
            database.put(record_key(number, f"{number}.png"), datum_from_image(image, number % 3))
    yield tmp_path
    torch.set_num_threads(threads)


def write_solver(name: str, batch: int, fields: str = "", transform: str = "", more: str = "") -> str:
    """A solver's prototxt; its snapshots have its name."""
    net = NET.format(batch=batch, transform=transform, more=more)
    Path(name).with_suffix(".prototxt").write_text(
        'base_lr: 0.1 momentum: 0.9 weight_decay: 0.001 lr_policy: "step" gamma: 0.5 stepsize: 40 display: 1 '
        f'snapshot_prefix: "{name}" {fields} net_param {{ {net} }}'
    )
    return f"{name}.prototxt"


def losses(log: str) -> list[float]:
    """Those that a log displays, but for the last, which no update follows."""
    lines = [line for line in log.splitlines() if "iter/s" in line or "iters), loss" in line]
    return [float(line.rpartition("= ")[2]) for line in lines]


def losses_of_one(solver_file: str, state: str = "") -> list[float]:
    solver = get_solver(read_solver(Path(solver_file)))
    if state:
        restore(solver, Path(state))
    for _ in range(solver.iteration, solver.param.max_iter):
        solver.step()
    return list(solver.losses)[-100:]


@pytest.mark.parametrize("count", [2, 4])
def test_ranks_have_the_losses_of_one_process_with_the_whole_batch(folder: Path, count: int) -> None:
    fields = "max_iter: 100 snapshot: 50 random_seed: 1 average_loss: 1"
    ran = run_ranks(count, "train", "-solver", write_solver("ranks", 12 // count, fields))
    assert ran.statuses == [0] * count
    assert ran.log.count("Optimization Done.") == 2  # Caffe's two lines, of the first rank alone
    whole = write_solver("whole", 12, fields.replace("average_loss: 1", "average_loss: 100"))
    expected = losses_of_one(whole)
    assert len(expected) == 100
    assert expected[-1] < expected[0] / 2
    np.testing.assert_allclose(losses(ran.log), expected, rtol=0, atol=1e-5)
    # and one process resumes what several wrote
    np.testing.assert_allclose(losses_of_one(whole, "ranks_iter_50.solverstate")[1:], expected[50:], rtol=0, atol=1e-5)


def test_several_ranks_resume_what_one_process_wrote(folder: Path) -> None:
    whole = write_solver("whole", 12, "max_iter: 20 snapshot: 10 random_seed: 1 average_loss: 20")
    assert run_command("train", "-solver", whole).status == 0
    expected = losses_of_one(whole)[10:]
    ranks = write_solver("ranks", 6, "max_iter: 20 random_seed: 5")
    ran = run_ranks(2, "train", "-solver", ranks, "-snapshot", "whole_iter_10.solverstate")
    assert ran.statuses == [0, 0]
    np.testing.assert_allclose(losses(ran.log), expected, rtol=0, atol=1e-5)


def test_a_rank_that_dies_ends_all_and_the_same_command_resumes_to_the_bit(folder: Path) -> None:
    fields = "max_iter: 30 snapshot: 10 random_seed: 1"
    random = {"transform": "crop_size: 5 mirror: true augmentation_param { alternate_mirror: true }", "more": DROPOUT}
    assert run_ranks(2, "train", "-solver", write_solver("whole", 6, fields, **random)).statuses == [0, 0]
    words = ("train", "-solver", write_solver("died", 6, fields, **random), "-snapshot", "latest")
    ran = run_ranks(2, *words, others={1: Rank(words, signalled(signal.SIGKILL, 15))})
    assert ran.statuses == [1, -signal.SIGKILL]
    [error] = ran.errors
    assert error.startswith("rank 0 of 2 has lost another rank: its process was killed")
    assert "Traceback" not in ran.log
    resumed = run_ranks(2, *words)
    assert "Resuming from died_iter_10.solverstate" in resumed.log
    assert resumed.statuses == [0, 0]
    assert Path("died_iter_30.caffemodel").read_bytes() == Path("whole_iter_30.caffemodel").read_bytes()


@pytest.mark.parametrize(
    ("fields", "patches", "said"),
    [
        ("random_seed: 2", {}, "rank 1 has 'random_seed: 2' where rank 0 has 'random_seed: 1'"),
        ("random_seed: 1 type: 'Nesterov'", {}, "rank 1 has 'type: \"Nesterov\"' where rank 0 has"),
        (
            "random_seed: 1",
            {"pipeline.caffe.solver.parallel.__version__": "0.0.1"},
            "rank 1 has 'caffe-expressions 0.0.1' where rank 0 has 'caffe-expressions ",
        ),
    ],
)
def test_ranks_of_another_seed_solver_or_version_are_refused(
    folder: Path, fields: str, patches: dict[str, object], said: str
) -> None:
    words = ("train", "-solver", write_solver("one", 6, "max_iter: 2 random_seed: 1"))
    other = Path(write_solver("other", 6, f"max_iter: 2 {fields}"))
    other.write_text(other.read_text().replace('"other"', '"one"'))
    ran = run_ranks(2, *words, others={1: Rank(("train", "-solver", str(other)), patches)})
    assert ran.statuses == [1, 1]
    [error] = ran.errors
    assert said in error
    assert "start all ranks with the same version, solver, nets and weights" in error
    assert not list(folder.glob("*_iter_*"))


def test_a_rank_with_an_error_of_its_own_ends_all_with_that_line(folder: Path) -> None:
    words = ("train", "-solver", write_solver("one", 6, "max_iter: 2"))
    ran = run_ranks(2, *words, others={1: Rank(("train", "-solver", "missing.prototxt"), {})})
    assert ran.statuses == [1, 1]
    [error] = ran.errors
    assert "missing.prototxt" in error


def test_what_the_first_rank_is_asked_all_do(folder: Path) -> None:
    words = ("train", "-solver", write_solver("one", 6, "max_iter: 1000"))
    ran = run_ranks(2, *words, others={0: Rank(words, signalled(signal.SIGINT, 3))})
    assert ran.statuses == [0, 0]
    assert "Optimization stopped early." in ran.log
    assert Path("one_iter_4.solverstate").exists()


def test_a_rank_that_is_told_to_end_says_so(folder: Path) -> None:
    words = ("train", "-solver", write_solver("one", 6, "max_iter: 1000"))
    ran = run_ranks(2, *words, others={0: Rank(words, signalled(signal.SIGTERM, 3))})
    assert ran.statuses == [128 + signal.SIGTERM, 1]
    [error] = ran.errors
    assert error.startswith("rank 0 was told to end")


def test_all_ranks_stop_early_where_the_tests_of_the_first_say_so(folder: Path) -> None:
    fields = "max_iter: 1000 test_iter: 5 test_interval: 5 early_stopping: 2 min_delta: 1 random_seed: 1"
    ran = run_ranks(2, "train", "-solver", write_solver("one", 6, fields))
    assert ran.statuses == [0, 0]
    assert ran.log.count("Early stopping: Iteration 15") == 1
    assert Path("one_iter_15.solverstate").exists()


def test_torchrun_starts_ranks(folder: Path) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    solver = write_solver("one", 6, "max_iter: 2")
    words = [*torchrun, "-m", "pipeline.caffe", "train", "-solver", solver, "-log_dir", "."]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    ran = subprocess.run(words, check=False, capture_output=True, text=True, timeout=600, env=environment)
    assert ran.returncode == 0, ran.stderr
    assert len(losses(ran.stderr)) == 2
    assert len(list(folder.glob("caffe.train.INFO.*"))) == 1
    assert Path("one_iter_2.solverstate").exists()


@pytest.fixture
def second_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mode, "solver_count", 2)
    monkeypatch.setattr(mode, "solver_rank", 1)


def labels(layer: str, phase: Phase) -> list[float]:
    """Of two batches of a data layer whose second top they are."""
    net = Net(text_format.Parse(f'layer {{ name: "data" top: "data" top: "label" {layer} }}', NetParameter()), phase)
    return [label for _ in range(2) for label in net.forward()["label"].flatten().tolist()]


def test_data_gives_a_rank_every_other_record_in_train(folder: Path, second_of_two: None) -> None:
    layer = 'type: "Data" data_param { source: "database" batch_size: 3 backend: LMDB }'
    assert labels(layer, TRAIN) == [number % 3 for number in (1, 3, 5, 7, 9, 11)]
    assert labels(layer, TEST) == [number % 3 for number in range(6)]


def test_hdf5_data_gives_a_rank_every_other_row_in_train(folder: Path, second_of_two: None) -> None:
    rows = np.arange(5, dtype=np.float32)
    write_hdf5(Path("rows.h5"), {"data": rows, "label": rows})
    Path("files.txt").write_text("rows.h5")
    layer = 'type: "HDF5Data" hdf5_data_param { source: "files.txt" batch_size: 3 }'
    assert labels(layer, TRAIN) == [1, 3, 0, 2, 4, 1]
    assert labels(layer, TEST) == [0, 1, 2, 3, 4, 0]


def test_image_data_gives_a_rank_every_other_line_in_train(folder: Path, second_of_two: None) -> None:
    import cv2

    cv2.imwrite("image.png", np.zeros((4, 4, 3), np.uint8))
    Path("list.txt").write_text("".join(f"image.png {number}\n" for number in range(5)))
    layer = 'type: "ImageData" image_data_param { source: "list.txt" batch_size: 3 }'
    assert labels(layer, TRAIN) == [1, 3, 0, 2, 4, 1]
    assert labels(layer, TEST) == [0, 1, 2, 3, 4, 0]


def test_several_gpus_start_torchrun(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[list[str]] = []
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    monkeypatch.setattr("torch.distributed.is_nccl_available", lambda: True)
    monkeypatch.setattr("torch.distributed.run.main", started.append)
    for gpus, count in (("0,2", 2), ("all", 4)):
        assert run_command("train", "-solver", "solver.prototxt", "-gpu", gpus).status == 0
        assert started.pop() == [
            *("--standalone", f"--nproc-per-node={count}", "-m", "--", "pipeline.caffe"),
            *("train", "-solver", "solver.prototxt", "-gpu", gpus),
        ]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (SignalException("", signal.SIGTERM), 128 + signal.SIGTERM),
        (ChildFailedError("", {1: ProcessFailure(1, 0, 3, "none")}), 3),
    ],
)
def test_the_launcher_ends_as_its_ranks_do(error: Exception, status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.distributed.run.main", Mock(side_effect=error))
    with pytest.raises(SystemExit, match=f"^{status}$"):
        parallel.launch(2, "pipeline")


def test_the_launcher_names_a_rank_that_was_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    killed = ChildFailedError("", {1: ProcessFailure(1, 0, -signal.SIGKILL, "none")})
    monkeypatch.setattr("torch.distributed.run.main", Mock(side_effect=killed))
    with pytest.raises(RankError, match=r"^rank 1 was killed \(SIGKILL\)"):
        parallel.launch(2, "pipeline")


def test_several_gpus_without_nccl_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("torch.distributed.is_nccl_available", lambda: False)
    ran = run_command("train", "-solver", "solver.prototxt", "-gpu", "0,1")
    assert ran.status == 1
    assert "training on 2 GPUs needs NCCL, which torch" in ran.log


def test_gpus_and_processes_must_be_as_many(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    ran = run_command("train", "-solver", write_solver("one", 6, "max_iter: 2"), "-gpu", "1")
    assert ran.status == 1
    assert "-gpu 1: 1 GPUs for 2 processes on this machine; name one for each" in ran.log


@pytest.mark.parametrize("gpus", ["0", "0,1", "all"])
def test_gpus_that_are_absent_are_reported(folder: Path, monkeypatch: pytest.MonkeyPatch, gpus: str) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    ran = run_command("train", "-solver", write_solver("one", 6, "max_iter: 2"), "-gpu", gpus)
    assert ran.status == 1
    assert f"-gpu {gpus}: torch finds none here; leave -gpu out to run on the CPU" in ran.log
