"""A net's weights in and out: messages and .caffemodel files, and the HDF5 form of these."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from pipeline.base.console import log
from pipeline.base.errors import InputError
from pipeline.caffe.hdf5.files import HDF5Reader, is_hdf5
from pipeline.caffe.insert_splits import AUTOMATIC_TOP
from pipeline.caffe.proto.blob_proto import from_blobproto, to_blobproto
from pipeline.caffe.proto.caffe_pb2 import NetParameter
from pipeline.caffe.proto.files import read_weights

if TYPE_CHECKING:
    from pipeline.caffe.net import Net

REMEDY = "are these the weights of another net?"


class WeightsError(InputError):
    """Weights that are not this net's."""


def copy_weights(net: "Net", source: NetParameter | Path) -> None:
    """Give a net the blobs of the layers that have the same name, as Caffe's CopyTrainedLayersFrom does.

    Args:
        net: takes the blobs; its other layers keep theirs.
        source: a message, a .caffemodel, or an HDF5 file, which its first bytes tell.

    Raises:
        WeightsError: a layer's blobs differ in number or shape, or no layer of the net is in the source.
        BinaryError: the file is damaged.
    """
    if isinstance(source, Path) and is_hdf5(source):
        name, copied = str(source), _copy_hdf5(net, source)
    elif isinstance(source, Path):
        name, copied = str(source), _copy_message(net, read_weights(source), str(source))
    else:
        name, copied = "the given weights", _copy_message(net, source, "the given weights")
    if net.params and not copied:
        raise WeightsError(f"{name}: none of its layers is one of net '{net.name}' ({', '.join(net.params)}); {REMEDY}")


def _copy_message(net: "Net", message: NetParameter, source: str) -> int:
    """Return of how many layers the net took the blobs; `source` names the message in errors."""
    params = net.params
    names = {layer.param.name for layer in net.layers}
    copied = 0
    for layer in message.layer:
        if layer.name not in names:
            log.debug("Ignoring source layer %s", layer.name)
        if not layer.blobs or layer.name not in params:
            continue
        targets = params[layer.name]
        if len(layer.blobs) != len(targets):
            raise WeightsError(
                f"{source}: layer '{layer.name}' has {len(layer.blobs)} blobs where the net has {len(targets)}; "
                f"{REMEDY}"
            )
        for index, (blob, target) in enumerate(zip(layer.blobs, targets, strict=True)):
            array = from_blobproto(blob, f"{source}: layer '{layer.name}' blob {index}")
            if _without_leading_ones(array.shape) != _without_leading_ones(tuple(target.shape)):
                raise WeightsError(
                    f"{source}: layer '{layer.name}' blob {index} has shape {array.shape} where the net has "
                    f"{tuple(target.shape)}; {REMEDY}"
                )
            with torch.no_grad():
                target.copy_(torch.from_numpy(array.reshape(tuple(target.shape))))
        copied += 1
    return copied


def _copy_hdf5(net: "Net", path: Path) -> int:
    """Stricter than _copy_message(), as Caffe is: shapes must be equal, and only shared blobs may be missing."""
    layers = {layer.param.name: layer.blobs for layer in net.layers}
    owned = _owned(net)
    copied = 0
    with HDF5Reader(path) as file:
        for name in file.names("data"):
            if name not in layers:
                log.debug("Ignoring source layer %s", name)
                continue
            stored, targets = file.names("data", name), layers[name]
            missing = [
                str(index) for index in range(len(targets)) if (name, index) in owned and str(index) not in stored
            ]
            if len(stored) > len(targets) or missing:
                raise WeightsError(
                    f"{path}: layer '{name}' has {len(stored)} blobs where the net has "
                    f"{len(targets)}{', without number ' * bool(missing)}{', '.join(missing)}; {REMEDY}"
                )
            for index, target in enumerate(targets):
                if str(index) in stored:
                    array = file.array("data", name, str(index), shape=tuple(target.shape))
                    with torch.no_grad():
                        target.copy_(torch.from_numpy(array))
            copied += bool(stored)
    return copied


def to_caffemodel(net: "Net") -> NetParameter:
    """The net with its blobs, as a .caffemodel holds it."""
    message = NetParameter(name=net.name)
    for layer in net.layers:
        added = message.layer.add()
        added.CopyFrom(layer.param)
        if added.top == [AUTOMATIC_TOP]:
            del added.top[:]
        del added.blobs[:]
        added.blobs.extend(to_blobproto(blob.detach().cpu().numpy()) for blob in layer.blobs)
    return message


def to_hdf5(net: "Net") -> dict[str, dict[str, np.ndarray]]:
    """What /data of a .caffemodel.h5 holds: each layer's blobs by index, but for those that another layer owns.

    Raises LayerError as check_hdf5_names() does.
    """
    check_hdf5_names(net)
    owned = _owned(net)
    return {
        layer.param.name: {
            str(index): blob.detach().cpu().numpy()
            for index, blob in enumerate(layer.blobs)
            if (layer.param.name, index) in owned
        }
        for layer in net.layers
    }


def check_hdf5_names(net: "Net") -> None:
    """Raise LayerError for a layer's name that no group in an HDF5 file can have; Caffe aborts as it saves it."""
    names: set[str] = set()
    for layer in net.layers:
        name = layer.param.name
        if "/" in name or name in ("", ".") or name in names:
            raise layer.error(
                "HDF5 takes no '/' in a layer's name and every name once; rename the layer, or save as BINARYPROTO"
            )
        names.add(name)


def _owned(net: "Net") -> set[tuple[str, int]]:
    """Layer and index of each blob that is not another layer's, shared by name."""
    return {(learnable.layer, learnable.index) for learnable in net.learnable}


def _without_leading_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    # Nets of before 2014 store every blob with four axes, the real ones last.
    while shape and shape[0] == 1:
        shape = shape[1:]
    return shape
