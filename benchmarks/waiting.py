"""Threads that sleep while they wait against threads that spin, on an idle machine and beside other work.

    python benchmarks/waiting.py [--repeats N]

The net `small` reads batches of 64 faces with as many threads as the machine has cores, in a process of its own for
each of OpenMP's waiting policies, by turns; the best time of each counts. Beside other work, another process keeps a
core busy. The last lines are the time with spinning threads over that with sleeping ones.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

NET = Path(__file__).parents[1] / "prototxt/small/deploy.prototxt"
POLICIES = {"spinning": {}, "sleeping": {"OMP_WAIT_POLICY": "PASSIVE"}}
WARM_UP, BATCHES, FACES = 3, 15, 64


def read_batches() -> float:
    """Milliseconds a batch."""
    import numpy as np
    import torch

    from pipeline import caffe

    torch.set_num_threads(os.cpu_count() or 1)
    net = caffe.Net(str(NET), caffe.TEST)
    faces = np.random.default_rng(0).random((FACES, *net.blobs["data"].shape[1:]), np.float32)
    net.blobs["data"].reshape(*faces.shape)
    net.blobs["data"].data[...] = faces
    for _ in range(WARM_UP):
        net.forward()
    start = time.perf_counter()
    for _ in range(BATCHES):
        net.forward()
    return (time.perf_counter() - start) / BATCHES * 1000


def measured(policy: Mapping[str, str]) -> float:
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"} | policy
    command = [sys.executable, __file__, "--read"]
    done = subprocess.run(command, env=environment, check=True, text=True, stdout=subprocess.PIPE)
    return float(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=4)
    parser.add_argument("--read", action="store_true", help="only read batches, with the environment's policy")
    args = parser.parse_args()
    if args.read:
        print(read_batches())
        return
    ratios = {}
    for machine, other in {"idle": "", "beside other work": "while True: pass"}.items():
        busy = subprocess.Popen([sys.executable, "-c", other])
        times: dict[str, list[float]] = {name: [] for name in POLICIES}
        for _ in range(args.repeats):
            for name, policy in POLICIES.items():
                times[name].append(measured(policy))
        busy.kill()
        busy.wait()
        for name, each in times.items():
            print(f"{machine}, {name}: {min(each):.0f} ms a batch of {FACES}")
        ratios[machine] = min(times["spinning"]) / min(times["sleeping"])
    for machine, ratio in ratios.items():
        print(f"{machine}: ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
