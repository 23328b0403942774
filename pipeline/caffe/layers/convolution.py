"""Layers that lay a kernel on every place of images, or of signals and volumes."""

import math
from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F

from pipeline.caffe.layers.layer import Graph, Layer, Shape, Tensors, register


class Windows(Layer):
    """Kernel, stride, pad and dilation of a convolution_param, one number for each spatial axis."""

    def windows_setup(self, axes: int) -> None:
        """Read them for `axes` spatial axes."""
        self.kernel = self.per_axis("kernel_size", "kernel", axes, None)
        self.stride = self.per_axis("stride", "stride", axes, 1)
        self.pad = self.per_axis("pad", "pad", axes, 0)
        self.dilation = self.per_axis("dilation", None, axes, 1)
        if min(self.kernel) < 1 or min(self.stride) < 1 or min(self.dilation) < 1:
            raise self.error(f"kernel {self.kernel}, stride {self.stride}, dilation {self.dilation} where at least 1 "
                             "was expected")

    def per_axis(self, name: str, prefix: str | None, axes: int, default: int | None) -> tuple[int, ...]:
        """One value an axis, from name (once or once an axis) or prefix_h and prefix_w."""
        param = self.param.convolution_param
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

    @property
    def extent(self) -> tuple[int, ...]:
        """From a dilated kernel's first value to its last, on each axis."""
        return tuple(dilation * (kernel - 1) + 1
                     for kernel, dilation in zip(self.kernel, self.dilation, strict=True))

    def places(self, bottom: Shape, spatial: Sequence[int]) -> Shape:
        """How many windows fit on each of the bottom's spatial axes."""
        top = tuple((size + 2 * pad - extent) // stride + 1 for size, pad, extent, stride in
                    zip(spatial, self.pad, self.extent, self.stride, strict=True))
        if min(top) < 1:
            raise self.error(f"kernel {self.kernel} is larger than the padded bottom of shape {bottom}")
        return top


class Kernels(Windows):
    """A learned kernel for every pair of channels; several bottoms share the blobs."""

    bottoms = (1, None)
    tops = (1, None)
    operator: ClassVar[str]  # ONNX's name

    def kernels_setup(self, bottom: list[Shape]) -> None:
        """Check the bottoms' shapes and read what is common to both directions."""
        param = self.param.convolution_param
        axes = len(bottom[0]) - 2
        if self.axis(param.axis, bottom[0]) != 1 or axes not in (1, 2, 3):
            raise self.error(f"bottom of shape {bottom[0]} with axis {param.axis} where (N, C, one to three spatial "
                             "axes) with axis 1 was expected")
        if any(shape != bottom[0] for shape in bottom) or len(self.param.top) != len(bottom):
            raise self.error("as many tops as bottoms, all of one shape, were expected")
        self.windows_setup(axes)
        channels, outputs, group = bottom[0][1], param.num_output, param.group
        if outputs < 1 or group < 1 or channels % group or outputs % group:
            raise self.error(f"group {group} does not divide {channels} channels and num_output {outputs}")

    def add_blobs(self, weight: Shape) -> None:
        """Make the weight and, unless bias_term is false, the bias."""
        param = self.param.convolution_param
        self.add_blob((*weight, *self.kernel), param.weight_filler)
        if param.bias_term:
            self.add_blob((param.num_output,), param.bias_filler)

    def onnx(self, graph: Graph, bottom: list[str]) -> list[str]:
        blobs = [graph.constant(blob) for blob in self.blobs]
        return [graph.node(self.operator, [value, *blobs], kernel_shape=self.kernel, strides=self.stride,
                           pads=self.pad * 2, dilations=self.dilation, group=self.param.convolution_param.group)
                for value in bottom]


