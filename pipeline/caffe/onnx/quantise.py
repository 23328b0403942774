"""ONNX models with whole numbers of 8 bits in place of floats."""

import logging
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx

from pipeline.caffe.onnx.preprocessing import PREFIX
from pipeline.caffe.onnx.simplify import simplified

# Products, and what is done to their tops between them, so that values stay int8 from one to the next. Not those
# whose range a few values decide, as Softmax, LRN or Exp.
QUANTISED_OPERATORS = (
    "Add",
    "AveragePool",
    "Clip",
    "Concat",
    "Conv",
    "ConvTranspose",
    "Flatten",
    "Gemm",
    "GlobalAveragePool",
    "LeakyRelu",
    "MatMul",
    "MaxPool",
    "Relu",
    "Reshape",
    "Squeeze",
    "Sum",
    "Transpose",
    "Unsqueeze",
)


def quantise(model: onnx.ModelProto, batches: Iterable[np.ndarray]) -> onnx.ModelProto:
    """The model with weights and activations of 8 bits, as QuantizeLinear and DequantizeLinear around its operators.

    Weights have a scale for each output, from the largest; an activation a scale and a zero point, from its range over
    `batches` of the only input. The same batches give the same bytes. Inputs and outputs stay as they are.

    Activations are uint8: x86-64 multiplies unsigned by signed bytes, and ONNX Runtime takes 3.6 times as long for the
    same answers where both are signed.

    Weights use 7 of their 8 bits, -64 to 64. Processors without VNNI add two products of an activation (0 to 255) and a
    weight in 16 bits (vpmaddubsw of AVX2 and SSSE3), which saturates above 32767: 2 * 255 * 64 = 32640 still fits, so
    every processor gives the same answer.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Batches(CalibrationDataReader):
        """The batches, one by one."""

        def __init__(self) -> None:
            self.left = iter(batches)

        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(self.left, None)
            return None if batch is None else {model.graph.input[0].name: batch}

    simple = simplified(model)
    own = [node.name for node in simple.graph.node if node.name.startswith(PREFIX)]
    with tempfile.TemporaryDirectory() as folder, _quiet_root_logger():
        path = Path(folder) / "quantised.onnx"
        quantize_static(
            simple,
            path,
            Batches(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            nodes_to_exclude=own,
            op_types_to_quantize=list(QUANTISED_OPERATORS),
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            reduce_range=True,
        )
        quantised = onnx.load(path)
    quantised.ir_version = model.ir_version
    del quantised.opset_import[:]
    quantised.opset_import.extend(model.opset_import)
    quantised.producer_name, quantised.producer_version = model.producer_name, model.producer_version
    onnx.checker.check_model(quantised, full_check=True)
    return quantised


@contextmanager
def _quiet_root_logger() -> Iterator[None]:
    """Keep what onnxruntime says to the root logger, and the handler that this would install, from the log."""
    root = logging.getLogger()
    level, handler = root.level, logging.NullHandler()
    root.addHandler(handler)
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)
        root.removeHandler(handler)
