"""Training FaceEmotionNet, batch 64, from a database through the Data layer against the same net fed from memory.

    python benchmarks/data_layer.py [--images 10000] [--iterations 5] [--rounds 40]

One process trains three solvers by turns on two threads, `--iterations` at a time: from an LMDB and from a LevelDB of
noise in FER2013's form, with mean, crop and mirror, and from a MemoryData layer, whose arrays are one pass of the Data
layer's tops, transformed once. Rates are the medians of the rounds, of which the first does not count. The last line
is the LMDB's rate over memory's, the one before it the LevelDB's, each the median of the rounds' own ratios, so that
what else a machine does weighs on both sides; 0.9 is the least that is wanted.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path

import numpy as np
import torch
from environments import keep_to_two_cores
from train import PROTOTXTS, write_noise

from pipeline.caffe.layers.data import MemoryData
from pipeline.caffe.net import Net
from pipeline.caffe.proto.caffe_pb2 import TRAIN, DataParameter, NetParameter
from pipeline.caffe.proto.files import read_net, read_solver, write_prototxt
from pipeline.caffe.solver import Solver, get_solver
from pipeline.stages.mean import mean

BATCH = 64
BACKENDS = {"lmdb": DataParameter.LMDB, "leveldb": DataParameter.LEVELDB}


def train_net(side: str) -> NetParameter:
    """The net whose TRAIN data come from `side`."""
    net = read_net(PROTOTXTS / "train_val.prototxt")
    for layer in net.layer:
        if layer.name == "fc3":
            layer.inner_product_param.num_output = 7
        if layer.name != "data" or layer.include[0].phase != TRAIN:
            continue
        if side in BACKENDS:
            layer.data_param.source, layer.data_param.batch_size = f"train_{side}", BATCH
            layer.data_param.backend = BACKENDS[side]
            layer.transform_param.mean_file = "mean.binaryproto"
        else:
            layer.type = "MemoryData"
            memory = layer.memory_data_param
            memory.batch_size, memory.channels, memory.height, memory.width = BATCH, 1, 42, 42
    return net


def make_solver(side: str, images: int) -> Solver:
    """A solver in the current folder, where the databases are."""
    write_prototxt(Path(f"{side}.prototxt"), train_net(side))
    param = read_solver(PROTOTXTS / "solver.prototxt")
    param.net = f"{side}.prototxt"
    param.ClearField("test_interval")
    param.ClearField("test_iter")
    param.random_seed = 1
    solver = get_solver(param)
    data = solver.net.layers[0]
    if isinstance(data, MemoryData):
        reader = Net(train_net("lmdb"), TRAIN, seed=1).layers[0]
        batches = [reader.forward([]) for _ in range(images // BATCH)]
        data.set_arrays(*(np.concatenate([batch[top].numpy() for batch in batches]) for top in (0, 1)))
    return solver


def rate(step: Callable[[], object], iterations: int) -> float:
    """Iterations a second."""
    start = time.perf_counter()
    for _ in range(iterations):
        step()
    return iterations / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--iterations", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=40)
    args = parser.parse_args()
    keep_to_two_cores()
    torch.set_num_threads(2)
    with tempfile.TemporaryDirectory() as name, chdir(name):
        for backend in BACKENDS:
            write_noise(Path(f"train_{backend}"), args.images, backend)
        mean(Path("train_lmdb"), Path("mean.binaryproto"))
        solvers = {side: make_solver(side, args.images) for side in (*BACKENDS, "memory")}
        rates: dict[str, list[float]] = {side: [] for side in solvers}
        for number in range(args.rounds + 1):
            for side, solver in solvers.items():
                measured = rate(solver.step, args.iterations)
                if number:
                    rates[side].append(measured)
                    print(f"{side}: {measured:.2f} iterations/s", flush=True)
    median = {side: statistics.median(values) for side, values in rates.items()}
    print(", ".join(f"{side} {median[side] * BATCH:.0f}" for side in median), "images/s")
    for side, name in (("leveldb", "leveldb ratio"), ("lmdb", "ratio")):
        ratios = [ours / memory for ours, memory in zip(rates[side], rates["memory"], strict=True)]
        print(f"{name} {statistics.median(ratios):.3f}")


if __name__ == "__main__":
    main()
