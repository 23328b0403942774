"""Training FaceEmotionNet from an LMDB, batch 64: the train stage in float32 and in bfloat16 against `caffe train`.

    CAFFE_ROOT=DIR python benchmarks/train.py [train_lmdb] [--iterations N] [--repeats N]

CAFFE_ROOT is a root with real Caffe and OpenBLAS (docker/caffe-root.sh). The three train by turns from the same
database with the same prototxts, crop and mirror and dropout included, on two threads each. Rates are those that the
logs tell, the median of all intervals but each run's first, and the median of the repeats. Without a database, 2,000
images of noise in FER2013's form are written first. The last line is float32's rate over Caffe's, the one before it
bfloat16's.
"""

import argparse
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from pipeline.caffe.database import DatabaseWriter, datum_from_image, record_key
from pipeline.caffe.proto.caffe_pb2 import TRAIN
from pipeline.caffe.proto.files import read_net, read_solver, write_prototxt
from pipeline.stages.mean import mean

PROTOTXTS = Path(__file__).parents[1] / "prototxt/face_emotion_net"
DISPLAY = 20
SIDES = ("caffe", "float32", "bfloat16")


def write_noise(database: Path, count: int, backend: str = "lmdb") -> None:
    random = np.random.default_rng(0)
    with DatabaseWriter(database, backend) as writer:
        for number in range(count):
            image = random.integers(0, 256, (48, 48)).astype(np.uint8)
            writer.put(record_key(number, f"{number}.png"), datum_from_image(image, number % 7))


def write_prototxts(folder: Path, iterations: int) -> None:
    """Fill in the net and a solver for each side, their paths relative to the folder."""
    net = read_net(PROTOTXTS / "train_val.prototxt")
    for layer in net.layer:
        if layer.type == "Data" and layer.include[0].phase == TRAIN:
            layer.data_param.source = "train_lmdb"
            layer.data_param.batch_size = 64
            layer.transform_param.mean_file = "mean.binaryproto"
        if layer.name == "fc3":
            layer.inner_product_param.num_output = 7
    write_prototxt(folder / "train_val.prototxt", net)
    for side in SIDES:
        solver = read_solver(PROTOTXTS / "solver.prototxt")
        solver.net = "train_val.prototxt"
        solver.ClearField("test_interval")
        solver.max_iter, solver.display = iterations, DISPLAY
        solver.snapshot_prefix = f"{side}/snapshots/net"
        write_prototxt(folder / side / "solver.prototxt", solver)


def train(side: str, root: Path, folder: Path) -> float:
    """Train once; return iterations a second."""
    shutil.rmtree(folder / side / "snapshots", ignore_errors=True)
    (folder / side / "snapshots").mkdir()
    if side == "caffe":
        inside = Path("/", folder.relative_to(root))
        command = [
            "chroot",
            root,
            "env",
            "-C",
            inside,
            "OPENBLAS_NUM_THREADS=2",
            "GLOG_logtostderr=1",
            "caffe",
            "train",
            "-solver",
            f"{side}/solver.prototxt",
        ]
    else:
        command = [
            sys.executable,
            "-m",
            "pipeline",
            "train",
            f"{side}/solver.prototxt",
            "--device",
            "cpu",
            "--threads",
            "2",
            "--precision",
            side,
        ]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{side}: status {done.returncode}\n{done.stderr[-2000:]}")
    log = done.stderr if side == "caffe" else (folder / side / "train.log").read_text()
    intervals = re.findall(r"Iteration (\d+) \((\S+) iter/s", log)
    rates = [float(rate) for iteration, rate in intervals if int(iteration) > DISPLAY]
    (folder / side / "train.log").unlink(missing_ok=True)
    return statistics.median(rates)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("database", type=Path, nargs="?", help="train_lmdb of 48x48 grey images")
    parser.add_argument("--iterations", type=int, default=141)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    root = os.environ.get("CAFFE_ROOT")
    if root is None:
        raise SystemExit("CAFFE_ROOT is not set; docker/caffe-root.sh makes a root with real Caffe")
    with tempfile.TemporaryDirectory(dir=Path(root) / "tmp") as name:
        folder = Path(name)
        if args.database:
            shutil.copytree(args.database, folder / "train_lmdb")
        else:
            write_noise(folder / "train_lmdb", 2000)
        mean(folder / "train_lmdb", folder / "mean.binaryproto")
        write_prototxts(folder, args.iterations)
        rates: dict[str, list[float]] = {side: [] for side in SIDES}
        for _ in range(args.repeats):
            for side in SIDES:
                rates[side].append(train(side, Path(root), folder))
                print(f"{side}: {rates[side][-1]:.2f} iterations/s", flush=True)
    median = {side: statistics.median(rates[side]) for side in SIDES}
    print(", ".join(f"{side} {median[side]:.2f}" for side in SIDES), "iterations/s")
    print(f"bfloat16 ratio {median['bfloat16'] / median['caffe']:.2f}")
    print(f"ratio {median['float32'] / median['caffe']:.2f}")


if __name__ == "__main__":
    main()
