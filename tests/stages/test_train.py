"""Training: what it writes, that it resumes where it was stopped, bit for bit, and what it refuses."""

import csv
import hashlib
import json
import logging
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

import cv2
import numpy as np
import pytest
import torch
from helpers.pictures import read_picture
from helpers.pretended_gpu import pretended_gpus
from helpers.ranks import Rank, run_ranks, signalled

import pipeline.stages.train
from pipeline.__main__ import main
from pipeline.base.errors import InputError
from pipeline.caffe import precision
from pipeline.caffe.common import mode
from pipeline.caffe.database import DatabaseReader, DatabaseWriter
from pipeline.caffe.hdf5.files import write_hdf5
from pipeline.caffe.net import build_net
from pipeline.caffe.proto.blob_proto import write_mean
from pipeline.caffe.proto.caffe_pb2 import TEST, TRAIN, SolverParameter
from pipeline.caffe.proto.files import parse_text, read_solver, write_prototxt
from pipeline.caffe.solver import POLICIES, SolverError, get_solver
from pipeline.caffe.solver.parallel import NetOfRank
from pipeline.caffe.solver.snapshot import find_snapshots
from pipeline.classifier.training_metrics import METRICS, plot
from pipeline.stages.lmdb import lmdb
from pipeline.stages.mean import mean
from pipeline.stages.train import train

NET = """name: "Small"
layer {{ name: "data" type: "Data" top: "data" top: "label" include {{ phase: TRAIN }}
  transform_param {{ crop_size: 42 mirror: true mean_file: "{data}/mean.binaryproto" }}
  data_param {{ source: "{data}/train_lmdb" batch_size: 7 backend: LMDB }} }}
layer {{ name: "data" type: "Data" top: "data" top: "label" include {{ phase: TEST }}
  transform_param {{ crop_size: 42 mean_file: "{data}/mean.binaryproto" }}
  data_param {{ source: "{data}/val_lmdb" batch_size: 4 backend: LMDB }} }}
layer {{ name: "conv" type: "Convolution" bottom: "data" top: "conv" convolution_param {{ num_output: 3 kernel_size: 5
  stride: 3 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "bn" type: "BatchNorm" bottom: "conv" top: "conv" }}
layer {{ name: "drop" type: "Dropout" bottom: "conv" top: "conv" }}
layer {{ name: "fc" type: "InnerProduct" bottom: "conv" top: "fc" inner_product_param {{ num_output: {classes}
  weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "accuracy" type: "Accuracy" bottom: "fc" bottom: "label" top: "accuracy" include {{ phase: TEST }} }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" top: "loss" }}
"""
SOLVER = """net: "{net}" test_iter: 2 test_interval: 10 base_lr: 0.01 lr_policy: "multistep" gamma: 0.1 stepvalue: 20
momentum: 0.9 weight_decay: 0.0005 display: 5 max_iter: {max_iter} snapshot: 10 snapshot_prefix: "{prefix}"
random_seed: 1 average_loss: 3
"""


@pytest.fixture
def data(small_manifest: Path, tmp_path: Path) -> Path:
    """The databases and mean of the small set."""
    folder = tmp_path / "databases"
    lmdb(small_manifest, folder, "kaggle", seed=1)
    mean(folder / "train_lmdb", folder / "mean.binaryproto")
    return folder


def write_run(folder: Path, data: Path, classes: int = 7, **changed: object) -> Path:
    """Write net and solver of a run to `folder`, with the solver's fields `changed`; return the solver's path."""
    folder.mkdir(exist_ok=True)
    (folder / "net.prototxt").write_text(NET.format(data=data, classes=classes))
    text = SOLVER.format(net=folder / "net.prototxt", prefix=folder / "snapshots/small", max_iter=40)
    solver = parse_text(text, SolverParameter, "solver")
    for name, value in changed.items():
        setattr(solver, name, value)
    write_prototxt(folder / "solver.prototxt", solver)
    return folder / "solver.prototxt"


