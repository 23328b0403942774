"""The layer that makes one number of many."""

from typing import ClassVar

import numpy as np

from pipeline.caffe.layers.layer import Graph, Layer, Shape, Tensors, register
from pipeline.caffe.proto.caffe_pb2 import ReductionParameter


@register("Reduction")
class Reduction(Layer):
    """coeff times the sum, the sum of |x| (ASUM), of x^2 (SUMSQ) or the mean of all axes from `axis` on.

    bottom (outer..., reduced...) -> top (outer...).
    """

    operators: ClassVar[dict[int, str]] = {  # ONNX's names
        ReductionParameter.SUM: "ReduceSum",
        ReductionParameter.ASUM: "ReduceL1",
        ReductionParameter.SUMSQ: "ReduceSumSquare",
        ReductionParameter.MEAN: "ReduceMean",
    }

    def setup(self, bottom: list[Shape]) -> list[Shape]:
        self.first = self.axis(self.param.reduction_param.axis, bottom[0])
        return [bottom[0][: self.first]]

    def forward(self, bottom: Tensors) -> Tensors:
        param = self.param.reduction_param
        x = bottom[0].flatten(self.first)
        if param.operation == ReductionParameter.MEAN:
            return [x.mean(-1) * param.coeff]
        if param.operation == ReductionParameter.ASUM:
            x = x.abs()
        elif param.operation == ReductionParameter.SUMSQ:
            x = x.square()
        return [x.sum(-1) * param.coeff]

    def onnx(self, graph: Graph, bottom: list[str]) -> list[str]:
        param = self.param.reduction_param
        # Flattened first: ONNX's older reductions take their axes otherwise than its newer ones, but all take -1.
        vectors = graph.node("Reshape", [*bottom, graph.constant([0] * self.first + [-1])])
        operator = self.operators[param.operation]
        reduced = (
            graph.node(operator, [vectors, graph.constant([-1])], keepdims=0)
            if operator == "ReduceSum"
            else graph.node(operator, [vectors], axes=[-1], keepdims=0)
        )
        return [graph.node("Mul", [reduced, graph.constant(np.array(param.coeff))])]