@register("Convolution")
class Convolution(Kernels):
    """bottom (N, C, spatial...) -> top (N, num_output, spatial'...), up to three spatial axes.

    Each spatial axis: floor((size + 2 pad - (dilation (kernel - 1) + 1)) / stride) + 1. Several bottoms share the
    blobs: weight (num_output, C / group, kernel...) and, unless bias_term is false, bias (num_output,).
    """

    operator = "Conv"
    functions: ClassVar[dict[int, Callable[..., torch.Tensor]]] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}

    def setup(self, bottom: list[Shape]) -> list[Shape]:
        self.kernels_setup(bottom)
        param = self.param.convolution_param
        self.add_blobs((param.num_output, bottom[0][1] // param.group))
        spatial = self.places(bottom[0], bottom[0][2:])
        return [(shape[0], param.num_output, *spatial) for shape in bottom]

    def forward(self, bottom: Tensors) -> Tensors:
        weight, *bias = self.blobs
        convolve = self.functions[len(self.kernel)]
        return [convolve(value, weight, bias[0] if bias else None, self.stride, self.pad, self.dilation,
                         self.param.convolution_param.group) for value in bottom]


@register("Deconvolution")
class Deconvolution(Kernels):
    """Convolution turned round: bottom (N, C, spatial...) -> top (N, num_output, spatial'...), to enlarge.

    Each spatial axis: stride (size - 1) + dilation (kernel - 1) + 1 - 2 pad. Several bottoms share the blobs: weight
    (C, num_output / group, kernel...) and, unless bias_term is false, bias (num_output,).
    """

    operator = "ConvTranspose"
    functions: ClassVar[dict[int, Callable[..., torch.Tensor]]] = {
        1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}

    def setup(self, bottom: list[Shape]) -> list[Shape]:
        self.kernels_setup(bottom)
        param = self.param.convolution_param
        self.add_blobs((bottom[0][1], param.num_output // param.group))
        spatial = tuple(stride * (size - 1) + extent - 2 * pad for size, stride, extent, pad in
                        zip(bottom[0][2:], self.stride, self.extent, self.pad, strict=True))
        if min(spatial) < 1:
            raise self.error(f"pad {self.pad} cuts off all that kernel {self.kernel} makes of a bottom of shape "
                             f"{bottom[0]}")
        return [(shape[0], param.num_output, *spatial) for shape in bottom]

    def forward(self, bottom: Tensors) -> Tensors:
        weight, *bias = self.blobs
        spread = self.functions[len(self.kernel)]
        return [spread(value, weight, bias[0] if bias else None, self.stride, self.pad, 0,
                       self.param.convolution_param.group, self.dilation) for value in bottom]


@register("Im2col")
class Im2col(Windows):
    """Every window's values as channels: bottom (outer..., C, spatial...) -> top (outer..., C * kernel, spatial'...).

    The channels stand on `axis`; sizes are those of a Convolution.
    """

    def setup(self, bottom: list[Shape]) -> list[Shape]:
        self.channel_axis = self.axis(self.param.convolution_param.axis, bottom[0])
        spatial = bottom[0][self.channel_axis + 1 :]
        if not spatial:
            raise self.error(f"bottom of shape {bottom[0]} has no spatial axes after axis {self.channel_axis}")
        self.windows_setup(len(spatial))
        channels = bottom[0][self.channel_axis] * math.prod(self.kernel)
        return [(*bottom[0][: self.channel_axis], channels, *self.places(bottom[0], spatial))]

    def forward(self, bottom: Tensors) -> Tensors:
        first = self.channel_axis + 1
        windows = F.pad(bottom[0], [pad for pad in reversed(self.pad) for _ in range(2)])
        for axis, (extent, stride, dilation) in enumerate(zip(self.extent, self.stride, self.dilation, strict=True)):
            windows = windows.unfold(first + axis, extent, stride)[..., ::dilation]
        axes = len(self.kernel)  # the windows' own, that now come last, belong beside the channels
        windows = windows.movedim(tuple(range(-axes, 0)), tuple(range(first, first + axes)))
        return [windows.flatten(self.channel_axis, self.channel_axis + axes)]

    def onnx(self, graph: Graph, bottom: list[str]) -> list[str]:
        shape = graph.shapes[bottom[0]]
        if self.channel_axis != 1 or len(self.kernel) > 3:
            raise self.error(f"a bottom of shape {shape} with axis {self.channel_axis} has no ONNX form here")
        size = math.prod(self.kernel)  # a convolution, each of whose kernels picks one place
        picks = torch.eye(size).reshape(size, 1, *self.kernel).repeat(shape[1], *[1] * (len(self.kernel) + 1))
        return [graph.node("Conv", [*bottom, graph.constant(picks)], kernel_shape=self.kernel, strides=self.stride,
                           pads=self.pad * 2, dilations=self.dilation, group=shape[1])]
