"""A small trained net and its data, for the tests of what comes after training."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from helpers.small_set import write_csv
from pipeline.caffe.net import build_net
from pipeline.caffe.proto.caffe_pb2 import TEST
from pipeline.data.manifest import USAGES
from pipeline.stages.evaluate import evaluate
from pipeline.stages.export import export
from pipeline.stages.extract import extract
from pipeline.stages.lmdb import lmdb
from pipeline.stages.mean import mean

DEPLOY = """name: "Small"
layer {{ name: "data" type: "Input" top: "data" input_param {{ shape {{ dim: 1 dim: 1 dim: {crop} dim: {crop} }} }}
         transform_param {{ scale: {scale} }} }}
layer {{ name: "pool" type: "Pooling" bottom: "data" top: "pool"
         pooling_param {{ pool: AVE kernel_size: 3 stride: 2 }} }}
layer {{ name: "hidden" type: "InnerProduct" bottom: "pool" top: "hidden" inner_product_param {{ num_output: 160 }} }}
layer {{ name: "relu" type: "ReLU" bottom: "hidden" top: "hidden" }}
layer {{ name: "scores" type: "InnerProduct" bottom: "hidden" top: "scores"
         inner_product_param {{ num_output: {classes} }} }}
{last}
"""
SOFTMAX = 'layer { name: "prob" type: "Softmax" bottom: "scores" top: "prob" }'


@dataclass(frozen=True)
class TrainedNet:
    """Where its files lie."""

    deploy: Path
    weights: Path
    databases: Path
    mean: Path
    manifest: Path

    def evaluate(self, output: Path, **changed: Any) -> dict:
        given: dict[str, Any] = {
            "deploy": self.deploy,
            "weights": self.weights,
            "databases": self.databases,
            "mean": self.mean,
            "manifest_path": self.manifest,
        } | changed
        return evaluate(given.pop("deploy"), given.pop("weights"), output, **given)

    def export(self, output: Path, **changed: Any) -> dict:
        given: dict[str, Any] = {
            "deploy": self.deploy,
            "weights": self.weights,
            "databases": self.databases,
            "mean": self.mean,
        } | changed
        return export(given.pop("deploy"), given.pop("weights"), output, **given)


def write_deploy(path: Path, crop: int = 42, classes: int = 7, last: str = SOFTMAX, scale: float = 1) -> Path:
    """The small net's deploy.prototxt, which wants pixels times `scale`."""
    path.write_text(DEPLOY.format(crop=crop, classes=classes, last=last, scale=scale))
    return path


def write_weights(deploy: Path, path: Path, factor: float = 1.0) -> Path:
    """Random ones, times a factor, large enough that the classes differ."""
    net = build_net(deploy, TEST, seed=1)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for blobs in net.params.values():
            spread = 0.2 * factor * blobs[0][0].numel() ** -0.5
            blobs[0].copy_(torch.randn(blobs[0].shape, generator=generator) * spread)
    net.save(path)
    return path


def make_trained_net(
    images: np.ndarray, folder: Path, usages: tuple[str, ...] = USAGES, protocol: str = "kaggle"
) -> TrainedNet:
    """The small net with random weights, databases of the images (N, 48, 48) and their mean, all under `folder`."""
    write_csv(folder / "fer2013.csv", images, usages)
    extract(folder / "fer2013.csv", folder / "images")
    manifest = folder / "images/manifest.csv"
    deploy = write_deploy(folder / "deploy.prototxt")
    databases = folder / "databases"
    lmdb(manifest, databases, protocol, seed=1)
    mean(databases / "train_lmdb", databases / "mean.binaryproto")
    return TrainedNet(
        deploy,
        write_weights(deploy, folder / "weights.caffemodel"),
        databases,
        databases / "mean.binaryproto",
        manifest,
    )


def probabilities_by_hand(trained: TrainedNet, images: np.ndarray) -> np.ndarray:
    """What the net gives for raw images (N, 48, 48), in numpy alone."""
    from pipeline.caffe.proto.blob_proto import read_mean

    centre = (images.astype(np.float64) - read_mean(trained.mean)[0])[:, 3:45, 3:45]
    count = len(images)
    # Average pooling 3/2 over 42: windows 0, 2, ... 40, the last one clipped to two pixels.
    starts = range(0, 41, 2)
    pooled = np.array([[centre[:, i : i + 3, j : j + 3].mean((1, 2)) for j in starts] for i in starts])
    vectors = pooled.transpose(2, 0, 1).reshape(count, -1)
    net = build_net(trained.deploy, TEST)
    net.copy_from(trained.weights)
    (w1, b1), (w2, b2) = ([blob.detach().numpy() for blob in net.params[name]] for name in ("hidden", "scores"))
    scores = np.maximum(vectors @ w1.T + b1, 0) @ w2.T + b2
    exponentials = np.exp(scores - scores.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)
