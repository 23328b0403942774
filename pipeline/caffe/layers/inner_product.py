"""The fully connected layer."""

import math
from typing import Any

import torch
import torch.nn.functional as F

from pipeline.caffe.layers.layer import Graph, Layer, Shape, Tensors, register

LARGE = 1 << 20  # weights; below, a product takes no longer than getting to oneDNN


class _LargeProduct(torch.autograd.Function):
    """F.linear and its gradients by oneDNN, which takes a quarter less time than torch's BLAS for few vectors (N, K).

    torch hands float32 products to oneDNN only through this operator, which is not among those that it documents.
    """

    @staticmethod
    def available(vectors: torch.Tensor, weight: torch.Tensor) -> bool:
        """Whether it can make this product, and is worth it."""
        return (
            weight.numel() >= LARGE
            and vectors.ndim == 2
            and vectors.device.type == "cpu"
            and vectors.dtype == weight.dtype == torch.float32
            and not torch.is_autocast_enabled("cpu")
            and torch.backends.mkldnn.is_available()
            and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        )

    @staticmethod
    def forward(context: Any, vectors: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        context.save_for_backward(vectors, weight)
        return _product(vectors, weight, bias)

    @staticmethod
    def backward(context: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        vectors, weight = context.saved_tensors
        of_vectors, of_weight, of_bias = context.needs_input_grad
        return (
            _product(gradient, weight.t()) if of_vectors else None,
            _product(gradient.t(), vectors.t()) if of_weight else None,
            gradient.sum(0) if of_bias else None,
        )


def _product(a: torch.Tensor, b: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """a b^T + bias."""
    product: torch.Tensor = torch.ops.mkldnn._linear_pointwise(a, b, bias, "none", [], "")
    return product


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
        outputs, inputs = param.num_output, math.prod(bottom[0][self.first :])
        self.add_blob((inputs, outputs) if param.transpose else (outputs, inputs), param.weight_filler)
        if param.bias_term:
            self.add_blob((outputs,), param.bias_filler)
        return [(*bottom[0][: self.first], outputs)]

    def forward(self, bottom: Tensors) -> Tensors:
        weight, *bias = self.blobs
        if self.param.inner_product_param.transpose:
            weight = weight.t()
        vectors = bottom[0].flatten(self.first)
        linear = _LargeProduct.apply if _LargeProduct.available(vectors, weight) else F.linear
        return [linear(vectors, weight, bias[0] if bias else None)]

    def multiply_adds(self, bottom: list[Shape], top: list[Shape]) -> int:
        return math.prod(bottom[0][: self.first]) * self.blobs[0].numel()

    def onnx(self, graph: Graph, bottom: list[str]) -> list[str]:
        weight, *bias = self.blobs
        inputs_first = weight if self.param.inner_product_param.transpose else weight.t()
        vectors = graph.node("Reshape", [*bottom, graph.constant([0] * self.first + [inputs_first.shape[0]])])
        top = graph.node("MatMul", [vectors, graph.constant(inputs_first)])
        return [graph.node("Add", [top, graph.constant(bias[0])]) if bias else top]
