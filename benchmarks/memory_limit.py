"""Training from an LMDB ten times as large as all memory that the process may take.

    python benchmarks/memory_limit.py [--limit 1024] [--times 10]

The limit, in MiB, is one on the process's address space (RLIMIT_AS), set before it imports anything: heap, stacks,
libraries and files that are mapped all count, touched or not, so that nothing is left out that a limit on resident
memory or a container's would count. FaceEmotionNet trains with the Data layer, batch 64, on crops of 512x512 noise,
through the whole database once and on from its beginning. The limit alone would end the process; printed are also its
peak address space and its peak resident memory, that at the first tenth of the iterations and at the end. The last line
is the limit over the peak of its address space. Needs `limit` times `times` of disk for a while.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

MIB = 1 << 20
SIDE = 512
BATCH = 64


def write_database(path: Path, size: int) -> int:
    """Write at least `size` bytes of noise; return the number of records."""
    from pipeline.caffe.database import DatabaseWriter, datum_from_image, record_key

    noise = np.random.default_rng(0).integers(0, 256, 2 * SIDE * SIDE).astype(np.uint8)
    count = -(-size // (SIDE * SIDE))
    with DatabaseWriter(path) as database:
        for number in range(count):
            start = number % (SIDE * SIDE)
            image = noise[start : start + SIDE * SIDE].reshape(SIDE, SIDE)
            database.put(record_key(number, f"{number}.png"), datum_from_image(image, number % 7))
    return count


def status() -> dict[str, int]:
    """The process's peaks in bytes, of address space and of resident memory."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {name: int(lines[name].split()[0]) << 10 for name in ("VmPeak", "VmHWM")}


def train(folder: Path, iterations: int) -> None:
    """Train in this process; leave its peaks at a tenth of the iterations and at the end in peaks.json."""
    import torch

    from pipeline.caffe.proto.caffe_pb2 import TRAIN
    from pipeline.caffe.proto.files import read_net, read_solver, write_prototxt
    from pipeline.caffe.solver import get_solver

    prototxts = Path(__file__).parents[1] / "prototxt/face_emotion_net"
    torch.set_num_threads(2)
    net = read_net(prototxts / "train_val.prototxt")
    for layer in net.layer:
        if layer.type == "Data" and layer.include[0].phase == TRAIN:
            layer.data_param.source, layer.data_param.batch_size = str(folder / "lmdb"), BATCH
            layer.transform_param.mean_value.append(127.5)
        if layer.name == "fc3":
            layer.inner_product_param.num_output = 7
    write_prototxt(folder / "train_val.prototxt", net)
    param = read_solver(prototxts / "solver.prototxt")
    param.net = str(folder / "train_val.prototxt")
    param.ClearField("test_interval")
    param.ClearField("test_iter")
    solver = get_solver(param)
    peaks = []
    for number in range(1, iterations + 1):
        solver.step()
        if number in (iterations // 10, iterations):
            peaks.append(status())
            print(f"{number} of {iterations} iterations, loss {solver.smoothed_loss():.3f}", flush=True)
    (folder / "peaks.json").write_text(json.dumps(peaks))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=int, default=1024)
    parser.add_argument("--times", type=float, default=10)
    parser.add_argument("--measure", nargs=2, metavar=("FOLDER", "ITERATIONS"), help="only train")
    args = parser.parse_args()
    if args.measure:
        train(Path(args.measure[0]), int(args.measure[1]))
        return
    limit = args.limit * MIB
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        records = write_database(folder / "lmdb", int(args.times * limit))
        size = (folder / "lmdb/data.mdb").stat().st_size
        iterations = records // BATCH + 10
        print(f"{records} records, {size / MIB:.0f} MiB, {size / limit:.2f} times the limit of {args.limit} MiB")
        # Of the interpreter, too: nothing is imported yet when the limit is set.
        command = [sys.executable, __file__, "--measure", name, str(iterations)]
        subprocess.run(
            command,
            check=True,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
            env=os.environ | {"OMP_NUM_THREADS": "2"},
        )
        early, late = json.loads((folder / "peaks.json").read_text())
    for what, key in (("address space", "VmPeak"), ("resident memory", "VmHWM")):
        print(f"peak {what}: {early[key] / MIB:.0f} MiB after a tenth, {late[key] / MIB:.0f} MiB at the end")
    print(f"ratio {limit / late['VmPeak']:.2f}")


if __name__ == "__main__":
    main()
