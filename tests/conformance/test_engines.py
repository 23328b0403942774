"""The pipeline's stages in real Caffe: one run through both engines, and the same measures of the same net."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from caffe_root import CaffeRoot

from pipeline.caffe.proto.files import read_net, write_prototxt
from pipeline.caffe.real_caffe import RealCaffe
from pipeline.classifier.objective import Objective
from pipeline.data import ferplus
from pipeline.stages.evaluate import evaluate
from pipeline.stages.extract import extract
from pipeline.stages.lmdb import lmdb
from pipeline.stages.mean import mean
from pipeline.stages.render import render
from pipeline.stages.targets import targets

NET = Path(__file__).parents[2] / "prototxt/face_emotion_net"
STOPPED_IN = ("torch", "caffe")  # the engines of a run that is stopped in each, and ends in the first again


@pytest.fixture
def root(caffe: CaffeRoot) -> str:
    return str(caffe.path)


@pytest.fixture
def run(small_manifest: Path, tmp_path: Path) -> Path:
    """A run's folder, rendered; its databases stand beside it."""
    databases, folder = tmp_path / "databases", tmp_path / "run"
    lmdb(small_manifest, databases, "kaggle", seed=1)
    mean(databases / "train_lmdb", databases / "mean.binaryproto")
    render(
        NET, databases, folder, epochs=30, batch_size=4, steps=[0.5], snapshot=10, seed=1, display=5, test_interval=20
    )
    return folder


def train(run: Path, engine: str, root: str) -> "subprocess.Popen[bytes]":
    command = [
        sys.executable,
        "-m",
        "pipeline",
        "train",
        str(run / "solver.prototxt"),
        "--device",
        "cpu",
        "--precision",
        "float32",
        "--threads",
        "1",
        "--engine",
        engine,
        "--caffe",
        root,
    ]
    return subprocess.Popen(command, stderr=subprocess.PIPE)


def snapshots(run: Path) -> set[int]:
    return {int(path.stem.rsplit("_", 1)[1]) for path in (run / "snapshots").glob("*.solverstate")}


def stop_after_a_snapshot(run: Path, engine: str, root: str) -> int:
    """Train until a snapshot is written, have the run stop, and return the iteration it stopped at."""
    before = snapshots(run)
    process = train(run, engine, root)
    deadline = time.monotonic() + 60
    while snapshots(run) <= before and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, errors.decode()
    return max(snapshots(run))


def test_a_run_goes_through_both_engines(run: Path, root: str) -> None:
    stops = [stop_after_a_snapshot(run, engine, root) for engine in STOPPED_IN]
    process = train(run, "torch", root)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors.decode()
    record = json.loads((run / "run.json").read_text())
    assert record["engine"] == "torch"
    assert [(part["engine"], part["until"]) for part in record["earlier"]] == list(zip(STOPPED_IN, stops, strict=True))
    assert 0 < stops[0] < stops[1]
    iterations = [int(row.split(",")[0]) for row in (run / "metrics.csv").read_text().splitlines()[1:]]
    assert iterations == sorted(set(iterations))
    assert all((run / name).stat().st_size for name in ("final.caffemodel", "best.caffemodel", "loss.png"))


def test_real_caffe_measures_what_the_engine_measures(
    run: Path, root: str, small_manifest: Path, tmp_path: Path
) -> None:
    stop_after_a_snapshot(run, "caffe", root)
    (weights,) = (run / "snapshots").glob(f"*_{max(snapshots(run))}.caffemodel")
    measured = []
    for caffe in (None, RealCaffe(root, 1)):
        output = tmp_path / ("caffe" if caffe else "torch")
        output.mkdir()
        measured.append(
            evaluate(
                run / "deploy.prototxt",
                weights,
                output,
                databases=tmp_path / "databases",
                mean=tmp_path / "databases/mean.binaryproto",
                manifest_path=small_manifest,
                caffe=caffe,
            )
        )
    ours, theirs = measured
    for part in ("val", "test"):
        assert ours[part]["confusion"] == theirs[part]["confusion"]
        assert ours[part]["nll"] == pytest.approx(theirs[part]["nll"], rel=1e-4)
    assert "caffe version 1.0.0" in theirs["versions"]


@pytest.mark.parametrize("learned", ["soft targets and a second head", "smoothed and weighted labels"])
def test_real_caffe_learns_what_the_engine_learns(root: str, small_csv: Path, tmp_path: Path, learned: str) -> None:
    """From one snapshot on, both engines see the same images and report the same losses."""
    databases, run, net = tmp_path / "databases", tmp_path / "run", tmp_path / "net"
    extract(small_csv, tmp_path / "images", votes_on(small_csv), labels="fer2013")
    lmdb(tmp_path / "images/manifest.csv", databases, "kaggle", seed=1)
    mean(databases / "train_lmdb", databases / "mean.binaryproto")
    objective = Objective(label_smoothing=0.1, class_weights=("disgust=2", "happy=0.5"))
    if learned.startswith("soft"):
        targets(databases, tmp_path / "targets", {"labels": 0.5, "votes": 0.5}, smoothing=0.1, auxiliary="votes")
        objective = Objective(targets=tmp_path / "targets")
    shutil.copytree(NET.parent / "small", net)
    without_dropout = read_net(net / "train_val.prototxt")
    without_dropout.layer.remove(next(layer for layer in without_dropout.layer if layer.type == "Dropout"))
    write_prototxt(net / "train_val.prototxt", without_dropout)
    render(
        net,
        databases,
        run,
        epochs=4,
        batch_size=4,
        steps=[],
        snapshot=12,
        seed=1,
        crop_size=48,
        mirror=False,
        display=1,
        test_interval=24,
        base_lr=0.01,
        objective=objective,
    )
    count = 12 * (1 + learned.startswith("soft"))  # of the twelve iterations after the snapshot
    losses = []
    for engine in ("torch", "caffe"):
        process = train(run, engine, root)
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors.decode()
        text = (run / "train.log").read_text()
        outputs = re.findall(r"Train net output #\d+: (\w+) = (\S+)", text)
        losses.append([float(value) for name, value in outputs if name in ("loss", "auxiliary_loss")][-count:])
        for path in (run / "snapshots").glob("*_24.*"):
            path.unlink()
    assert len(losses[0]) == count
    assert losses[1] == pytest.approx(losses[0], rel=2e-3)


def votes_on(csv: Path) -> Path:
    """FER+'s file for the rows of a CSV: votes for two choices of each image."""
    path = csv.with_name("fer2013new.csv")
    rows = [",".join(ferplus.COLUMNS)]
    for number, line in enumerate(csv.read_text().splitlines()[1:]):
        counts = [0] * 10
        counts[number % 8], counts[(number + 3) % 8] = 6, 4
        rows.append(f"{line.rsplit(',', 1)[1]},fer{number:07d}.png,{','.join(map(str, counts))}")
    path.write_text("\n".join(rows) + "\n")
    return path
