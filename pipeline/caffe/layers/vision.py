"""Layers that slide a window over images."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from pipeline.caffe.caffe_pb2 import ConvolutionParameter, LRNParameter, PoolingParameter
from pipeline.caffe.layers.layer import Graph, Layer, Shape, Tensors, register

CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


@register("Convolution")
class Convolution(Layer):
    """bottom (N, C, spatial...) -> top (N, num_output, spatial'...), up to three spatial axes.

    Each spatial axis: floor((size + 2 pad - (dilation (kernel - 1) + 1)) / stride) + 1. Several bottoms share the
    blobs: weight (num_output, C / group, kernel...) and, unless bias_term is false, bias (num_output,).
    """

    bottoms = (1, None)
    tops = (1, None)

    def setup(self, bottom: list[Shape]) -> list[Shape]:
        param = self.param.convolution_param
        axes = len(bottom[0]) - 2
        if self.axis(param.axis, bottom[0]) != 1 or axes not in CONVOLUTIONS:
            raise self.error(f"bottom of shape {bottom[0]} with axis {param.axis} where (N, C, one to three spatial "
                             "axes) with axis 1 was expected")
        if any(shape != bottom[0] for shape in bottom) or len(self.param.top) != len(bottom):
            raise self.error("as many tops as bottoms, all of one shape, were expected")
        self.kernel = self.per_axis("kernel_size", "kernel", axes, None)
        self.stride = self.per_axis("stride", "stride", axes, 1)
        self.pad = self.per_axis("pad", "pad", axes, 0)
        self.dilation = self.per_axis("dilation", None, axes, 1)
        channels, outputs, group = bottom[0][1], param.num_output, param.group
        if min(self.kernel) < 1 or min(self.stride) < 1 or min(self.dilation) < 1:
            raise self.error(f"kernel {self.kernel}, stride {self.stride}, dilation {self.dilation} where at least 1 "
                             "was expected")
        if outputs < 1 or group < 1 or channels % group or outputs % group:
            raise self.error(f"group {group} does not divide {channels} channels and num_output {outputs}")
        self.add_blob((outputs, channels // group, *self.kernel), param.weight_filler)
        if param.bias_term:
            self.add_blob((outputs,), param.bias_filler)
        spatial = tuple((size + 2 * pad - (dilation * (kernel - 1) + 1)) // stride + 1 for size, kernel, stride, pad,
                        dilation in zip(bottom[0][2:], self.kernel, self.stride, self.pad, self.dilation, strict=True))
        if min(spatial) < 1:
            raise self.error(f"kernel {self.kernel} is larger than the padded bottom of shape {bottom[0]}")
        return [(shape[0], outputs, *spatial) for shape in bottom]

    def per_axis(self, name: str, prefix: str | None, axes: int, default: int | None) -> tuple[int, ...]:
        """One value an axis, from name (once or once an axis) or prefix_h and prefix_w."""
        param: ConvolutionParameter = self.param.convolution_param
        values: Sequence[int] = getattr(param, name)
        if prefix and (param.HasField(f"{prefix}_h") or param.HasField(f"{prefix}_w")):
            if values or axes != 2:
                raise self.error(f"{prefix}_h and {prefix}_w are for images, and instead of {name}")
            return getattr(param, f"{prefix}_h"), getattr(param, f"{prefix}_w")
        if not values and default is not None:
            values = [default]
        if len(values) not in (1, axes):
            raise self.error(f"{len(values)} values of {name} where 1 or {axes} were expected")
        return tuple(values) * (axes if len(values) == 1 else 1)

    def forward(self, bottom: Tensors) -> Tensors:
        weight, *bias = self.blobs
        convolution = CONVOLUTIONS[len(self.kernel)]
        return [convolution(value, weight, bias[0] if bias else None, self.stride, self.pad, self.dilation,
                            self.param.convolution_param.group) for value in bottom]

    def onnx(self, graph: Graph, bottom: list[str]) -> list[str]:
        blobs = [graph.constant(blob) for blob in self.blobs]
        return [graph.node("Conv", [value, *blobs], kernel_shape=self.kernel, strides=self.stride,
                           pads=self.pad * 2, dilations=self.dilation, group=self.param.convolution_param.group)
                for value in bottom]


@register("Pooling")
class Pooling(Layer):
    """Max or average pooling. bottom (N, C, H, W) -> top (N, C, H', W').

    H' = ceil((H + 2 pad - kernel) / stride) + 1 (floor with round_mode FLOOR), less one when there is padding and the
    last window would start beyond the padded input (caffe/layers/pooling_layer.cpp, Reshape). AVE divides by the
    window clipped at H + pad, padding counted. STOCHASTIC is not known.
    """

    def setup(self, bottom: list[Shape]) -> list[Shape]:
        param = self.param.pooling_param
        if len(bottom[0]) != 4:
            raise self.error(f"bottom of shape {bottom[0]} where (N, C, H, W) was expected")
        if param.pool == PoolingParameter.STOCHASTIC:
            raise self.error("STOCHASTIC pooling is not known; MAX or AVE was expected")
        if param.global_pooling:
            if param.HasField("kernel_size") or param.HasField("kernel_h") or param.HasField("kernel_w"):
                raise self.error("global_pooling takes no kernel")
            self.kernel = self.stride = (0, 0)
            self.pad = (0, 0)
            return [(*bottom[0][:2], 1, 1)]
        self.kernel = self.pair("kernel_size", "kernel")
        self.stride = self.pair("stride", "stride")
        self.pad = self.pair("pad", "pad")
        if min(*self.kernel, *self.stride) < 1 or any(p >= k for p, k in zip(self.pad, self.kernel, strict=True)):
            raise self.error(f"kernel {self.kernel}, stride {self.stride}, pad {self.pad} where kernel and stride of "
                             "at least 1 and a pad smaller than the kernel were expected")
        top = self.pooled(bottom[0][2:])
        if min(top) < 1:
            raise self.error(f"kernel {self.kernel} is larger than the padded bottom of shape {bottom[0]}")
        return [(*bottom[0][:2], *top)]

    def pair(self, name: str, prefix: str) -> tuple[int, int]:
        """Height and width from `name`, or from prefix_h and prefix_w."""
        param = self.param.pooling_param
        if param.HasField(f"{prefix}_h") or param.HasField(f"{prefix}_w"):
            if param.HasField(name):
                raise self.error(f"both {name} and {prefix}_h, {prefix}_w are given")
            return getattr(param, f"{prefix}_h"), getattr(param, f"{prefix}_w")
        value = getattr(param, name)
        return value, value

    def pooled(self, spatial: Sequence[int]) -> tuple[int, ...]:
        """(H', W') for (H, W)."""
        up = self.param.pooling_param.round_mode == PoolingParameter.CEIL
        sizes = []
        for size, kernel, stride, pad in zip(spatial, self.kernel, self.stride, self.pad, strict=True):
            span = size + 2 * pad - kernel
            windows = (-(-span // stride) if up else span // stride) + 1
            if any(self.pad) and (windows - 1) * stride >= size + pad:
                windows -= 1
            sizes.append(windows)
        return tuple(sizes)

    def forward(self, bottom: Tensors) -> Tensors:
        param = self.param.pooling_param
        x = bottom[0]
        if param.global_pooling:
            if param.pool == PoolingParameter.AVE:
                return [x.mean((2, 3), keepdim=True)]
            return [F.max_pool2d(x, tuple(x.shape[2:]))]  # unlike amax, gives the first of equal values the gradient
        spatial = x.shape[2:]
        top = self.pooled(spatial)
        beyond = self.beyond(spatial)
        if param.pool == PoolingParameter.MAX:
            overlapping = all(stride <= kernel for stride, kernel in zip(self.stride, self.kernel, strict=True))
            if overlapping and not any(self.pad):
                # torch clips the last window as Caffe does here, without a padded copy.
                up = param.round_mode == PoolingParameter.CEIL
                return [F.max_pool2d(x, self.kernel, self.stride, ceil_mode=up)]
            return [F.max_pool2d(self.padded(x, beyond, torch.finfo(x.dtype).min), self.kernel, self.stride)]
        sums = F.avg_pool2d(self.padded(x, beyond, 0), self.kernel, self.stride, divisor_override=1)
        areas = torch.outer(*(
            torch.tensor([min(i * stride + kernel, size + 2 * pad) - i * stride for i in range(windows)])
            for size, windows, kernel, stride, pad in
            zip(spatial, top, self.kernel, self.stride, self.pad, strict=True)))
        return [sums / areas.to(x)]

    def onnx(self, graph: Graph, bottom: list[str]) -> list[str]:
        param = self.param.pooling_param
        kind = "MaxPool" if param.pool == PoolingParameter.MAX else "AveragePool"
        if param.global_pooling:
            return [graph.node(f"Global{kind}", bottom)]
        size: dict[str, Any] = {"kernel_shape": self.kernel, "strides": self.stride}
        ceil_mode = int(param.round_mode == PoolingParameter.CEIL)
        spatial = graph.shapes[bottom[0]][2:]
        if -1 in spatial:
            if any(self.pad) or any(s > k for s, k in zip(self.stride, self.kernel, strict=True)):
                raise self.error("pad, or a stride beyond the kernel, has no ONNX form here for images of any size")
            return [graph.node(kind, bottom, **size, ceil_mode=ceil_mode)]
        # Runtimes differ in which last windows they drop, so the padding says where the last one ends.
        ends = [beyond for _, beyond in self.beyond(spatial)]
        if any(end >= kernel for end, kernel in zip(ends, self.kernel, strict=True)):
            raise self.error(f"stride {self.stride} beyond kernel {self.kernel} leaves a window outside the bottom, "
                             "which has no ONNX form")
        if kind == "MaxPool":
            return [graph.node(kind, bottom, **size, pads=[*self.pad, *(max(end, 0) for end in ends)])]
        if any(self.pad):  # zeros that count, up to H + pad
            ends = [min(end, pad) for end, pad in zip(ends, self.pad, strict=True)]
            bottom = [graph.node("Pad", [*bottom, graph.constant([0, 0, *self.pad, 0, 0, *ends])])]
        return [graph.node(kind, bottom, **size, ceil_mode=ceil_mode)]

    def beyond(self, spatial: Sequence[int]) -> list[tuple[int, int]]:
        """By how much the windows reach beyond the bottom, before and behind, on each axis of (H, W)."""
        return [(pad, (windows - 1) * stride + kernel - size - pad) for size, windows, kernel, stride, pad in
                zip(spatial, self.pooled(spatial), self.kernel, self.stride, self.pad, strict=True)]

    @staticmethod
    def padded(x: torch.Tensor, beyond: list[tuple[int, int]], value: float) -> torch.Tensor:
        # A negative amount cuts off rows that no window reaches.
        (top, bottom), (left, right) = beyond
        return F.pad(x, (left, right, top, bottom), value=value)


@register("LRN")
class LRN(Layer):
    """Local response normalisation: x / (k + alpha/n * sum of squares over a window)^beta. Shape unchanged.

    ACROSS_CHANNELS: n = local_size channels around each. WITHIN_CHANNEL: n = local_size^2 pixels, k fixed at 1, the
    window's average counting padding (caffe/layers/lrn_layer.cpp).
    """

    def setup(self, bottom: list[Shape]) -> list[Shape]:
        if self.param.lrn_param.local_size % 2 == 0:
            raise self.error(f"local_size {self.param.lrn_param.local_size} where an odd number was expected")
        if len(bottom[0]) != 4:
            raise self.error(f"bottom of shape {bottom[0]} where (N, C, H, W) was expected")
        return bottom

    def forward(self, bottom: Tensors) -> Tensors:
        param = self.param.lrn_param
        x, size = bottom[0], param.local_size
        half = size // 2
        if param.norm_region == LRNParameter.ACROSS_CHANNELS:
            squares = F.pad(x.square().unsqueeze(1), (0, 0, 0, 0, half, half))
            averages = F.avg_pool3d(squares, (size, 1, 1), stride=1).squeeze(1)
            return [x * (param.k + param.alpha * averages).pow(-param.beta)]
        averages = F.avg_pool2d(x.square(), size, stride=1, padding=half)
        return [x * (1 + param.alpha * averages).pow(-param.beta)]

    def onnx(self, graph: Graph, bottom: list[str]) -> list[str]:
        param = self.param.lrn_param
        size, half = param.local_size, param.local_size // 2
        if param.norm_region == LRNParameter.ACROSS_CHANNELS:
            return [graph.node("LRN", bottom, size=size, alpha=param.alpha, beta=param.beta, bias=param.k)]
        averages = graph.node("AveragePool", [graph.node("Mul", bottom * 2)], kernel_shape=[size] * 2,
                              pads=[half] * 4, count_include_pad=1)
        scaled = graph.node("Mul", [averages, graph.constant(np.array(param.alpha))])
        base = graph.node("Add", [scaled, graph.constant(np.array(1))])
        return [graph.node("Div", [*bottom, graph.node("Pow", [base, graph.constant(np.array(param.beta))])])]
