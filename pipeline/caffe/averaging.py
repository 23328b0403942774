"""Averages the weights of snapshots, which often read better than the last of them (Izmailov et al., 2018)."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import torch

from pipeline.caffe.hdf5.files import HDF5Reader, is_hdf5
from pipeline.caffe.layers.normalization import BatchNorm
from pipeline.caffe.net import Net
from pipeline.caffe.proto.files import read_weights
from pipeline.caffe.weights import WeightsError


def average_snapshots(net: Net, snapshots: Sequence[Path], batches: int) -> None:
    """Give a net the mean of the blobs in several snapshots of it, then renew its BatchNorm statistics.

    The statistics that an average of weights needs are in none of the snapshots. So `batches` batches run forward
    through the net, which is one of phase TRAIN, and every BatchNorm layer that normalises by the batch gets the plain
    averages of these batches' means and variances. A net without such layers reads no batches.

    Args:
        net: takes the averages. What its data layers and generators make next is what the statistics are of.
        snapshots: .caffemodel or .caffemodel.h5 files, at least one.
        batches: at least 1.

    Raises:
        WeightsError: a snapshot has other layers, or blobs of other shapes, than the net.
    """
    sums = [torch.zeros_like(learnable.blob, dtype=torch.float64, requires_grad=False) for learnable in net.learnable]
    for path in snapshots:
        _check_layers(net, path)
        net.copy_from(path)
        for total, learnable in zip(sums, net.learnable, strict=True):
            total.add_(learnable.blob.detach())
    with torch.no_grad():
        for total, learnable in zip(sums, net.learnable, strict=True):
            learnable.blob.copy_(total / len(snapshots))
    renew_statistics(net, batches)


def renew_statistics(net: Net, batches: int) -> None:
    """Replace the statistics of the BatchNorm layers that normalise by the batch by those of the next batches."""
    layers = [layer for layer in net.layers if isinstance(layer, BatchNorm) and not layer.uses_stored]
    if not layers:
        return
    with ExitStack() as stack, torch.no_grad():
        for layer in layers:
            stack.enter_context(layer.renewing())
        for _ in range(batches):
            net.forward()


def _check_layers(net: Net, path: Path) -> None:
    """Raise WeightsError unless a file has blobs for the same layers as the net."""
    owners = {learnable.layer for learnable in net.learnable}
    if is_hdf5(path):  # what another layer owns is not in it
        with HDF5Reader(path) as file:
            stored = {name for name in file.names("data") if file.names("data", name)}
    else:
        stored = {layer.name for layer in read_weights(path).layer if layer.blobs}
    for names, where, lacking in (
        (stored - set(net.params), "the file", "the net"),
        (owners - stored, "the net", "the file"),
    ):
        if names:
            raise WeightsError(
                f"{path}: {where} has weights of layer '{min(names)}' where {lacking} has none; only "
                "snapshots of one net can be averaged"
            )
