"""A script as pycaffe's users write them: describe a net, train it, look into it, save it.

python examples/pycaffe_net.py out/     With Caffe itself only the import differs: `import caffe`.
"""

import sys
from pathlib import Path

import numpy as np

from pipeline import caffe
from pipeline.caffe import layers as L
from pipeline.caffe import params as P

BATCH, CLASSES = 32, 4


def describe() -> str:
    """The prototxt of a net that says in which quarter of a 12x12 image a bright spot is."""
    net = caffe.NetSpec()
    net.data, net.label = L.Input(shape=[{"dim": [BATCH, 1, 12, 12]}, {"dim": [BATCH]}], ntop=2)
    net.conv1 = L.Convolution(net.data, num_output=8, kernel_size=3, weight_filler={"type": "xavier"})
    net.relu1 = L.ReLU(net.conv1, in_place=True)
    net.pool1 = L.Pooling(net.relu1, pool=P.Pooling.MAX, kernel_size=2, stride=2)
    net.score = L.InnerProduct(net.pool1, num_output=CLASSES, weight_filler={"type": "xavier"})
    net.loss = L.SoftmaxWithLoss(net.score, net.label)
    return str(net.to_proto())


def draw(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Images (BATCH, 1, 12, 12) of noise with a spot, and the quarter (BATCH,) that each spot is in."""
    images = random.normal(0, 0.1, (BATCH, 1, 12, 12)).astype(np.float32)
    rows, columns = random.integers(1, 11, (2, BATCH))
    images[np.arange(BATCH), 0, rows, columns] += 2
    return images, 2 * (rows > 5) + (columns > 5)


def main(folder: Path, iterations: int = 400) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "net.prototxt").write_text(describe())
    (folder / "solver.prototxt").write_text(
        f'net: "{(folder / "net.prototxt").as_posix()}"\nbase_lr: 0.1 lr_policy: "fixed" momentum: 0.9 display: 0\n'
        f'max_iter: {iterations} snapshot_prefix: "{(folder / "spot").as_posix()}" random_seed: 1 solver_mode: CPU\n'
    )
    caffe.set_mode_cpu()
    solver = caffe.SGDSolver(str(folder / "solver.prototxt"))
    random = np.random.default_rng(0)
    for _ in range(iterations):
        solver.net.blobs["data"].data[...], solver.net.blobs["label"].data[...] = draw(random)
        solver.step(1)

    net = solver.net
    net.blobs["data"].data[...], net.blobs["label"].data[...] = draw(random)
    net.forward()
    right = (net.blobs["score"].data.argmax(axis=1) == net.blobs["label"].data).mean()
    print(f"conv1's weights {net.params['conv1'][0].data.shape}, loss {float(net.blobs['loss'].data):.3f}")
    print(f"new images read right: {right:.0%}")
    net.save(str(folder / "spot.caffemodel"))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    main(Path(sys.argv[1]))
