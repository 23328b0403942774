"""A model with what is constant worked out and its normalisations fused into convolutions, by ONNX Runtime."""

import tempfile
from pathlib import Path

import onnx
import onnxruntime
from onnx import helper

from pipeline.base.onnx_runtime import open_session


def simplified(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same function in fewer nodes, all of them standard ONNX: what BatchNorm and Scale do to a convolution's
    top goes into its weights, a MatMul and its Add become a Gemm.

    That is to be done in float32, before weights are rounded to anything less.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "simplified.onnx"
        open_session(
            model.SerializeToString(),
            "the ONNX form",
            graph_optimization_level=onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
            optimized_model_filepath=str(path),
        )
        simple = onnx.load(path)
    del simple.opset_import[:]  # ONNX Runtime enters its own sets of operators, of which none is used
    simple.opset_import.extend(model.opset_import)
    simple.ir_version = model.ir_version
    simple.producer_name, simple.producer_version = model.producer_name, model.producer_version
    outputs = {value.name for value in simple.graph.output}
    for tensor in simple.graph.initializer:  # an output that is constant has lost the node that made it
        if tensor.name in outputs:
            node = helper.make_node("Identity", [f"{tensor.name}:constant"], [tensor.name], f"{tensor.name}:output")
            tensor.name = node.input[0]
            simple.graph.node.append(node)
    onnx.checker.check_model(simple, full_check=True)
    return simple