def rows(folder: Path) -> list[dict[str, str]]:
    with open(folder / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def uninterrupted(tmp_path: Path, data: Path) -> Path:
    solver = write_run(tmp_path / "whole", data)
    train(solver, "cpu", "float32", threads=1)
    return solver.parent


def test_a_run_leaves_weights_log_metrics_and_plots(uninterrupted: Path) -> None:
    table = rows(uninterrupted)
    assert [int(row["iteration"]) for row in table] == list(range(0, 41, 5))
    assert [row["lr"] for row in table] == [*["0.01"] * 4, *["0.001"] * 4, ""]
    assert all(row["train_loss"] for row in table)  # the last forward's too
    assert [row["test_accuracy"] != "" for row in table] == [i % 10 == 0 for i in range(0, 41, 5)]
    assert float(table[4]["epoch"]) == pytest.approx(20 * 7 / 24, abs=0.01)
    # The best test, the earliest on a tie, is the one whose snapshot is kept beside the newest two.
    tested = {int(row["iteration"]): float(row["test_accuracy"]) for row in table if row["test_accuracy"]}
    best = max((i for i in tested if i), key=lambda i: (tested[i], -i))
    prefix = str(uninterrupted / "snapshots/small")
    kept = find_snapshots(prefix)
    assert {snapshot.iteration for snapshot in kept} == {best, 30, 40}
    weights = {snapshot.iteration: snapshot.weights.read_bytes() for snapshot in kept}
    assert (uninterrupted / "best.caffemodel").read_bytes() == weights[best]
    assert (uninterrupted / "final.caffemodel").read_bytes() == weights[40]
    for name in ("loss.png", "accuracy.png"):
        image = read_picture(uninterrupted / name)
        assert len(np.unique(image.reshape(-1, 3), axis=0)) > 10  # curves and words, no blank sheet


def test_snapshots_in_hdf5_leave_the_same_caffemodels(uninterrupted: Path, tmp_path: Path, data: Path) -> None:
    solver = write_run(tmp_path / "hdf5", data, snapshot_format=SolverParameter.HDF5)
    train(solver, "cpu", "float32", threads=1)
    assert {path.suffix for path in (solver.parent / "snapshots").iterdir()} == {".h5", ".json"}
    for name in ("best.caffemodel", "final.caffemodel"):
        assert (solver.parent / name).read_bytes() == (uninterrupted / name).read_bytes()


def test_files_of_rows_that_decide_a_run_are_recorded(tmp_path: Path) -> None:
    rows, listed = tmp_path / "rows.h5", tmp_path / "rows.txt"
    write_hdf5(rows, {"data": np.ones((4, 3)), "label": np.zeros(4)})
    listed.write_text(str(rows))
    (tmp_path / "net.prototxt").write_text(
        f'layer {{ name: "d" type: "HDF5Data" top: "data" top: "label" hdf5_data_param {{ source: "{listed}" '
        'batch_size: 2 } }\nlayer { name: "fc" type: "InnerProduct" bottom: "data" top: "fc" inner_product_param { '
        'num_output: 2 } }\nlayer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" top: "loss" }'
    )
    (tmp_path / "solver.prototxt").write_text(
        f'net: "{tmp_path}/net.prototxt" base_lr: 0.1 lr_policy: "fixed" max_iter: 1 display: 1 '
        f'snapshot_prefix: "{tmp_path}/run"'
    )
    train(tmp_path / "solver.prototxt", "cpu", threads=1)
    recorded = json.loads((tmp_path / "run.json").read_text())["sha256"]
    assert recorded[str(rows)] == hashlib.sha256(rows.read_bytes()).hexdigest()
    assert str(listed) in recorded


def test_a_run_on_a_gpu_resumes_to_the_bit_and_is_averaged_there(data: Path, tmp_path: Path) -> None:
    whole, solver = (write_run(tmp_path / name, data, max_iter=20) for name in ("whole", "stopped"))
    [(place, stopping)] = signalled(signal.SIGINT, 7).items()
    with pretended_gpus(1):
        train(whole, "cuda", "float32", threads=1, average=2)
        with pytest.raises(SystemExit), patch(place, stopping):
            train(solver, "cuda", "float32", threads=1, average=2)
        train(solver, "auto", "float32", threads=1, average=2)
    assert json.loads((solver.parent / "run.json").read_text())["device"] == "Pretended GPU"
    assert "Resuming at iteration 8" in (solver.parent / "train.log").read_text()
    for name in ("best", "final", "averaged"):
        weights = [path.parent / f"{name}.caffemodel" for path in (whole, solver)]
        assert weights[0].read_bytes() == weights[1].read_bytes()


def write_shared_run(folder: Path, data: Path) -> Path:
    """A run that draws nothing at random, so that processes train it as one does."""
    solver = write_run(folder, data, max_iter=20, display=1)
    kept = (line for line in NET.format(data=data, classes=7).splitlines() if '"bn"' not in line and "Drop" not in line)
    net = "\n".join(kept).replace("crop_size: 42 ", "").replace("mirror: true ", "")
    (folder / "net.prototxt").write_text(net.replace("batch_size: 7", "batch_size: 6"))
    return solver


def test_processes_train_as_one_and_another_number_of_them_resumes(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    whole, solver = (write_shared_run(tmp_path / name, data) for name in ("whole", "shared"))
    train(whole, "cpu", "float32", threads=1)
    words = ("train", str(solver), "--device", "cpu", "--precision", "float32", "--threads", "1", "--processes")
    stopping = Rank((*words, "2"), signalled(signal.SIGINT, 7))
    ran = run_ranks(2, *words, "2", others={0: stopping}, module="pipeline")
    assert ran.statuses == [130, 0], ran.log
    assert "stopped at iteration 8 of 20; the same command resumes from there" in ran.log
    ran = run_ranks(3, *words, "3", module="pipeline")
    assert ran.statuses == [0, 0, 0], ran.log
    assert "starting anew" not in ran.log
    assert json.loads((solver.parent / "run.json").read_text())["processes"] == 3
    ours, wanted = ([float(row["train_loss"]) for row in rows(path.parent)] for path in (solver, whole))
    np.testing.assert_allclose(ours, wanted, rtol=0, atol=1e-5)
    assert [row["epoch"] for row in rows(solver.parent)] == [row["epoch"] for row in rows(whole.parent)]


def test_a_batch_that_does_not_divide_among_processes_is_refused(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mode, "solver_count", 2)
    said = r"net.prototxt:2: layer 'data': batch_size 7 does not divide among 2 processes$"
    with pytest.raises(InputError, match=said):
        get_solver(read_solver(write_run(tmp_path / "run", data)), net_type=NetOfRank)


def test_processes_are_started_by_torchs_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[list[str]] = []
    words = ["--log", "train.log", "train", "solver.prototxt", "--processes", "2"]
    monkeypatch.setattr("sys.argv", ["expressions", *words])
    monkeypatch.setattr("torch.distributed.run.main", started.append)
    monkeypatch.setattr("pipeline.base.console.set_up", lambda log_file: None)
    with pytest.raises(SystemExit, match=r"^0$"):
        main()
    assert started == [["--standalone", "--nproc-per-node=2", "-m", "--", "pipeline", *words]]


def test_processes_that_are_told_to_end_end_as_one_does(data: Path, tmp_path: Path) -> None:
    solver = write_shared_run(tmp_path / "run", data)
    solver.write_text(solver.read_text().replace("max_iter: 20", "max_iter: 1000000"))
    log = tmp_path / "train.log"
    words = f"--log {log} train {solver} --device cpu --precision float32 --processes 2".split()
    process = subprocess.Popen([sys.executable, "-m", "pipeline", *words], stderr=subprocess.PIPE, text=True)
    started = time.monotonic()
    while not find_snapshots(str(tmp_path / "run/snapshots/small")):
        assert process.poll() is None
        assert time.monotonic() - started < 300
        time.sleep(0.1)
    process.terminate()
    said = process.communicate(timeout=300)[1]
    assert process.returncode == 128 + signal.SIGTERM, said
    assert "Traceback" not in said
    for text in (said, log.read_text()):
        assert re.search(r"stopped at iteration \d+ of 1000000; the same command resumes from there$", text.rstrip())


def test_a_gpu_that_is_absent_is_refused(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    solver = write_run(tmp_path / "run", data)
    with pytest.raises(InputError, match=r"^device cuda: torch .* finds no GPU here; choose cpu$"):
        train(solver, "cuda", threads=1)
    assert sorted(path.name for path in solver.parent.iterdir()) == ["net.prototxt", "solver.prototxt"]


def test_a_run_on_listed_pictures_records_the_list_and_counts_iterations(tmp_path: Path) -> None:
    listed = tmp_path / "pictures.txt"
    listed.write_text("dark.png 0\nlight.png 1\n")
    for name, value in (("dark", 40), ("light", 200)):
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.full((4, 5, 3), value, np.uint8))
    (tmp_path / "net.prototxt").write_text(
        f'layer {{ name: "d" type: "ImageData" top: "data" top: "label" image_data_param {{ source: "{listed}" '
        f'root_folder: "{tmp_path}/" batch_size: 2 }} }}\n'
        'layer { name: "fc" type: "InnerProduct" bottom: "data" top: "fc" inner_product_param { num_output: 2 } }\n'
        'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" top: "loss" }'
    )
    (tmp_path / "solver.prototxt").write_text(
        f'net: "{tmp_path}/net.prototxt" base_lr: 1e-5 lr_policy: "fixed" max_iter: 2 display: 1 '
        f'snapshot_prefix: "{tmp_path}/run"'
    )
    train(tmp_path / "solver.prototxt", "cpu", threads=1)
    recorded = json.loads((tmp_path / "run.json").read_text())["sha256"]
    assert recorded[str(listed)] == hashlib.sha256(listed.read_bytes()).hexdigest()
    assert [(row["iteration"], row["epoch"]) for row in rows(tmp_path)] == [("0", ""), ("1", ""), ("2", "")]
    assert (tmp_path / "loss.png").exists()


def test_a_run_on_a_leveldb_goes_on_though_reading_changes_its_files(
    tmp_path: Path, data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with DatabaseReader(data / "train_lmdb") as ours, DatabaseWriter(data / "train_leveldb", "leveldb") as theirs:
        for key, datum in ours:
            theirs.put(key, datum)
    solver = write_run(tmp_path / "run", data, max_iter=10)
    net = solver.with_name("net.prototxt")
    net.write_text(
        net.read_text().replace(
            'train_lmdb" batch_size: 7 backend: LMDB', 'train_leveldb" batch_size: 7 backend: LEVELDB'
        )
    )
    train(solver, "cpu", "float32", threads=1)
    with caplog.at_level("INFO", "pipeline"):
        train(solver, "cpu", "float32", threads=1)
    assert "going on from" in caplog.text
    assert "starting anew" not in caplog.text


def test_weights_that_a_run_starts_from_are_recorded(uninterrupted: Path, data: Path, tmp_path: Path) -> None:
    solver = write_run(tmp_path / "tuned", data, max_iter=5)
    start = uninterrupted / "final.caffemodel"
    solver.write_text(f'{solver.read_text()}weights: "{start}"\n')
    train(solver, "cpu", "float32", threads=1)
    recorded = json.loads((solver.parent / "run.json").read_text())["sha256"]
    assert recorded[str(start)] == hashlib.sha256(start.read_bytes()).hexdigest()


def test_a_run_that_shows_and_tests_nothing_ends_all_the_same(data: Path, tmp_path: Path) -> None:
    solver = write_run(tmp_path / "silent", data, max_iter=3, display=0, test_interval=0)
    solver.write_text("".join(line for line in solver.read_text().splitlines(True) if "test_i" not in line))
    train(solver, "cpu", "float32", threads=1)
    assert rows(solver.parent) == []
    assert (solver.parent / "final.caffemodel").exists()


def test_the_log_has_the_lines_that_caffes_parsers_look_for(uninterrupted: Path) -> None:
    text = (uninterrupted / "train.log").read_text()
    assert all(re.match(r"[IWEF]\d{4} \d\d:\d\d:\d\d\.\d{6} +\d+ \S+:\d+\] ", line) for line in text.splitlines())
    assert "] Solving Small" in text
    # The expressions of caffe/tools/extra/parse_log.py.
    iterations = [int(match) for match in re.findall(r"Iteration (\d+) \(", text)]
    assert iterations == list(range(0, 40, 5))
    trained = re.findall(r"Train net output #(\d+): (\S+) = ([\.\deE+-]+)", text)
    tested = re.findall(r"Test net output #(\d+): (\S+) = ([\.\deE+-]+)", text)
    assert {name for _, name, _ in trained} == {"loss"}
    assert [(number, name) for number, name, _ in tested] == [("0", "accuracy"), ("1", "loss")] * 5
    rates = re.findall(r"lr = ([-+]?[0-9]*\.?[0-9]+(?:[eE]?[-+]?[0-9]+)?)", text)
    assert rates == ["0.01"] * 4 + ["0.001"] * 4


def test_a_killed_run_goes_on_and_ends_with_the_same_weights_to_the_bit(tmp_path: Path, data: Path) -> None:
    longer: dict[str, Any] = {
        "max_iter": 300,
        "snapshot": 20,
        "test_interval": 20,
        "warmup_iter": 50,
        "lr_policy": "plateau",
        "plateau_patience": 2,
        "gamma": 0.5,
        "early_stopping": 12,
        "test_metric": "loss",
    }
    whole = write_run(tmp_path / "whole", data, **longer)
    solver = write_run(tmp_path / "killed", data, **longer)
    train(whole, "cpu", "float32", threads=1, average=4)
    command = [
        sys.executable,
        "-m",
        "pipeline",
        "train",
        str(solver),
        "--device",
        "cpu",
        "--precision",
        "float32",
        "--threads",
        "1",
        "--average",
        "4",
    ]

    def killed(number: int, after: int) -> int:
        """Run until the snapshot of iteration `after` is there, send the signal, and return the exit status."""
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        state = tmp_path / f"killed/snapshots/small_iter_{after}.solverstate"
        while not state.exists() and process.poll() is None:
            time.sleep(0.001)
        process.send_signal(number)
        return process.wait(timeout=120)

    assert killed(signal.SIGKILL, 20) == -signal.SIGKILL
    assert killed(signal.SIGTERM, 80) == 128 + signal.SIGTERM
    subprocess.run(command, capture_output=True, check=True)
    for name in ("final.caffemodel", "best.caffemodel", "averaged.caffemodel"):
        assert (solver.parent / name).read_bytes() == (whole.parent / name).read_bytes()
    assert rows(solver.parent) == rows(whole.parent)


def test_the_last_snapshots_are_averaged_and_measured(
    tmp_path: Path, data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    solver = write_run(tmp_path / "run", data, snapshot=5, max_iter=38, test_interval=1)
    with caplog.at_level("INFO", "pipeline"):
        train(solver, "cpu", "float32", threads=1, average=4)
    kept = {found.iteration: found.weights for found in find_snapshots(str(tmp_path / "run/snapshots/small"))}
    assert set(kept) >= {25, 30, 35, 38}
    net, one = (build_net(solver.with_name("net.prototxt"), TRAIN, seed=1) for _ in range(2))
    net.copy_from(tmp_path / "run/averaged.caffemodel")
    weights = []
    for iteration in (25, 30, 35, 38):
        one.copy_from(kept[iteration])
        weights.append(one.params["fc"][0].detach().double().numpy())
    np.testing.assert_allclose(net.params["fc"][0].detach().numpy(), np.mean(weights, axis=0), rtol=1e-5, atol=1e-8)
    assert net.params["bn"][2].item() == 4  # batches of 7, in which 24 images are an epoch
    test_net = build_net(solver.with_name("net.prototxt"), TEST)
    test_net.copy_from(tmp_path / "run/averaged.caffemodel")
    accuracy = np.mean([test_net.forward()["accuracy"].item() for _ in range(2)])
    said = f"Averaged net output #0: accuracy = {accuracy:.6g}"
    assert said in (tmp_path / "run/train.log").read_text()
    assert f"averaged.caffemodel, of iterations 25, 30, 35, 38: accuracy = {accuracy:.6g}" in caplog.text


def test_an_average_of_snapshots_that_there_are_not_is_refused(tmp_path: Path, data: Path) -> None:
    solver = write_run(tmp_path / "run", data)
    for count in (1, 5):
        with pytest.raises(InputError, match=f"average {count} where at least 2 and at most the run's 4 snapshots"):
            train(solver, "cpu", "float32", threads=1, average=count)
    assert not (tmp_path / "run/train.log").exists()
    train(solver, "cpu", "float32", threads=1)
    best = (tmp_path / "run/best.caffemodel").read_bytes()
    with pytest.raises(InputError, match=r"average 4: the snapshots of iterations (10|20) are gone"):
        train(solver, "cpu", "float32", threads=1, average=4)
    assert (tmp_path / "run/best.caffemodel").read_bytes() == best


# No image is read better after the first step, which takes the rate to 0 but for the statistics of BatchNorm.
STALLS: dict[str, Any] = {"max_iter": 400, "snapshot": 10, "test_interval": 10, "early_stopping": 3, "gamma": 0.0}


def test_early_stopping_keeps_the_best_weights_and_says_so(
    tmp_path: Path, data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    solver = write_run(tmp_path / "run", data, **STALLS, test_metric="loss")
    with caplog.at_level("INFO", "pipeline"):
        train(solver, "cpu", threads=1, average=5)
    losses = {int(row["iteration"]): float(row["test_loss"]) for row in rows(solver.parent) if row["test_loss"]}
    losses.pop(0)
    best = min(losses, key=lambda iteration: losses[iteration])
    assert max(losses) == best + 30 < 400
    kept = {found.iteration: found for found in find_snapshots(str(tmp_path / "run/snapshots/small"))}
    assert (tmp_path / "run/best.caffemodel").read_bytes() == kept[best].weights.read_bytes()
    assert (tmp_path / "run/final.caffemodel").read_bytes() == kept[best + 30].weights.read_bytes()
    assert f"stopped early at iteration {best + 30}: 3 tests no better than loss" in caplog.text
    log = (tmp_path / "run/train.log").read_text()
    assert f"Early stopping: Iteration {best + 30}, 3 tests no better than loss = {losses[best]:.6g}" in log
    assert "Optimization stopped early." in log
    # Started again it has nothing to do, and ends the same.
    names = ("best.caffemodel", "final.caffemodel", "averaged.caffemodel", "metrics.csv", "loss.png")
    before = {name: (tmp_path / "run" / name).read_bytes() for name in names}
    train(solver, "cpu", threads=1, average=5)
    changed = [name for name in names if (tmp_path / "run" / name).read_bytes() != before[name]]
    assert changed in ([], ["metrics.csv"], ["metrics.csv", "loss.png"])


def test_tensorboard_shows_what_metrics_csv_says(tmp_path: Path, data: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    solver = write_run(tmp_path / "run", data, max_iter=10)
    cv2.imwrite(str(tmp_path / "run/augmentation.png"), np.zeros((8, 9, 3), np.uint8))
    train(solver, "cpu", threads=1, tensorboard=True)
    shown = EventAccumulator(str(tmp_path / "run/tensorboard"))
    shown.Reload()
    for tag, name in (("loss/train", "train_loss"), ("rate/lr", "lr"), ("accuracy/test", "test_accuracy")):
        expected = [(int(row["iteration"]), float(row[name])) for row in rows(solver.parent) if row[name]]
        assert [event.step for event in shown.Scalars(tag)] == [step for step, _ in expected]
        assert [event.value for event in shown.Scalars(tag)] == pytest.approx([value for _, value in expected])
    assert [(image.width, image.height) for image in shown.Images("augmentation")] == [(9, 8)]


def test_tensorboard_without_its_package_is_refused(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    solver = write_run(tmp_path / "run", data)
    with pytest.raises(InputError, match=r"pip install 'caffe-expressions\[tensorboard\]'"):
        train(solver, "cpu", threads=1, tensorboard=True)
    assert not (tmp_path / "run/train.log").exists()


def test_the_plot_shows_the_rate_and_where_training_stopped(tmp_path: Path) -> None:
    table = tmp_path / "metrics.csv"
    lines = ["iteration,epoch,lr,train_loss,test_loss,test_accuracy"]
    lines += [f"{i},{i / 10},{0.01 * (20 - i)},{1 / (1 + i)},{2 / (1 + i)},{i / 20}" for i in range(20)]
    table.write_text("\n".join(lines) + "\n")
    plain, marked = tmp_path / "plain.png", tmp_path / "marked.png"
    plot(table, plain, tmp_path / "accuracy.png")
    plot(table, marked, tmp_path / "accuracy.png", {15: "stopped early"})
    before, after = (read_picture(path) for path in (plain, marked))
    assert before is not None
    assert after is not None
    changed = (before != after).any(axis=2)
    assert changed.any(axis=1).mean() > 0.6  # a line from top to bottom, near the right
    column = int(np.argmax(changed.sum(axis=0)))
    assert 0.6 < column / changed.shape[1] < 0.95


def test_other_settings_start_anew_and_say_so(
    tmp_path: Path, data: Path, uninterrupted: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = (uninterrupted / "final.caffemodel").read_bytes()
    solver = write_run(uninterrupted, data, base_lr=0.02)
    train(solver, "cpu", "float32", threads=1)
    assert "made by other settings: starting anew" in caplog.text
    assert f"run.json says sha256 {solver}: another one" in caplog.text
    assert (uninterrupted / "final.caffemodel").read_bytes() != before
    assert rows(uninterrupted)[0]["lr"] == "0.02"
    record = json.loads((uninterrupted / "run.json").read_text())
    assert set(record["sha256"]) >= {
        str(solver),
        f"{data}/train_lmdb/data.mdb",
        f"{data}/val_lmdb/data.mdb",
        f"{data}/mean.binaryproto",
    }


def test_an_altered_record_starts_anew_and_names_what_differs(
    data: Path, uninterrupted: Path, caplog: pytest.LogCaptureFixture
) -> None:
    solver = uninterrupted / "solver.prototxt"
    altered = record(solver)
    altered["versions"]["torch"], altered["threads"] = "1.0", 7
    (uninterrupted / "run.json").write_text(json.dumps(altered))
    train(solver, "cpu", "float32", threads=1)
    assert "threads: 7, now 1; versions torch: 1.0, now " in caplog.text
    assert "precision" not in caplog.text


def record(solver: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((solver.parent / "run.json").read_text())
    return found


def measure(monkeypatch: pytest.MonkeyPatch, speed: float, *, units: bool = True) -> None:
    """Let bfloat16 have units or none, and be so many times as fast as float32."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": units})
    for module in (pipeline.stages.train, precision):
        monkeypatch.setattr(module, "bfloat16_speed", lambda device: speed)


def test_auto_records_what_was_asked_and_what_ran(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "pipeline")
    solver = write_run(tmp_path / "run", data, max_iter=1)
    for speed, ran in ((1.5, "bfloat16"), (0.9, "float32")):
        measure(monkeypatch, speed)
        (solver.parent / "run.json").unlink(missing_ok=True)
        train(solver, "cpu", threads=1)
        assert record(solver)["precision_asked"] == "auto"
        assert record(solver)["precision"] == ran
        assert f"precision auto: {ran}, because bfloat16 is {speed} times as fast as float32 here" in caplog.text


@pytest.mark.parametrize("asked", ["auto", "bfloat16"])
def test_a_run_resumes_in_the_precision_of_its_snapshots(
    asked: str, tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "pipeline")
    measure(monkeypatch, 1.5)
    solver = write_run(tmp_path / "run", data, max_iter=10)
    train(solver, "cpu", asked, threads=1)
    final = (solver.parent / "final.caffemodel").read_bytes()
    measure(monkeypatch, 0.1, units=False)  # another measurement, or another processor
    train(solver, "cpu", threads=1)
    assert (record(solver)["precision_asked"], record(solver)["precision"]) == ("auto", "bfloat16")
    assert (solver.parent / "final.caffemodel").read_bytes() == final
    assert "starting anew" not in caplog.text
    assert "it takes 10.0 times as long as float32" in caplog.text
    train(solver, "cpu", "float32", threads=1)
    assert "starting anew" in caplog.text
    assert record(solver)["precision"] == "float32"


def test_a_run_that_was_recorded_before_auto_was_goes_on(
    uninterrupted: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    solver = uninterrupted / "solver.prototxt"
    before = record(solver)
    del before["precision_asked"]
    (uninterrupted / "run.json").write_text(json.dumps(before))
    measure(monkeypatch, 1.5)
    train(solver, "cpu", threads=1)
    assert "starting anew" not in caplog.text
    assert record(solver) == before | {"precision_asked": "auto"}


def test_bfloat16_without_units_warns_with_the_measured_factor(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    measure(monkeypatch, 1 / 6, units=False)
    solver = write_run(tmp_path / "run", data, max_iter=1)
    train(solver, "cpu", "bfloat16", threads=1)
    assert "there are no units for it here, and it takes 6.0 times as long as float32" in caplog.text
    assert record(solver)["precision"] == "bfloat16"


@pytest.mark.parametrize(
    ("name", "left"),
    [("run.json", None), ("run.json", b'{"engine": "tor'), ("metrics.csv", None), ("metrics.csv", b"iteration\xff,")],
)
def test_a_run_resumes_without_what_can_be_made_anew(
    uninterrupted: Path, caplog: pytest.LogCaptureFixture, name: str, left: bytes | None
) -> None:
    """As after a power cut: a file is gone, or holds something else."""
    caplog.set_level("INFO", "pipeline")
    before = {file: (uninterrupted / file).read_bytes() for file in ("final.caffemodel", "best.caffemodel")}
    table = rows(uninterrupted)
    for path in (uninterrupted / "snapshots").glob("*_iter_40*"):
        path.unlink()
    (uninterrupted / name).unlink()
    if left is not None:
        (uninterrupted / name).write_bytes(left)
    caplog.clear()
    train(uninterrupted / "solver.prototxt", "cpu", "float32", threads=1)
    assert "going on from" in caplog.text
    assert f"{uninterrupted / name}:" in caplog.text
    assert {file: (uninterrupted / file).read_bytes() for file in before} == before
    assert rows(uninterrupted) == table
    if name == "run.json":
        assert "Nothing says which settings made the snapshots" in caplog.text
        assert record(uninterrupted / "solver.prototxt")["earlier"] == [
            {"until": 30, "settings": "unknown, for run.json was lost"}
        ]


def test_without_its_log_either_a_run_resumes_all_the_same(
    uninterrupted: Path, caplog: pytest.LogCaptureFixture
) -> None:
    final = (uninterrupted / "final.caffemodel").read_bytes()
    for path in (uninterrupted / "snapshots").glob("*_iter_40*"):
        path.unlink()
    for name in ("metrics.csv", "train.log"):
        (uninterrupted / name).unlink()
    train(uninterrupted / "solver.prototxt", "cpu", "float32", threads=1)
    assert "what was measured before is not counted" in caplog.text
    assert (uninterrupted / "final.caffemodel").read_bytes() == final
    assert [row["iteration"] for row in rows(uninterrupted)] == ["30", "35", "40"]


def test_a_finished_run_is_not_trained_again(uninterrupted: Path, data: Path) -> None:
    table = rows(uninterrupted)
    (uninterrupted / "loss.png").unlink()
    train(uninterrupted / "solver.prototxt", "cpu", threads=1)
    assert (uninterrupted / "loss.png").exists()
    assert [row["train_loss"] for row in rows(uninterrupted)[:-1]] == [row["train_loss"] for row in table[:-1]]


def test_a_loss_that_is_no_number_stops_the_run(tmp_path: Path, data: Path) -> None:
    solver = write_run(tmp_path / "run", data, base_lr=1e30)
    with pytest.raises(InputError, match=r"the loss is (nan|inf) at iteration \d+: training diverged; lower base_lr"):
        train(solver, "cpu", "float32", threads=1)


def test_a_mean_of_another_size_is_named(tmp_path: Path, data: Path) -> None:
    write_mean(data / "mean.binaryproto", np.zeros((1, 42, 42)))
    solver = write_run(tmp_path / "run", data)
    said = r"net\.prototxt:2: layer 'data': .*mean\.binaryproto.*\(1, 42, 42\).*\(1, 48, 48\)"
    with pytest.raises(InputError, match=said):
        train(solver, "cpu", "float32")


def test_labels_beyond_num_output_are_named(tmp_path: Path, data: Path) -> None:
    with pytest.raises(InputError, match=r"layer '(loss|accuracy)': label [4-6] where the scores have classes 0 to 3"):
        train(write_run(tmp_path / "run", data, classes=4), "cpu", threads=1)


def test_a_damaged_snapshot_is_named(uninterrupted: Path) -> None:
    state = uninterrupted / "snapshots/small_iter_40.solverstate"
    state.write_bytes(state.read_bytes()[:-9])
    said = r"small_iter_40\.solverstate: no whole binary SolverState.* Delete .*_40\.solverstate to resume"
    with pytest.raises(InputError, match=said):
        train(uninterrupted / "solver.prototxt", "cpu", threads=1)
    state.unlink()
    train(uninterrupted / "solver.prototxt", "cpu", threads=1)
    assert state.exists()


def test_a_damaged_hdf5_snapshot_is_named(tmp_path: Path, data: Path) -> None:
    solver = write_run(tmp_path / "hdf5", data, snapshot_format=SolverParameter.HDF5)
    train(solver, "cpu", "float32", threads=1)
    weights = solver.parent / "snapshots/small_iter_40.caffemodel.h5"
    weights.write_bytes(weights.read_bytes()[:-9])
    with pytest.raises(InputError, match=r"small_iter_40\.caffemodel\.h5: .* Delete .*_40\.solverstate\.h5 to resume"):
        train(solver, "cpu", "float32", threads=1)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ('type: "Magic"', "solver type 'Magic' is unknown"),
        ('lr_policy: "cosine"', "lr_policy 'cosine' is unknown"),
        ('lr_policy: "step"', "needs a stepsize"),
        ('lr_policy: "fixed" iter_size: 0', "iter_size 0"),
        ('lr_policy: "fixed" regularization_type: "L3"', "regularization_type 'L3'"),
        ('lr_policy: "fixed" test_iter: 1', "test_interval of at least 1"),
        ('lr_policy: "fixed"', "no net is named"),
    ],
)
def test_a_solver_that_cannot_be_is_named(fields: str, said: str) -> None:
    with pytest.raises(SolverError, match=said):
        get_solver(parse_text(fields, SolverParameter, "solver"))


def test_every_policy_has_its_formula() -> None:
    param = SolverParameter(base_lr=0.5, gamma=0.25, power=2, stepsize=3, max_iter=8)
    at_four = {name: policy(param, 4, 1) for name, policy in POLICIES.items()}
    assert at_four == pytest.approx(
        {
            "fixed": 0.5,
            "step": 0.125,
            "exp": 0.5 * 0.25**4,
            "inv": 0.5 / 4,
            "multistep": 0.125,
            "poly": 0.125,
            "sigmoid": 0.5 / (1 + np.exp(-0.25)),
        }
    )


@pytest.mark.parametrize("rows", [1, 2, 40])
def test_a_short_runs_curve_is_one_or_is_left_out_with_a_word(
    rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from matplotlib.axes import Axes

    said: list[str] = []
    drawn: list[int] = []
    annotate, draw = Axes.annotate, Axes.plot

    def watched_annotate(*args: Any, **options: Any) -> Any:
        said.append(args[1])
        return annotate(*args, **options)

    def watched_plot(*args: Any, **options: Any) -> Any:
        drawn.append(len(args[1]))
        return draw(*args, **options)

    monkeypatch.setattr(Axes, "annotate", watched_annotate)
    monkeypatch.setattr(Axes, "plot", watched_plot)
    values = [(number, number / 2, 0.01, 2 - number / 50, 1.9 - number / 60, number / 60) for number in range(rows)]
    lines = [",".join(map(str, row)) for row in values]
    (tmp_path / "metrics.csv").write_text("\n".join([",".join(METRICS), *lines]) + "\n")
    plot(tmp_path / "metrics.csv", tmp_path / "loss.png", tmp_path / "accuracy.png")
    assert all(points > 1 for points in drawn)
    assert ("the run is too short for a curve" in " ".join(said)) == (rows == 1)
    assert ("validation: only 1.883, at epoch 0.5" in said) == (rows == 2)
