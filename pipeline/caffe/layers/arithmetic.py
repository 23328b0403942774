"""Layers that are one function of arithmetic, taken of every value by itself."""

import math

import numpy as np
import torch

from pipeline.caffe.layers.activation import Activation
from pipeline.caffe.layers.layer import Graph, Shape, Tensors, register
from pipeline.caffe.proto.caffe_pb2 import ExpParameter, LogParameter, PowerParameter


@register("AbsVal")
class AbsVal(Activation):
    """|x|."""

    works_in_place = False

    def forward(self, bottom: Tensors) -> Tensors:
        return [bottom[0].abs()]

    def onnx(self, graph: Graph, bottom: list[str]) -> list[str]:
        return [graph.node("Abs", bottom)]


@register("Threshold")
class Threshold(Activation):
    """1 where x is above `threshold`, else 0. No gradient passes."""

    def forward(self, bottom: Tensors) -> Tensors:
        above = bottom[0] > self.param.threshold_param.threshold
        return [self.without_gradient(above.to(bottom[0].dtype), *bottom)]

    def onnx(self, graph: Graph, bottom: list[str]) -> list[str]:
        threshold = graph.constant(np.array(self.param.threshold_param.threshold))
        return [graph.cast(graph.node("Greater", [*bottom, threshold]), np.float32)]


@register("Clip")
class Clip(Activation):
    """x, but `min` where it is below and `max` where it is above."""

    def forward(self, bottom: Tensors) -> Tensors:
        return [bottom[0].clamp(self.param.clip_param.min, self.param.clip_param.max)]

    def onnx(self, graph: Graph, bottom: list[str]) -> list[str]:
        limits = [graph.constant(np.array(limit)) for limit in (self.param.clip_param.min, self.param.clip_param.max)]
        return [graph.node("Clip", [*bottom, *limits])]


class Scaled(Activation):
    """A function of shift + scale * x."""

    def scaled(self, x: torch.Tensor, param: PowerParameter | ExpParameter | LogParameter) -> torch.Tensor:
        """shift + scale * x."""
        return x * param.scale + param.shift

    def onnx_scaled(self, graph: Graph, value: str, param: PowerParameter | ExpParameter | LogParameter) -> str:
        """What scaled does, for a value of the graph."""
        for operator, number, neutral in (("Mul", param.scale, 1), ("Add", param.shift, 0)):
            if number != neutral:
                value = graph.node(operator, [value, graph.constant(np.array(number))])
        return value

    def log_base(self, param: ExpParameter | LogParameter) -> float:
        """The natural logarithm of `base`, whose default of -1 is e."""
        if param.base != -1 and param.base <= 0:
            raise self.error(f"base {param.base:g} where a number above 0, or -1 for e, was expected")
        return 1.0 if param.base == -1 else math.log(param.base)


@register("Power")
class Power(Scaled):
    """(shift + scale * x) ^ power."""

    def forward(self, bottom: Tensors) -> Tensors:
        param = self.param.power_param
        if param.scale == 0 or param.power == 0:  # no gradient, where that of the power may be infinite
            return [torch.full_like(bottom[0], param.shift).pow(param.power)]
        return [self.scaled(bottom[0], param).pow(param.power)]

    def onnx(self, graph: Graph, bottom: list[str]) -> list[str]:
        param = self.param.power_param
        base = self.onnx_scaled(graph, bottom[0], param)
        return [base if param.power == 1 else graph.node("Pow", [base, graph.constant(np.array(param.power))])]


@register("Exp")
class Exp(Scaled):
    """base ^ (shift + scale * x), base e unless it says otherwise."""

    def setup(self, bottom: list[Shape]) -> list[Shape]:
        self.factor = self.log_base(self.param.exp_param)
        return bottom

    def forward(self, bottom: Tensors) -> Tensors:
        return [torch.exp(self.scaled(bottom[0], self.param.exp_param) * self.factor)]

    def onnx(self, graph: Graph, bottom: list[str]) -> list[str]:
        exponent = self.onnx_scaled(graph, bottom[0], self.param.exp_param)
        return [graph.node("Exp", [graph.node("Mul", [exponent, graph.constant(np.array(self.factor))])])]


@register("Log")
class Log(Scaled):
    """The logarithm of shift + scale * x, to base e unless `base` says otherwise."""

    def setup(self, bottom: list[Shape]) -> list[Shape]:
        factor = self.log_base(self.param.log_param)
        if factor == 0:
            raise self.error("base 1, to which there is no logarithm")
        self.factor = 1 / factor
        return bottom

    def forward(self, bottom: Tensors) -> Tensors:
        return [torch.log(self.scaled(bottom[0], self.param.log_param)) * self.factor]

    def onnx(self, graph: Graph, bottom: list[str]) -> list[str]:
        logarithm = graph.node("Log", [self.onnx_scaled(graph, bottom[0], self.param.log_param)])
        return [graph.node("Mul", [logarithm, graph.constant(np.array(self.factor))])]
