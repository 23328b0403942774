"""Layers that lay a kernel on every place of images, or of signals and volumes."""

import math
from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F

from pipeline.caffe.layers.layer import Graph, Layer, Shape, Tensors, register


class Windows(Layer):
    """Kernel, stride, pad and dilation of a convolution_param, one number for each axis after the channels'."""

    reads = ("convolution_param",)
    lacks = False  # whether the kernel is larger than the padded bottom that the layer was set up for

    def windows_setup(self, bottom: Shape) -> None:
        """Read them, and where the channels stand."""
        self.channel_axis = self.axis(self.param.convolution_param.axis, bottom)
        axes = len(bottom) - self.channel_axis - 1
        self.kernel = self.per_axis("kernel_size", "kernel", axes, None)
        self.stride = self.per_axis("stride", "stride", axes, 1)
        self.pad = self.per_axis("pad", "pad", axes, 0)
        self.dilation = self.per_axis("dilation", None, axes, 1)
        if min((*self.kernel, *self.stride, *self.dilation), default=1) < 1:
            raise self.error(
                f"kernel {self.kernel}, stride {self.stride}, dilation {self.dilation} where at least 1 was expected"
            )

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
        return tuple(dilation * (kernel - 1) + 1 for kernel, dilation in zip(self.kernel, self.dilation, strict=True))

    def places(self, bottom: Shape) -> Shape:
        """How many windows fit on each of the bottom's spatial axes.

        One does that is larger than the padded bottom by less than the stride: C's division rounds towards 0.
        """
        spatial, lacking = bottom[self.channel_axis + 1 :], self.lacking(bottom)
        self.lacks = any(lacking)
        if any(lack >= stride for lack, stride in zip(lacking, self.stride, strict=True)):
            raise self.error(f"kernel {self.kernel} is larger than the padded bottom of shape {bottom}")
        return tuple(
            (size + lack + 2 * pad - extent) // stride + 1
            for size, lack, pad, extent, stride in zip(
                spatial, lacking, self.pad, self.extent, self.stride, strict=True
            )
        )

    def lacking(self, bottom: Shape) -> list[int]:
        """By how much the kernel is larger than the padded bottom, on each spatial axis; what lies there is 0."""
        return [
            max(extent - size - 2 * pad, 0)
            for size, pad, extent in zip(bottom[self.channel_axis + 1 :], self.pad, self.extent, strict=True)
        ]

    def widened(self, bottom: torch.Tensor) -> torch.Tensor:
        """The bottom with zeros behind it where the kernel is larger."""
        lacking = self.lacking(tuple(bottom.shape))
        return F.pad(bottom, [amount for lack in reversed(lacking) for amount in (0, lack)]) if any(lacking) else bottom

    def onnx_lacking(self, bottom: Shape) -> list[int]:
        """lacking(), of a bottom some of whose sizes, -1, may only be known at run time."""
        spatial = bottom[self.channel_axis + 1 :]
        if self.lacks and -1 in spatial:
            raise self.error("a kernel larger than the bottom has no ONNX form here for images of any size")
        return [0] * len(spatial) if -1 in spatial else self.lacking(bottom)

    def onnx_windows(self, graph: Graph, operator: str, inputs: list[str], group: int, image: Shape) -> str:
        """Add a convolution; `image` is its top's shape from the channels on, `inputs` are the bottom and its blobs."""
        value, *blobs = inputs
        outer, inner = graph.shapes[value][: self.channel_axis], graph.shapes[value][self.channel_axis :]
        if not outer:
            value = graph.node("Unsqueeze", [value, graph.constant([0])])
        elif len(outer) != 1:
            if -1 in (*outer[1:], *inner):
                raise self.error(
                    f"axis {self.channel_axis} has no ONNX form here for a bottom whose sizes are only "
                    "known at run time"
                )
            value = graph.node("Reshape", [value, graph.constant([-1, *inner])])
        pads = (
            *self.pad,
            *(pad + lack for pad, lack in zip(self.pad, self.onnx_lacking(graph.shapes[inputs[0]]), strict=True)),
        )
        top = graph.node(
            operator,
            [value, *blobs],
            kernel_shape=self.kernel,
            strides=self.stride,
            pads=pads,
            dilations=self.dilation,
            group=group,
        )
        if not outer:
            return graph.node("Squeeze", [top, graph.constant([0])])
        if len(outer) == 1:
            return top
        return graph.node("Reshape", [top, graph.constant([*outer, *image])])


