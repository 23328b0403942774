"""ONNX models with whole numbers of 8 bits in place of floats."""

import numpy as np
import onnx
from onnx import helper, numpy_helper

MIN_QUANTISED_SIZE = 1 << 16  # values; below, int8 saves nothing worth its rounding


def quantise_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """Store the weights of the large matrix products as int8, each output with a scale of its own.

    Symmetric: scale = max |w| / 127 over the output's weights, w = scale * q. Activations stay float32, so what one
    image gives does not depend on the others in its batch, and no calibration images are needed.
    """
    quantised = onnx.ModelProto()
    quantised.CopyFrom(model)
    graph = quantised.graph
    weights = {node.input[1] for node in graph.node if node.op_type == "MatMul"}
    for tensor in [tensor for tensor in graph.initializer if tensor.name in weights]:
        array = numpy_helper.to_array(tensor)  # (inputs, outputs)
        if array.size < MIN_QUANTISED_SIZE:
            continue
        scale = np.abs(array).max(axis=0) / np.float32(127)
        scale[scale == 0] = 1
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(np.rint(array / scale).astype(np.int8), f"{name}:int8"))
        graph.initializer.append(numpy_helper.from_array(scale, f"{name}:scale"))
        graph.node.insert(
            0,
            helper.make_node(
                "DequantizeLinear", [f"{name}:int8", f"{name}:scale"], [name], f"{name}:dequantise", axis=1
            ),
        )
    onnx.checker.check_model(quantised, full_check=True)
    return quantised
