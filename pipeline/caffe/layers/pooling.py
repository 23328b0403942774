"""Layers that reduce a window, sliding over images, to one value."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from pipeline.caffe.layers.layer import Graph, Layer, Shape, Tensors, register
from pipeline.caffe.proto.blob_proto import MAX_COUNT, POSSIBLE, is_possible
from pipeline.caffe.proto.caffe_pb2 import LayerParameter, PoolingParameter, SPPParameter


@register("Pooling")
class Pooling(Layer):
    """Max, average or stochastic pooling. bottom (N, C, H, W) -> top (N, C, H', W')[, for MAX where it was: y W + x].

    H' = ceil((H + 2 pad - kernel) / stride) + 1 (floor with round_mode FLOOR), less one when there is padding and the
    last window would start beyond the padded input (caffe/layers/pooling_layer.cpp, Reshape). AVE divides by the
    window clipped at H + pad, padding counted. STOCHASTIC, for values of at least 0 and without padding, in TRAIN draws
    one in proportion to its size and in TEST gives the mean of that, sum x^2 / sum x (Zeiler and Fergus, 2013).
    """

    tops = (1, 2)
    prefers_channels_last = True

    def setup(self, bottom: list[Shape]) -> list[Shape]:
        param = self.param.pooling_param
        if len(bottom[0]) != 4:
            raise self.error(f"bottom of shape {bottom[0]} where (N, C, H, W) was expected")
        if param.pool != PoolingParameter.MAX and len(self.param.top) == 2:
            raise self.error("a second top, where a value was, comes from MAX pooling alone")
        if param.global_pooling:
            if param.HasField("kernel_size") or param.HasField("kernel_h") or param.HasField("kernel_w"):
                raise self.error("global_pooling takes no kernel")
            if any(self.pair("pad", "pad")) or self.pair("stride", "stride") != (1, 1):
                raise self.error("global_pooling takes no pad and no stride but 1")
            self.kernel = self.stride = (0, 0)
            self.pad = (0, 0)
            return [(*bottom[0][:2], 1, 1)] * len(self.param.top)
        self.kernel = self.pair("kernel_size", "kernel")
        self.stride = self.pair("stride", "stride")
        self.pad = self.pair("pad", "pad")
        numbers = (*self.kernel, *self.stride)
        if not 1 <= min(numbers) <= max(numbers) <= MAX_COUNT or any(
            pad >= kernel for pad, kernel in zip(self.pad, self.kernel, strict=True)
        ):
            raise self.error(
                f"kernel {self.kernel}, stride {self.stride}, pad {self.pad} where kernel and stride from "
                f"1 to {MAX_COUNT} and a pad smaller than the kernel were expected"
            )
        if any(self.pad) and param.pool == PoolingParameter.STOCHASTIC:
            raise self.error("STOCHASTIC pooling takes no pad")
        top = self.pooled(bottom[0][2:])
        if min(top) < 1:
            raise self.error(f"kernel {self.kernel} is larger than the padded bottom of shape {bottom[0]}")
        padded = tuple(size + sum(ends) for size, ends in zip(bottom[0][2:], self.beyond(bottom[0][2:]), strict=True))
        if not is_possible((*bottom[0][:2], *padded)):
            raise self.error(
                f"kernel {self.kernel}, stride {self.stride}, pad {self.pad} reach over {padded} where "
                f"{POSSIBLE} were expected"
            )
        return [(*bottom[0][:2], *top)] * len(self.param.top)

    def pair(self, name: str, prefix: str) -> tuple[int, int]:
        """Height and width from `name`, or from prefix_h and prefix_w."""
        param = self.param.pooling_param
        given = param.HasField(f"{prefix}_h"), param.HasField(f"{prefix}_w")
        if any(given):
            if param.HasField(name) or not all(given):
                raise self.error(f"{name}, or both {prefix}_h and {prefix}_w, were expected")
            return getattr(param, f"{prefix}_h"), getattr(param, f"{prefix}_w")
        value = getattr(param, name)
        return value, value

    def pooled(self, spatial: Sequence[int]) -> tuple[int, ...]:
        """(H', W') for (H, W)."""
        sizes = []
        for size, kernel, stride, pad in zip(spatial, self.kernel, self.stride, self.pad, strict=True):
            span = size + 2 * pad - kernel
            windows = (-(-span // stride) if self.up else span // stride) + 1
            if any(self.pad) and (windows - 1) * stride >= size + pad:
                windows -= 1
            sizes.append(windows)
        return tuple(sizes)

    def forward(self, bottom: Tensors) -> Tensors:
        param = self.param.pooling_param
        x = bottom[0]
        if param.pool == PoolingParameter.MAX:
            return self.largest(x)
        if param.pool == PoolingParameter.STOCHASTIC:
            return [self.drawn(x)]
        if param.global_pooling:
            return [x.mean((2, 3), keepdim=True)]
        spatial = x.shape[2:]
        sums = F.avg_pool2d(self.padded(x, 0), self.kernel, self.stride, divisor_override=1)
        areas = torch.outer(
            *(
                torch.tensor([min(i * stride + kernel, size + 2 * pad) - i * stride for i in range(windows)])
                for size, windows, kernel, stride, pad in zip(
                    spatial, self.pooled(spatial), self.kernel, self.stride, self.pad, strict=True
                )
            )
        )
        return [sums / areas.to(x)]

    def largest(self, x: torch.Tensor) -> Tensors:
        """MAX pooling's tops."""
        # Unlike amax, max_pool2d gives the first of equal values the gradient.
        whole, kernel, stride, up = x, self.kernel, self.stride, False
        if self.param.pooling_param.global_pooling:
            kernel = stride = (x.shape[2], x.shape[3])
        elif any(self.pad) or any(step > size for step, size in zip(self.stride, self.kernel, strict=True)):
            whole = self.padded(x, torch.finfo(x.dtype).min)
        else:  # torch clips the last window as Caffe does here, without a padded copy
            up = self.up
        if len(self.param.top) == 1:
            return [F.max_pool2d(whole, kernel, stride, ceil_mode=up)]
        top, places = F.max_pool2d_with_indices(whole, kernel, stride, ceil_mode=up)
        rows, columns = places // whole.shape[3] - self.pad[0], places % whole.shape[3] - self.pad[1]
        beyond = (rows >= x.shape[2]) | (columns >= x.shape[3])  # a window that holds no value, which has -1
        return [top, torch.where(beyond, -1, rows * x.shape[3] + columns).to(x.dtype)]

    def drawn(self, x: torch.Tensor) -> torch.Tensor:
        """STOCHASTIC pooling's top."""
        if self.param.pooling_param.global_pooling:
            windows = x.flatten(2)[:, :, None, None]
        else:
            rows = self.padded(x, 0).unfold(2, self.kernel[0], self.stride[0])
            windows = rows.unfold(3, self.kernel[1], self.stride[1]).flatten(4)
        sums = windows.cumsum(-1)
        if not self.training:
            return windows.square().sum(-1) / (sums[..., -1] + torch.finfo(x.dtype).tiny)
        draws = torch.rand(sums.shape[:-1], generator=self.generator, device=x.device)
        place = (sums < (draws * sums[..., -1]).unsqueeze(-1)).sum(-1, keepdim=True)
        return windows.gather(-1, place.clamp(max=windows.shape[-1] - 1))[..., 0]

    def onnx(self, graph: Graph, bottom: list[str]) -> list[str]:
        param = self.param.pooling_param
        (value,) = bottom
        if len(self.param.top) == 2:
            return self.onnx_masked(graph, value)
        if param.pool == PoolingParameter.STOCHASTIC:
            ends = [] if param.global_pooling else self.ends(graph.shapes[value][2:])
            squares = self.onnx_means(graph, graph.node("Mul", [value, value]), ends)
            least = graph.constant(np.array(torch.finfo(torch.float32).tiny))
            return [graph.node("Div", [squares, graph.node("Add", [self.onnx_means(graph, value, ends), least])])]
        kind = "MaxPool" if param.pool == PoolingParameter.MAX else "AveragePool"
        if param.global_pooling:
            return [graph.node(f"Global{kind}", bottom)]
        return [self.onnx_largest(graph, value) if kind == "MaxPool" else self.onnx_average(graph, value)]

    def onnx_largest(self, graph: Graph, value: str) -> str:
        """MAX pooling's top."""
        ends = self.ends(graph.shapes[value][2:])
        size: dict[str, Any] = {"kernel_shape": self.kernel, "strides": self.stride}
        if self.windows_outside(ends):
            least = graph.constant(np.array(torch.finfo(torch.float32).min))
            whole = graph.node("Pad", [value, graph.constant([0, 0, *self.pad, 0, 0, *ends]), least])
            return graph.node("MaxPool", [whole], **size)
        if -1 in graph.shapes[value][2:] and not any(self.pad):  # runtimes agree about the last window then
            return graph.node("MaxPool", [value], **size, ceil_mode=int(self.up))
        # Otherwise they differ in which last windows they drop, so the padding says where the last one ends.
        return graph.node("MaxPool", [value], **size, pads=[*self.pad, *ends])

    def onnx_average(self, graph: Graph, value: str) -> str:
        """AVE pooling's top: what is padded is 0 and counts, up to H + pad; what windows reach beyond does not."""
        ends = self.ends(graph.shapes[value][2:])
        size: dict[str, Any] = {"kernel_shape": self.kernel, "strides": self.stride}
        if self.windows_outside(ends):
            raise self.error(
                f"stride {self.stride} beyond kernel {self.kernel} leaves a window outside the bottom, of "
                "which Caffe makes no number; such AVE pooling has no ONNX form"
            )
        if any(self.pad):
            counted = [min(end, pad) for end, pad in zip(ends, self.pad, strict=True)]
            value = graph.node("Pad", [value, graph.constant([0, 0, *self.pad, 0, 0, *counted])])
            ends = [end - count for end, count in zip(ends, counted, strict=True)]
        if any(ends):
            size["pads"] = [0, 0, *ends]
        return graph.node("AveragePool", [value], **size)

    def onnx_means(self, graph: Graph, value: str, ends: list[int]) -> str:
        """Every window's mean, zeros beyond the bottom counted."""
        if self.param.pooling_param.global_pooling:
            return graph.node("GlobalAveragePool", [value])
        if any(ends):
            value = graph.node("Pad", [value, graph.constant([0, 0, 0, 0, 0, 0, *ends])])
        return graph.node("AveragePool", [value], kernel_shape=self.kernel, strides=self.stride)

    def onnx_masked(self, graph: Graph, value: str) -> list[str]:
        """MAX pooling with both its tops."""
        spatial = graph.shapes[value][2:]
        if -1 in spatial:
            raise self.error("where a value was has no ONNX form here for images of any size")
        if self.param.pooling_param.global_pooling:
            top, places = graph.node_outputs("MaxPool", [value], 2, kernel_shape=spatial)
            return [top, graph.cast(self.onnx_within(graph, places, spatial), np.float32)]
        ends = self.ends(spatial)
        size: dict[str, Any] = {"kernel_shape": self.kernel, "strides": self.stride}
        if not self.windows_outside(ends):
            top, places = graph.node_outputs("MaxPool", [value], 2, **size, pads=[*self.pad, *ends])
            return [top, graph.cast(self.onnx_within(graph, places, spatial), np.float32)]
        # A window that holds no value has the place -1. There is no padding before the bottom then.
        least = graph.constant(np.array(torch.finfo(torch.float32).min))
        whole = graph.node("Pad", [value, graph.constant([0] * 6 + ends), least])
        top, places = graph.node_outputs("MaxPool", [whole], 2, **size)
        height, width = (length + end for length, end in zip(spatial, ends, strict=True))
        places = self.onnx_within(graph, places, (height, width))
        row = graph.node("Div", [places, graph.constant([width])])
        column = graph.node("Mod", [places, graph.constant([width])])
        beyond = graph.node(
            "Or",
            [
                graph.node("GreaterOrEqual", [place, graph.constant([length])])
                for place, length in zip((row, column), spatial, strict=True)
            ],
        )
        own = graph.node("Add", [graph.node("Mul", [row, graph.constant([spatial[1]])]), column])
        return [top, graph.cast(graph.node("Where", [beyond, graph.constant([-1]), own]), np.float32)]

    @staticmethod
    def onnx_within(graph: Graph, places: str, spatial: Sequence[int]) -> str:
        """Places in an image of MaxPool's, which counts on over channels and items."""
        return graph.node("Mod", [places, graph.constant([math.prod(spatial)])])

    @property
    def up(self) -> bool:
        """Whether the number of windows is rounded up."""
        return self.param.pooling_param.round_mode == PoolingParameter.CEIL

    def ends(self, spatial: Sequence[int]) -> list[int]:
        """How much padding behind (H, W) gives as many windows as there are, when their number is rounded down.

        Where a size is -1, what does for every size: stride - 1 more than `pad` is rounding up, and with kernel - 1 at
        most no window begins beyond the bottom and its padding.
        """
        if -1 not in spatial:
            return [max(behind, 0) for _, behind in self.beyond(spatial)]
        if not self.up:
            return list(self.pad)
        return [
            min(pad + stride - 1, kernel - 1) if any(self.pad) else stride - 1
            for pad, stride, kernel in zip(self.pad, self.stride, self.kernel, strict=True)
        ]

    def windows_outside(self, ends: list[int]) -> bool:
        """Whether a window may lie beyond the bottom, as without padding the last one of a wide stride can."""
        return any(end >= kernel for end, kernel in zip(ends, self.kernel, strict=True))

    def beyond(self, spatial: Sequence[int]) -> list[tuple[int, int]]:
        """By how much the windows reach beyond the bottom, before and behind, on each axis of (H, W)."""
        return [
            (pad, (windows - 1) * stride + kernel - size - pad)
            for size, windows, kernel, stride, pad in zip(
                spatial, self.pooled(spatial), self.kernel, self.stride, self.pad, strict=True
            )
        ]

    def padded(self, x: torch.Tensor, value: float) -> torch.Tensor:
        """(N, C, H, W) as far as the windows reach."""
        # A negative amount cuts off rows that no window reaches.
        (top, bottom), (left, right) = self.beyond(x.shape[2:])
        return F.pad(x, (left, right, top, bottom), value=value)


