"""Nets as ONNX files, for runtimes that need no torch. Each layer class tells its own ONNX form (Layer.onnx)."""

from pipeline.caffe.onnx.graph import IR_VERSION, OPSET, to_onnx
from pipeline.caffe.onnx.quantise import quantise

__all__ = ["IR_VERSION", "OPSET", "quantise", "to_onnx"]
