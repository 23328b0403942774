"""Layers that work on every value by itself."""

import numpy as np
import torch
import torch.nn.functional as F

from pipeline.caffe.layers.layer import Graph, Layer, Shape, Tensors, register
from pipeline.caffe.proto.caffe_pb2 import FillerParameter


class Activation(Layer):
    """A function of every value. bottom (any shape) -> top (the same shape)."""

    def setup(self, bottom: list[Shape]) -> list[Shape]:
        return bottom


@register("ReLU")
class ReLU(Activation):
    """max(x, 0) + negative_slope * min(x, 0)."""

    def forward(self, bottom: Tensors) -> Tensors:
        slope = self.param.relu_param.negative_slope
        return [F.leaky_relu(bottom[0], slope) if slope else F.relu(bottom[0])]

    def onnx(self, graph: Graph, bottom: list[str]) -> list[str]:
        slope = self.param.relu_param.negative_slope
        return [graph.node("LeakyRelu", bottom, alpha=slope) if slope else graph.node("Relu", bottom)]


@register("ReLU6")
class ReLU6(Activation):
    """min(max(x, 0), 6)."""

    def forward(self, bottom: Tensors) -> Tensors:
        return [F.relu6(bottom[0])]

    def onnx(self, graph: Graph, bottom: list[str]) -> list[str]:
        return [graph.node("Clip", [*bottom, graph.constant(np.array(0)), graph.constant(np.array(6))])]


@register("PReLU")
class PReLU(Activation):
    """max(x, 0) + slope * min(x, 0), the slope learned: one a channel, or one in all with channel_shared.

    bottom (N, C, ...) -> top (the same shape). Blob: slope (C,) or (), 0.25 unless `filler` says otherwise
    (He et al., 2015; caffe/layers/prelu_layer.cpp).
    """

    def setup(self, bottom: list[Shape]) -> list[Shape]:
        param = self.param.prelu_param
        if len(bottom[0]) < 2:
            raise self.error(f"bottom of shape {bottom[0]} where at least two axes were expected")
        filler = param.filler if param.HasField("filler") else FillerParameter(type="constant", value=0.25)
        self.add_blob(() if param.channel_shared else (bottom[0][1],), filler)
        return bottom

    def forward(self, bottom: Tensors) -> Tensors:
        return [F.prelu(bottom[0], self.blobs[0].reshape(-1).to(bottom[0].dtype))]

    def onnx(self, graph: Graph, bottom: list[str]) -> list[str]:
        trailing = [1] * (len(graph.shapes[bottom[0]]) - 2)  # ONNX lays the slope along the last axes
        slope = self.blobs[0].detach().reshape(-1, *trailing)
        # slope x + (1 - slope) max(x, 0): ONNX Runtime takes several times as long for its PRelu as for these, which it
        # can fuse with the convolution's own layout.
        sloped = graph.node("Mul", [*bottom, graph.constant(slope)])
        rest = graph.constant(1 - slope)
        if (slope <= 1).all():
            bent = graph.node("Relu", [graph.node("Mul", [*bottom, rest])])
        else:
            bent = graph.node("Mul", [graph.node("Relu", bottom), rest])
        return [graph.node("Add", [sloped, bent])]


@register("Sigmoid")
class Sigmoid(Activation):
    """1 / (1 + exp(-x))."""

    def forward(self, bottom: Tensors) -> Tensors:
        return [torch.sigmoid(bottom[0])]

    def onnx(self, graph: Graph, bottom: list[str]) -> list[str]:
        return [graph.node("Sigmoid", bottom)]


@register("TanH")
class TanH(Activation):
    """tanh(x)."""

    def forward(self, bottom: Tensors) -> Tensors:
        return [torch.tanh(bottom[0])]

    def onnx(self, graph: Graph, bottom: list[str]) -> list[str]:
        return [graph.node("Tanh", bottom)]


@register("ELU")
class ELU(Activation):
    """x above 0, else alpha * (exp(x) - 1)."""

    def forward(self, bottom: Tensors) -> Tensors:
        return [F.elu(bottom[0], self.param.elu_param.alpha)]

    def onnx(self, graph: Graph, bottom: list[str]) -> list[str]:
        return [graph.node("Elu", bottom, alpha=self.param.elu_param.alpha)]


@register("BNLL")
class BNLL(Activation):
    """log(1 + exp(x)), the binomial normal log likelihood."""

    def forward(self, bottom: Tensors) -> Tensors:
        return [F.softplus(bottom[0])]

    def onnx(self, graph: Graph, bottom: list[str]) -> list[str]:
        return [graph.node("Softplus", bottom)]


@register("Swish")
class Swish(Activation):
    """x / (1 + exp(-beta * x))."""

    def forward(self, bottom: Tensors) -> Tensors:
        return [bottom[0] * torch.sigmoid(self.param.swish_param.beta * bottom[0])]

    def onnx(self, graph: Graph, bottom: list[str]) -> list[str]:
        scaled = graph.node("Mul", [*bottom, graph.constant(np.array(self.param.swish_param.beta))])
        return [graph.node("Mul", [*bottom, graph.node("Sigmoid", [scaled])])]


@register("Dropout")
class Dropout(Activation):
    """In TRAIN, zero each value with probability dropout_ratio and scale the rest by 1/(1 - ratio); else nothing."""

    def setup(self, bottom: list[Shape]) -> list[Shape]:
        ratio = self.param.dropout_param.dropout_ratio
        if not 0 < ratio < 1 and not (ratio == 0 and self.param.dropout_param.HasField("dropout_ratio")):
            raise self.error(f"dropout_ratio {ratio} where 0 <= ratio < 1 was expected")
        return bottom

    def forward(self, bottom: Tensors) -> Tensors:
        ratio = self.param.dropout_param.dropout_ratio
        if not self.training or ratio == 0:
            return bottom
        draws = torch.rand(bottom[0].shape, generator=self.generator, device=bottom[0].device)
        mask = (draws >= ratio).to(bottom[0].dtype).mul_(1 / (1 - ratio))
        return [bottom[0] * mask]

    def onnx(self, graph: Graph, bottom: list[str]) -> list[str]:
        return bottom
