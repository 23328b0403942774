"""The fully connected layer."""

import math

import torch.nn.functional as F

from pipeline.caffe.layers.layer import Graph, Layer, Shape, Tensors, register


@register("InnerProduct")
class InnerProduct(Layer):
    """bottom (outer..., inner...) -> top (outer..., num_output); everything from `axis` on is one vector of K values.

    Blobs: weight (num_output, K), or (K, num_output) with `transpose`; bias (num_output,) unless bias_term is false.
    """

    def setup(self, bottom: list[Shape]) -> list[Shape]:
        param = self.param.inner_product_param
        if param.num_output < 1:
            raise self.error(f"num_output {param.num_output} where at least 1 was expected")
        self.first = self.axis(param.axis, bottom[0])
        outputs, inputs = param.num_output, math.prod(bottom[0][self.first:])
        self.add_blob((inputs, outputs) if param.transpose else (outputs, inputs), param.weight_filler)
        if param.bias_term:
            self.add_blob((outputs,), param.bias_filler)
        return [(*bottom[0][: self.first], outputs)]

    def forward(self, bottom: Tensors) -> Tensors:
        weight, *bias = self.blobs
        if self.param.inner_product_param.transpose:
            weight = weight.t()
        vectors = bottom[0].flatten(self.first)
        return [F.linear(vectors, weight, bias[0] if bias else None)]

    def onnx(self, graph: Graph, bottom: list[str]) -> list[str]:
        weight, *bias = self.blobs
        inputs_first = weight if self.param.inner_product_param.transpose else weight.t()
        vectors = graph.node("Reshape", [*bottom, graph.constant([0] * self.first + [inputs_first.shape[0]])])
        top = graph.node("MatMul", [vectors, graph.constant(inputs_first)])
        return [graph.node("Add", [top, graph.constant(bias[0])]) if bias else top]
