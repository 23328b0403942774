"""The fillers' cases: fillers.prototxt, a layer each, and what of real Caffe's values is kept."""

from pathlib import Path

import numpy as np
from harness import HERE, Arrays

from pipeline.caffe.net import Net
from pipeline.caffe.proto.caffe_pb2 import TRAIN
from pipeline.caffe.proto.files import read_net

NET = HERE / "fillers.prototxt"
RECORDED = HERE / "fillers.npz"
KEPT = 1024  # of drawn values, by their order; blobs that are no larger are kept whole
FIXED = ("constant", "bilinear")  # what they fill is not drawn


def filler_types() -> dict[str, str]:
    """The type of each case's filler."""
    return {layer.name: layer.dummy_data_param.data_filler[0].type for layer in read_net(NET).layer}


def fill(path: Path = NET) -> dict[str, np.ndarray]:
    """What the engine fills, by case."""
    net = Net(read_net(path), TRAIN, seed=1)
    return {name: blob.numpy() for name, blob in net.forward().items()}


def packed(answer: Arrays) -> dict[str, np.ndarray]:
    """What is committed of real Caffe's values: of drawn ones a sample in ascending order."""
    types = filler_types()
    values = {key.removeprefix("top/"): value for key, value in answer.items()}
    return {name: value if types[name] in FIXED else quantiles(value) for name, value in values.items()}


def quantiles(values: np.ndarray) -> np.ndarray:
    """KEPT values in ascending order, each standing for as many."""
    return np.quantile(values, (np.arange(KEPT) + 0.5) / KEPT, method="nearest").astype(np.float32)


def largest_step(values: np.ndarray, caffe: np.ndarray) -> float:
    """The largest difference of the two cumulative distributions, as Kolmogorov and Smirnov have it."""
    points = np.unique(np.concatenate([quantiles(values), caffe]))
    below = (np.searchsorted(np.sort(sample.ravel()), points, side="right") / sample.size for sample in (values, caffe))
    ours, theirs = below
    return float(np.abs(ours - theirs).max())
