"""Forward and backward, as `caffe time` runs them: the engine against real Caffe with OpenBLAS, two threads each.

    CAFFE_ROOT=DIR python benchmarks/nets.py [NET ...] [--repeats N]

CAFFE_ROOT is a root with real Caffe and OpenBLAS (docker/caffe-root.sh). NET is lenet (batch 64), cifar10_full (100),
caffenet (32) or face_emotion_net (64), all four unless some are named: in TRAIN, dropout included, on a batch that both
sides have in memory: no data layer, no update. The sides take turns, each in a process of its own, whose first two
iterations are not counted. The last lines are each net's milliseconds, medians of all iterations, and Caffe's time over
the engine's, with the lowest and the highest of the turns.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from environments import CORES, keep_to_two_cores

from pipeline.caffe.memory_budget import keep_freed_memory
from pipeline.caffe.net import build_net
from pipeline.caffe.proto.caffe_pb2 import TRAIN
from pipeline.caffe.proto.files import read_net, write_prototxt

PROTOTXTS = Path(__file__).parents[1] / "prototxt"
IN_CAFFE = Path(__file__).with_name("nets_in_caffe.py")
WARM_UP = 2


class Bench(NamedTuple):
    """A net's prototxt, the shape of its images, its classes, and how often it runs in a turn."""

    net: Path
    shape: tuple[int, int, int, int]
    classes: int
    iterations: int


NETS = {
    "lenet": Bench(PROTOTXTS / "classics/lenet/train_val.prototxt", (64, 1, 28, 28), 10, 100),
    "cifar10_full": Bench(PROTOTXTS / "classics/cifar10_full/train_val.prototxt", (100, 3, 32, 32), 10, 20),
    "caffenet": Bench(PROTOTXTS / "classics/caffenet/train_val.prototxt", (32, 3, 227, 227), 1000, 4),
    "face_emotion_net": Bench(PROTOTXTS / "face_emotion_net/train_val.prototxt", (64, 1, 42, 42), 7, 20),
}


def write_bench(bench: Bench, path: Path) -> None:
    """Write the net with inputs in the place of its data layers, and beside it a batch of noise for them."""
    net = read_net(bench.net)
    layers = [layer for layer in net.layer if layer.type not in ("Data", "Accuracy")]
    del net.layer[:]
    for name, shape in (("data", bench.shape), ("label", bench.shape[:1])):
        layer = net.layer.add(name=name, type="Input", top=[name])
        layer.input_param.shape.add().dim.extend(shape)
    net.layer.extend(layers)
    write_prototxt(path, net)
    random = np.random.default_rng(0)
    np.savez(
        f"{path}.npz",
        data=random.uniform(-1, 1, bench.shape).astype(np.float32),
        label=random.integers(0, bench.classes, bench.shape[0]).astype(np.float32),
    )


def measure(path: Path, iterations: int) -> None:
    """Run the engine; print the seconds of each iteration."""
    torch.set_num_threads(CORES)
    keep_freed_memory()
    net = build_net(path, TRAIN)
    with np.load(f"{path}.npz") as arrays:
        batch = {name: torch.from_numpy(array) for name, array in arrays.items()}
    for _ in range(iterations):
        start = time.perf_counter()
        for learnable in net.learnable:
            learnable.blob.grad = None
        net.forward(**batch)
        net.loss.backward()
        print(time.perf_counter() - start)


def take_turn(side: str, root: Path, path: Path, iterations: int) -> list[float]:
    """Milliseconds of each iteration after those to warm up."""
    count = str(WARM_UP + iterations)
    if side == "caffe":
        inside = Path("/", path.parent.relative_to(root))
        command = [
            "chroot",
            root,
            "env",
            "-C",
            inside,
            f"OPENBLAS_NUM_THREADS={CORES}",
            "GLOG_minloglevel=2",
            "python3",
            IN_CAFFE.name,
            path.name,
            count,
        ]
    else:
        command = [sys.executable, __file__, "--measure", path, count]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{side}: status {done.returncode}\n{done.stderr[-2000:]}")
    return [1000 * float(line) for line in done.stdout.split()[WARM_UP:]]


def compare(name: str, root: Path, folder: Path, repeats: int) -> str:
    """Run both sides of a net by turns; return its line."""
    path = folder / f"{name}.prototxt"
    write_bench(NETS[name], path)
    turns: dict[str, list[list[float]]] = {"caffe": [], "engine": []}
    for _ in range(repeats):
        for side, taken in turns.items():
            taken.append(take_turn(side, root, path, NETS[name].iterations))
            print(f"{name}, {side}: {statistics.median(taken[-1]):.1f} ms", flush=True)
    caffe, engine = (statistics.median(chain.from_iterable(taken)) for taken in turns.values())
    ratios = [statistics.median(theirs) / statistics.median(ours) for theirs, ours in zip(*turns.values(), strict=True)]
    return (
        f"{name}: Caffe {caffe:.1f} ms, engine {engine:.1f} ms, ratio {caffe / engine:.2f} "
        f"({min(ratios):.2f} to {max(ratios):.2f})"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nets", metavar="NET", nargs="*", default=list(NETS), help="(default all)")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--measure", nargs=2, metavar=("NET", "ITERATIONS"), help="only run the engine")
    args = parser.parse_args()
    if args.measure:
        measure(Path(args.measure[0]), int(args.measure[1]))
        return
    if unknown := set(args.nets) - set(NETS):
        parser.error(f"{', '.join(unknown)}: not one of {', '.join(NETS)}")
    root = os.environ.get("CAFFE_ROOT")
    if root is None:
        raise SystemExit("CAFFE_ROOT is not set; docker/caffe-root.sh makes a root with real Caffe")
    keep_to_two_cores()
    with tempfile.TemporaryDirectory(dir=Path(root) / "tmp") as name:
        folder = Path(name)
        shutil.copy(IN_CAFFE, folder)
        lines = [compare(net, Path(root), folder, args.repeats) for net in args.nets]
    print(*lines, sep="\n")


if __name__ == "__main__":
    main()
