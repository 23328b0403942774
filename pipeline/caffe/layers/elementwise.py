"""Layers that join several bottoms value by value, or learn one factor or term a channel."""

import math

import numpy as np
import torch

from pipeline.caffe.layers.layer import Graph, Layer, Shape, Tensors, register
from pipeline.caffe.proto.caffe_pb2 import BiasParameter, EltwiseParameter, FillerParameter, ScaleParameter


@register("Eltwise")
class Eltwise(Layer):
    """Sum (each bottom times its coeff), product or maximum of bottoms of one shape -> top of that shape.

    stable_prod_grad only chooses how Caffe computes the product's gradient; torch's is the stable one.
    """

    bottoms = (2, None)

    def setup(self, bottom: list[Shape]) -> list[Shape]:
        param = self.param.eltwise_param
        if any(shape != bottom[0] for shape in bottom):
            raise self.error(f"bottoms of shapes {', '.join(map(str, bottom))} where one shape was expected")
        if param.coeff and (len(param.coeff) != len(bottom) or param.operation == EltwiseParameter.PROD):
            raise self.error(f"{len(param.coeff)} coeff where SUM takes one a bottom ({len(bottom)}), others none")
        if param.operation == EltwiseParameter.MAX:
            self.note_ignored("eltwise_param", ("coeff",))
        return bottom[:1]

    def forward(self, bottom: Tensors) -> Tensors:
        param = self.param.eltwise_param
        if param.operation == EltwiseParameter.SUM:
            if param.coeff:
                bottom = [value * coeff for value, coeff in zip(bottom, param.coeff, strict=True)]
            return [sum(bottom[1:], bottom[0])]
        if param.operation == EltwiseParameter.PROD:
            return [math.prod(bottom[1:], start=bottom[0])]
        # Where values are equal Caffe gives the whole gradient to one: to the second bottom rather than the first, to
        # a later one only when it is greater (eltwise_layer.cpp, MAX). torch.maximum would halve it.
        top = torch.where(bottom[0] > bottom[1], bottom[0], bottom[1])
        for value in bottom[2:]:
            top = torch.where(value > top, value, top)
        return [top]

    def onnx(self, graph: Graph, bottom: list[str]) -> list[str]:
        param = self.param.eltwise_param
        if param.coeff and param.operation == EltwiseParameter.SUM:
            bottom = [
                graph.node("Mul", [value, graph.constant(np.array(coeff))])
                for value, coeff in zip(bottom, param.coeff, strict=True)
            ]
        if param.operation != EltwiseParameter.PROD:
            return [graph.node("Sum" if param.operation == EltwiseParameter.SUM else "Max", bottom)]
        top = bottom[0]
        for value in bottom[1:]:
            top = graph.node("Mul", [top, value])
        return [top]


class Broadcast(Layer):
    """A blob, learned or a second bottom, laid along `axis` of the first bottom."""

    bottoms = (1, 2)

    def broadcast_setup(
        self, bottom: list[Shape], param: ScaleParameter | BiasParameter, filler: FillerParameter
    ) -> Shape:
        """Make the blob where there is no second bottom, remember how it is laid, and return its shape."""
        # One number for all has no place that it lies along, so Caffe does not look at the axis.
        start = 0 if len(bottom) == 2 and not bottom[1] else self.axis(param.axis, bottom[0])
        if len(bottom) == 2:
            shape = bottom[1]
        else:
            end = len(bottom[0]) if param.num_axes == -1 else start + param.num_axes
            if end > len(bottom[0]) or end < start:
                raise self.error(f"num_axes {param.num_axes} from axis {start} where the bottom has shape {bottom[0]}")
            shape = bottom[0][start:end]
            self.add_blob(shape, filler)
        if bottom[0][start : start + len(shape)] != shape:
            raise self.error(f"{shape} does not lie along axis {start} of {bottom[0]}")
        self.trailing_axes = len(bottom[0]) - start - len(shape)
        return shape

    def lay(self, blob: torch.Tensor) -> torch.Tensor:
        """Give `blob` the trailing axes that broadcasting over the first bottom needs."""
        return blob.reshape(*blob.shape, *[1] * self.trailing_axes)

    def onnx_lay(self, graph: Graph, value: str) -> str:
        """What lay does to a blob, for a value of the graph."""
        return graph.node("Reshape", [value, graph.constant([0] * len(graph.shapes[value]) + [1] * self.trailing_axes)])


@register("Scale")
class Scale(Broadcast):
    """bottom * scale (+ bias). bottom (any shape)[, scale] -> top (the same shape).

    Blobs: scale, of num_axes axes of the bottom from `axis`, 1 unless `filler` says otherwise, left out when a second
    bottom gives it; with bias_term, bias of the same shape.
    """

    def setup(self, bottom: list[Shape]) -> list[Shape]:
        param = self.param.scale_param
        filler = param.filler if param.HasField("filler") else FillerParameter(type="constant", value=1)
        shape = self.broadcast_setup(bottom, param, filler)
        if param.bias_term:
            self.add_blob(shape, param.bias_filler)
        return bottom[:1]

    def forward(self, bottom: Tensors) -> Tensors:
        if self.scales_channels(bottom):
            # Normalising by a mean of 0 and a deviation of 1 is scale and shift in one pass, where a product and a sum
            # take two. It also keeps bfloat16 values bfloat16, which a product with a float32 scale makes float32.
            scale, *bias = self.blobs
            zeros, ones = torch.zeros_like(scale, requires_grad=False), torch.ones_like(scale, requires_grad=False)
            return [torch.native_batch_norm(bottom[0], scale, bias[0] if bias else None, zeros, ones, False, 0, 0)[0]]
        scale, *bias = (*bottom[1:], *self.blobs)
        top = bottom[0] * self.lay(scale)
        return [top + self.lay(bias[0]) if bias else top]

    def scales_channels(self, bottom: Tensors) -> bool:
        """Whether the layer's own blob has a factor for each channel of several images (N, C, H, W).

        Of one image torch's backward of batch norm may take the strides for others than they are.
        """
        images = bottom[0]
        return (
            len(bottom) == 1
            and images.ndim == 4
            and len(images) > 1
            and self.trailing_axes == 2
            and self.blobs[0].shape == images.shape[1:2]
        )

    def onnx(self, graph: Graph, bottom: list[str]) -> list[str]:
        scale, *bias = (
            *(self.onnx_lay(graph, value) for value in bottom[1:]),
            *(graph.constant(self.lay(blob)) for blob in self.blobs),
        )
        top = graph.node("Mul", [bottom[0], scale])
        return [graph.node("Add", [top, *bias]) if bias else top]


@register("Bias")
class Bias(Broadcast):
    """bottom + bias. bottom (any shape)[, bias] -> top (the same shape). Blob: bias, as Scale's scale, 0 by default."""

    def setup(self, bottom: list[Shape]) -> list[Shape]:
        self.broadcast_setup(bottom, self.param.bias_param, self.param.bias_param.filler)
        return bottom[:1]

    def forward(self, bottom: Tensors) -> Tensors:
        return [bottom[0] + self.lay((*bottom[1:], *self.blobs)[0])]

    def onnx(self, graph: Graph, bottom: list[str]) -> list[str]:
        bias = self.onnx_lay(graph, bottom[1]) if len(bottom) == 2 else graph.constant(self.lay(self.blobs[0]))
        return [graph.node("Add", [bottom[0], bias])]
