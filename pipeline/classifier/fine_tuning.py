"""Starts a training from another net's weights: which layers take theirs, and which keep them as they are."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from pipeline.base.console import log
from pipeline.base.errors import InputError
from pipeline.caffe.hdf5.files import HDF5Reader, is_hdf5
from pipeline.caffe.proto.blob_proto import from_blobproto, to_blobproto
from pipeline.caffe.proto.caffe_pb2 import TEST, NetParameter, ParamSpec
from pipeline.caffe.proto.files import read_weights

LayerBlobs = Mapping[str, Sequence[np.ndarray]]  # by layer


def starting_weights(source: Path, deploy: NetParameter, classifier: str) -> NetParameter:
    """The weights of a .caffemodel, .caffemodel.h5 or .safetensors that a net takes: of layers of the same names.

    The layer `classifier` is left out, to be made anew, when its shape differs: other classes. Caffe's users give that
    layer another name instead; leaving it out keeps the names, so that a net made in this way is a start for the next.
    Raises InputError when another layer's shape differs, or no layer fits.
    """
    from pipeline.caffe.net import Net  # slow to import, and most runs start from nothing

    wanted = {name: [_shape(tuple(blob.shape)) for blob in blobs] for name, blobs in Net(deploy, TEST).params.items()}
    stored = read_layer_blobs(source)
    taken = {}
    for name in (name for name in wanted if name in stored):
        shapes = [_shape(blob.shape) for blob in stored[name]]
        if shapes == wanted[name]:
            taken[name] = stored[name]
        elif name == classifier:
            log.info(
                "%s: layer '%s' has %s outputs where there are %s classes: it is made anew",
                source,
                name,
                shapes[0][0] if shapes and shapes[0] else "no",
                wanted[name][0][0],
            )
        else:
            raise InputError(
                f"{source}: layer '{name}' has blobs of shapes {_listed(shapes)} where the net has "
                f"{_listed(wanted[name])}; are these the weights of another net, or of another crop_size?"
            )
    if not taken:
        raise InputError(
            f"{source}: its layers ({', '.join(stored) or 'none'}) fit none of net '{deploy.name}' "
            f"({', '.join(wanted)}); give the weights of this net, or set net to theirs"
        )
    log.info(
        "%s: the net starts from its layers %s; %s start anew",
        source,
        ", ".join(taken),
        ", ".join(name for name in wanted if name not in taken) or "none",
    )
    weights = NetParameter(name=deploy.name)
    for name, blobs in taken.items():
        weights.layer.add(name=name, blobs=map(to_blobproto, blobs))
    return weights


def freeze(train_val: NetParameter, layers: Sequence[str], weights: NetParameter) -> None:
    """Keep layers as the weights have them: lr_mult 0, and the statistics of a BatchNorm as they are.

    Raises InputError for a layer that the net has not, or to which the weights give nothing to keep.
    """
    blobs = {layer.name: len(layer.blobs) for layer in weights.layer}
    names = {layer.name for layer in train_val.layer}
    for name in layers:
        if name not in names:
            raise InputError(f"freeze: {name}: no such layer; those with weights are {', '.join(blobs)}")
        if name not in blobs:
            raise InputError(
                f"freeze: {name}: the weights have none for it, so that it would keep what it was filled "
                f"with; those with weights are {', '.join(blobs)}"
            )
    for layer in train_val.layer:
        if layer.name in layers:
            layer.param.extend(ParamSpec() for _ in range(blobs[layer.name] - len(layer.param)))
            for param in layer.param:
                param.lr_mult = 0
            if layer.type == "BatchNorm":
                layer.batch_norm_param.use_global_stats = True


def read_layer_blobs(source: Path) -> LayerBlobs:
    """The blobs of a .caffemodel, a .caffemodel.h5, or the .safetensors that export writes, by layer.

    Raises InputError when the file is damaged.
    """
    if source.suffix == ".safetensors":
        return _read_safetensors(source)
    if source.suffix == ".onnx":
        raise InputError(f"{source}: an ONNX file has no weights to start from; give the model's folder instead")
    if is_hdf5(source):
        with HDF5Reader(source) as file:
            return {
                name: [file.array("data", name, index) for index in sorted(file.names("data", name), key=int)]
                for name in file.names("data")
            }
    message = read_weights(source)
    return {
        layer.name: [
            from_blobproto(blob, f"{source}: layer '{layer.name}' blob {index}")
            for index, blob in enumerate(layer.blobs)
        ]
        for layer in message.layer
        if layer.blobs
    }


def _read_safetensors(source: Path) -> LayerBlobs:
    """Of tensors called by their layer and their place in it, as conv1.0; half precision becomes float32."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        tensors = load(source.read_bytes())
    except (SafetensorError, OSError) as error:
        raise InputError(f"{source}: {error}; export the model again") from None
    blobs: dict[str, dict[str, np.ndarray]] = {}
    for name, tensor in tensors.items():
        layer, _, place = name.rpartition(".")
        blobs.setdefault(layer, {})[place] = tensor.astype(np.float32)
    for layer, places in blobs.items():
        if set(places) != {str(place) for place in range(len(places))}:
            raise InputError(
                f"{source}: layer '{layer}' has the tensors {', '.join(sorted(places))}, where {layer}.0 and so on "
                "were expected; give a file that export wrote"
            )
    return {layer: [places[str(place)] for place in range(len(places))] for layer, places in blobs.items()}


def _shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Without the leading ones that older files have: Caffe takes such shapes for equal."""
    while len(shape) > 1 and shape[0] == 1:
        shape = shape[1:]
    return shape


def _listed(shapes: Sequence[tuple[int, ...]]) -> str:
    return ", ".join(map(str, shapes)) or "none"
