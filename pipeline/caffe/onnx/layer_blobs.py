"""Reads the weights of a net back out of the ONNX file that it was exported to."""

from pathlib import Path

import numpy as np

from pipeline.base.errors import InputError
from pipeline.base.onnx_file import read_onnx


def layer_blobs(path: Path) -> dict[str, list[np.ndarray]]:
    """The blobs of convolutions, inner products, BatchNorm and Scale, as a .caffemodel of the net would hold them.

    The exporter calls each node by its layer's name and a colon. Weights in int8 come back as float32, within half a

    Args:
        path: a file that to_onnx() made, quantised or not.

    Returns:
        The float32 blobs by the name of their layer, in Caffe's order and shapes. BatchNorm's factor is 1.

    Raises:
        InputError: the file is no ONNX file, or keeps its weights elsewhere.
    """
    import onnx  # slow to import, and most runs start from no ONNX file
    from google.protobuf.message import DecodeError

    try:
        graph = onnx.load_from_string(read_onnx(path)).graph
    except DecodeError as error:
        raise InputError(f"{path}: not an ONNX file ({error})") from None
    arrays = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "DequantizeLinear" and set(node.input) <= arrays.keys():
            weights, scale = (arrays[name] for name in node.input)
            axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 1)
            along = [1] * weights.ndim
            along[axis] = -1
            arrays[node.output[0]] = weights.astype(np.float32) * scale.reshape(along)
    blobs: dict[str, list[np.ndarray]] = {}
    for node in graph.node:
        constants = [arrays[name] for name in node.input if name in arrays]
        layer = blobs.setdefault(node.name.split(":")[0], [])
        if node.op_type == "Conv":
            layer += constants
        elif node.op_type == "BatchNormalization":
            layer += [*constants[2:], np.ones(1, np.float32)]
        elif node.op_type == "MatMul":
            layer += [constant.T for constant in constants]
        elif node.op_type in ("Mul", "Add"):
            layer += [constant.reshape(-1) for constant in constants]
    return {name: [np.ascontiguousarray(blob, np.float32) for blob in held] for name, held in blobs.items() if held}