@register("SPP")
class SPP(Layer):
    """Spatial pyramid pooling, which makes images of all sizes vectors of one (He et al., 2014).

    bottom (N, C, H, W) -> top (N, C (1 + 4 + ... + 4^(pyramid_height - 1))): on level l Pooling with a kernel and
    stride of ceil(size / 2^l), padded evenly to that times 2^l, flattened; (N, C, 1, 1) with a pyramid_height of 1.
    """

    def setup(self, bottom: list[Shape]) -> list[Shape]:
        param = self.param.spp_param
        if len(bottom[0]) != 4 or param.pyramid_height < 1:
            raise self.error(
                f"bottom of shape {bottom[0]} and pyramid_height {param.pyramid_height} where "
                "(N, C, H, W) and at least 1 were expected"
            )
        tops = [level.setup(bottom)[0] for level in self.levels(bottom[0])]
        return tops if len(tops) == 1 else [(bottom[0][0], sum(math.prod(top[1:]) for top in tops))]

    def levels(self, bottom: Shape) -> Iterator[Pooling]:
        """The Pooling layers for a bottom of that shape."""
        for level in range(self.param.spp_param.pyramid_height):
            param = LayerParameter(
                name=self.param.name, phase=self.param.phase, bottom=self.param.bottom, top=self.param.top
            )
            pooling = PoolingParameter(pool=SPPParameter.PoolMethod.Name(self.param.spp_param.pool))
            for axis, size in zip("hw", bottom[2:], strict=True):
                kernel = -(-size // 2**level)
                setattr(pooling, f"kernel_{axis}", kernel)
                setattr(pooling, f"stride_{axis}", kernel)
                setattr(pooling, f"pad_{axis}", (kernel * 2**level - size + 1) // 2)
            param.pooling_param.CopyFrom(pooling)
            yield Pooling(param, self.generator)

    def forward(self, bottom: Tensors) -> Tensors:
        shape = tuple(bottom[0].shape)
        tops = []
        for level in self.levels(shape):
            level.setup([shape])
            tops += level.forward(bottom)
        return tops if len(tops) == 1 else [torch.cat([top.flatten(1) for top in tops], 1)]

    def onnx(self, graph: Graph, bottom: list[str]) -> list[str]:
        shape = graph.shapes[bottom[0]]
        if -1 in shape[2:]:
            raise self.error("windows that depend on the image's size have no ONNX form here for images of any size")
        tops = []
        for level in self.levels(shape):
            level.setup([tuple(max(size, 1) for size in shape)])  # any number of images and channels
            tops += level.onnx(graph, bottom)
        if len(tops) == 1:
            return tops
        flat = graph.constant([0, -1])
        return [graph.node("Concat", [graph.node("Reshape", [top, flat]) for top in tops], axis=1)]