def axis_to_items(images: torch.Tensor) -> torch.Tensor:
    """(N, C, P, rest...) to (N P, C, rest...)."""
    return images.movedim(2, 1).flatten(0, 1)


def items_to_axis(items: torch.Tensor, size: int) -> torch.Tensor:
    """(N P, C, rest...) to (N, C, P, rest...), P being `size`."""
    return items.unflatten(0, (len(items) // size, size)).movedim(1, 2)


class Kernels(Windows):
    """A learned kernel for every pair of channels; several bottoms share the blobs.

    Without spatial axes a kernel is one number, whatever kernel_size says.
    """

    bottoms = (1, None)
    tops = (1, None)
    prefers_channels_last = True
    operator: ClassVar[str]  # ONNX's name
    functions: ClassVar[dict[int, Callable[..., torch.Tensor]]]  # torch's, by the number of spatial axes

    def kernels_setup(self, bottom: list[Shape]) -> tuple[int, int]:
        """Check the bottoms' shapes, read what is common to both directions, and return bottom and top channels."""
        param = self.param.convolution_param
        self.windows_setup(bottom[0])
        if any(shape != bottom[0] for shape in bottom) or len(self.param.top) != len(bottom):
            raise self.error("as many tops as bottoms, all of one shape, were expected")
        channels, outputs, group = bottom[0][self.channel_axis], param.num_output, param.group
        if outputs < 1:
            raise self.error(f"num_output {outputs} where at least 1 was expected")
        if group < 1 or channels % group or outputs % group:
            raise self.error(f"group {group} does not divide {channels} channels and num_output {outputs}")
        return channels, outputs

    def finish_setup(self, bottom: list[Shape], weight: Shape, spatial: Shape) -> list[Shape]:
        """Make the weight, `weight` its channels, and unless bias_term is false the bias; return the tops' shapes."""
        param = self.param.convolution_param
        self.add_blob((*weight, *self.kernel), param.weight_filler)
        if param.bias_term:
            self.add_blob((param.num_output,), param.bias_filler)
        self.image = (param.num_output, *spatial)
        return [(*shape[: self.channel_axis], *self.image) for shape in bottom]

    def convolve(self, images: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """(N, C, spatial...) to (N, num_output, spatial'...)."""
        return self.slide(images, weight, bias, 0) if self.kernel else F.linear(images, self.matrix(weight).t(), bias)

    def matrix(self, weight: torch.Tensor) -> torch.Tensor:
        """(C, num_output): without spatial axes all that the layer is, a product for each group."""
        raise NotImplementedError

    def slide(self, images: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, first: int) -> torch.Tensor:
        """convolve, along the spatial axes from the one numbered `first` on, which alone `images` and `weight` have.

        torch knows three at most: along more, one place of the kernel on the first of them is laid at a time.
        """
        raise NotImplementedError

    def forward(self, bottom: Tensors) -> Tensors:
        weight, *bias = self.blobs
        images, axis = [self.widened(value) for value in bottom], self.channel_axis
        if axis != 1:  # not always, since reshape loses the strides that put an only channel innermost
            images = [value.reshape(-1, *value.shape[axis:]) for value in images]
        tops = [self.convolve(value, weight, bias[0] if bias else None) for value in images]
        if axis != 1:
            tops = [top.reshape(*value.shape[:axis], *top.shape[1:]) for value, top in zip(bottom, tops, strict=True)]
        return tops

    def onnx(self, graph: Graph, bottom: list[str]) -> list[str]:
        weight, *bias = self.blobs
        if not self.kernel:
            points = [graph.node("MatMul", [value, graph.constant(self.matrix(weight))]) for value in bottom]
            return [graph.node("Add", [point, graph.constant(bias[0])]) if bias else point for point in points]
        blobs = [graph.constant(blob) for blob in self.blobs]
        group = self.param.convolution_param.group
        return [self.onnx_windows(graph, self.operator, [value, *blobs], group, self.image) for value in bottom]


@register("Convolution")
class Convolution(Kernels):
    """bottom (N..., C, spatial...), C on `axis` -> top (N..., num_output, spatial'...).

    Each spatial axis: floor((size + 2 pad - (dilation (kernel - 1) + 1)) / stride) + 1. Several bottoms share the
    blobs: weight (num_output, C / group, kernel...) and, unless bias_term is false, bias (num_output,).
    """

    operator = "Conv"
    functions: ClassVar[dict[int, Callable[..., torch.Tensor]]] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}

    def setup(self, bottom: list[Shape]) -> list[Shape]:
        channels, outputs = self.kernels_setup(bottom)
        weight = (outputs, channels // self.param.convolution_param.group)
        return self.finish_setup(bottom, weight, self.places(bottom[0]))

    def multiply_adds(self, bottom: list[Shape], top: list[Shape]) -> int:
        return sum(math.prod(shape) for shape in top) * self.blobs[0][0].numel()

    def matrix(self, weight: torch.Tensor) -> torch.Tensor:
        return torch.block_diag(*(kernels.t() for kernels in weight.chunk(self.param.convolution_param.group)))

    def slide(self, images: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, first: int) -> torch.Tensor:
        stride, pad, dilation = self.stride[first:], self.pad[first:], self.dilation[first:]
        if len(stride) <= 3:
            return self.functions[len(stride)](
                images, weight, bias, stride, pad, dilation, self.param.convolution_param.group
            )
        images = F.pad(images, [0, 0] * (len(stride) - 1) + [pad[0]] * 2)
        windows = images.unfold(2, self.extent[first], stride[0])[..., :: dilation[0]]
        tops = [
            self.slide(axis_to_items(window), weight[:, :, place], None if place else bias, first + 1)
            for place, window in enumerate(windows.unbind(-1))
        ]
        return items_to_axis(sum(tops[1:], tops[0]), windows.shape[2])


class Depthwise(Convolution):
    """A Convolution of every channel with a kernel of its own.

    bottom (N..., C, spatial...) -> top (N..., C, spatial'...).

    Blobs: weight (C, 1, kernel...) and, unless bias_term is false, bias (C,). num_output and group, where they are
    given, are C. Sizes are those of a Convolution.
    """

    def setup(self, bottom: list[Shape]) -> list[Shape]:
        param = self.param.convolution_param
        channels = bottom[0][self.axis(param.axis, bottom[0])]
        for name in ("num_output", "group"):
            if param.HasField(name) and getattr(param, name) != channels:
                raise self.error(
                    f"{name} {getattr(param, name)} where {self.type} has the bottom's {channels} channels"
                    "; give it that number, or leave it out"
                )
            setattr(param, name, channels)
        return super().setup(bottom)


@register("ConvolutionDepthwise")
class ConvolutionDepthwise(Depthwise):
    __doc__ = Depthwise.__doc__


@register("DepthwiseConvolution")
class DepthwiseConvolution(Depthwise):
    __doc__ = Depthwise.__doc__


@register("Deconvolution")
class Deconvolution(Kernels):
    """Convolution turned round, to enlarge: bottom (N..., C, spatial...) -> top (N..., num_output, spatial'...).

    Each spatial axis: stride (size - 1) + dilation (kernel - 1) + 1 - 2 pad. Several bottoms share the blobs: weight
    (C, num_output / group, kernel...) and, unless bias_term is false, bias (num_output,).
    """

    operator = "ConvTranspose"
    functions: ClassVar[dict[int, Callable[..., torch.Tensor]]] = {
        1: F.conv_transpose1d,
        2: F.conv_transpose2d,
        3: F.conv_transpose3d,
    }

    def setup(self, bottom: list[Shape]) -> list[Shape]:
        channels, outputs = self.kernels_setup(bottom)
        spatial = tuple(
            stride * (size - 1) + extent - 2 * pad
            for size, stride, extent, pad in zip(
                bottom[0][self.channel_axis + 1 :], self.stride, self.extent, self.pad, strict=True
            )
        )
        if min(spatial, default=1) < 1:
            raise self.error(
                f"pad {self.pad} cuts off all that kernel {self.kernel} makes of a bottom of shape {bottom[0]}"
            )
        return self.finish_setup(bottom, (channels, outputs // self.param.convolution_param.group), spatial)

    def multiply_adds(self, bottom: list[Shape], top: list[Shape]) -> int:
        return sum(math.prod(shape) for shape in bottom) * self.blobs[0][0].numel()

    def lacking(self, bottom: Shape) -> list[int]:
        return [0] * len(self.kernel)  # no kernel is laid on the bottom

    def matrix(self, weight: torch.Tensor) -> torch.Tensor:
        return torch.block_diag(*weight.chunk(self.param.convolution_param.group))

    def slide(self, images: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, first: int) -> torch.Tensor:
        stride, pad, dilation = self.stride[first:], self.pad[first:], self.dilation[first:]
        if len(stride) <= 3:
            return self.functions[len(stride)](
                images, weight, bias, stride, pad, 0, self.param.convolution_param.group, dilation
            )
        count = images.shape[2]
        items = axis_to_items(images)
        parts = [items_to_axis(self.slide(items, kernel, None, first + 1), count) for kernel in weight.unbind(2)]
        reach = stride[0] * (count - 1) + 1
        top = parts[0].new_zeros(*parts[0].shape[:2], reach + self.extent[first] - 1, *parts[0].shape[3:])
        for place, part in enumerate(parts):
            top[:, :, place * dilation[0] : place * dilation[0] + reach : stride[0]] += part
        top = top.narrow(2, pad[0], top.shape[2] - 2 * pad[0])
        return top if bias is None else top + bias.reshape(-1, *[1] * len(stride))


@register("Im2col")
class Im2col(Windows):
    """Every window's values as channels: bottom (N..., C, spatial...) -> top (N..., C * kernel, spatial'...).

    Axes and sizes are those of a Convolution.
    """

    def setup(self, bottom: list[Shape]) -> list[Shape]:
        self.windows_setup(bottom[0])
        if not self.kernel:
            raise self.error(f"bottom of shape {bottom[0]} has no spatial axes after axis {self.channel_axis}")
        self.image = (bottom[0][self.channel_axis] * math.prod(self.kernel), *self.places(bottom[0]))
        return [(*bottom[0][: self.channel_axis], *self.image)]

    def forward(self, bottom: Tensors) -> Tensors:
        first = self.channel_axis + 1
        windows = F.pad(self.widened(bottom[0]), [pad for pad in reversed(self.pad) for _ in range(2)])
        for axis, (extent, stride, dilation) in enumerate(zip(self.extent, self.stride, self.dilation, strict=True)):
            windows = windows.unfold(first + axis, extent, stride)[..., ::dilation]
        axes = len(self.kernel)  # the windows' own, that now come last, belong beside the channels
        windows = windows.movedim(tuple(range(-axes, 0)), tuple(range(first, first + axes)))
        return [windows.flatten(self.channel_axis, self.channel_axis + axes)]

    def onnx(self, graph: Graph, bottom: list[str]) -> list[str]:
        size = math.prod(self.kernel)  # a convolution, each of whose kernels picks one place
        channels = graph.shapes[bottom[0]][self.channel_axis]
        if channels == -1:
            raise self.error("channels whose number is only known at run time have no ONNX form here")
        picks = torch.eye(size).reshape(size, 1, *self.kernel).repeat(channels, *[1] * (len(self.kernel) + 1))
        return [self.onnx_windows(graph, "Conv", [*bottom, graph.constant(picks)], channels, self.image)]
