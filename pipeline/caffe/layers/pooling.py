"""Layers that reduce a window, sliding over images, to one value."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from pipeline.caffe.caffe_pb2 import LayerParameter, PoolingParameter, SPPParameter
from pipeline.caffe.layers.layer import Graph, Layer, Shape, Tensors, register


@register("Pooling")
class Pooling(Layer):
    """Max, average or stochastic pooling. bottom (N, C, H, W) -> top (N, C, H', W')[, for MAX where it was: y W + x].

    H' = ceil((H + 2 pad - kernel) / stride) + 1 (floor with round_mode FLOOR), less one when there is padding and the
    last window would start beyond the padded input (caffe/layers/pooling_layer.cpp, Reshape). AVE divides by the
    window clipped at H + pad, padding counted. STOCHASTIC, for values of at least 0 and without padding, in TRAIN draws
    one in proportion to its size and in TEST gives the mean of that, sum x^2 / sum x (Zeiler and Fergus, 2013).
    """

    tops = (1, 2)

    def setup(self, bottom: list[Shape]) -> list[Shape]:
        param = self.param.pooling_param
        if len(bottom[0]) != 4:
            raise self.error(f"bottom of shape {bottom[0]} where (N, C, H, W) was expected")
        if param.pool != PoolingParameter.MAX and len(self.param.top) == 2:
            raise self.error("a second top, where a value was, comes from MAX pooling alone")
        if param.global_pooling:
            if param.HasField("kernel_size") or param.HasField("kernel_h") or param.HasField("kernel_w"):
                raise self.error("global_pooling takes no kernel")
            self.kernel = self.stride = (0, 0)
            self.pad = (0, 0)
            return [(*bottom[0][:2], 1, 1)] * len(self.param.top)
        self.kernel = self.pair("kernel_size", "kernel")
        self.stride = self.pair("stride", "stride")
        self.pad = self.pair("pad", "pad")
        if min(*self.kernel, *self.stride) < 1 or any(p >= k for p, k in zip(self.pad, self.kernel, strict=True)):
            raise self.error(f"kernel {self.kernel}, stride {self.stride}, pad {self.pad} where kernel and stride of "
                             "at least 1 and a pad smaller than the kernel were expected")
        if any(self.pad) and param.pool == PoolingParameter.STOCHASTIC:
            raise self.error("STOCHASTIC pooling takes no pad")
        top = self.pooled(bottom[0][2:])
        if min(top) < 1:
            raise self.error(f"kernel {self.kernel} is larger than the padded bottom of shape {bottom[0]}")
        return [(*bottom[0][:2], *top)] * len(self.param.top)

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
        if param.pool == PoolingParameter.MAX:
            return self.largest(x)
        if param.pool == PoolingParameter.STOCHASTIC:
            return [self.drawn(x)]
        if param.global_pooling:
            return [x.mean((2, 3), keepdim=True)]
        spatial = x.shape[2:]
        sums = F.avg_pool2d(self.padded(x, 0), self.kernel, self.stride, divisor_override=1)
        areas = torch.outer(*(
            torch.tensor([min(i * stride + kernel, size + 2 * pad) - i * stride for i in range(windows)])
            for size, windows, kernel, stride, pad in
            zip(spatial, self.pooled(spatial), self.kernel, self.stride, self.pad, strict=True)))
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
            up = self.param.pooling_param.round_mode == PoolingParameter.CEIL
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
        kind = "MaxPool" if param.pool == PoolingParameter.MAX else "AveragePool"
        if param.pool == PoolingParameter.STOCHASTIC:
            raise self.error("STOCHASTIC pooling has no ONNX form here")
        masked = len(self.param.top) == 2
        spatial = graph.shapes[bottom[0]][2:]
        if masked and -1 in spatial:
            raise self.error("where a value was has no ONNX form here for images of any size")
        if param.global_pooling and not masked:
            return [graph.node(f"Global{kind}", bottom)]
        size: dict[str, Any] = {"kernel_shape": self.kernel, "strides": self.stride}
        ceil_mode = int(param.round_mode == PoolingParameter.CEIL)
        if -1 in spatial:
            if any(self.pad) or any(s > k for s, k in zip(self.stride, self.kernel, strict=True)):
                raise self.error("pad, or a stride beyond the kernel, has no ONNX form here for images of any size")
            return [graph.node(kind, bottom, **size, ceil_mode=ceil_mode)]
        if param.global_pooling:
            return self.onnx_masked(graph, bottom, kernel_shape=spatial)
        # Runtimes differ in which last windows they drop, so the padding says where the last one ends.
        ends = [beyond for _, beyond in self.beyond(spatial)]
        if any(end >= kernel for end, kernel in zip(ends, self.kernel, strict=True)):
            raise self.error(f"stride {self.stride} beyond kernel {self.kernel} leaves a window outside the bottom, "
                             "which has no ONNX form")
        if kind == "MaxPool":
            size["pads"] = [*self.pad, *(max(end, 0) for end in ends)]
            return self.onnx_masked(graph, bottom, **size) if masked else [graph.node(kind, bottom, **size)]
        if any(self.pad):  # zeros that count, up to H + pad
            ends = [min(end, pad) for end, pad in zip(ends, self.pad, strict=True)]
            bottom = [graph.node("Pad", [*bottom, graph.constant([0, 0, *self.pad, 0, 0, *ends])])]
        return [graph.node(kind, bottom, **size, ceil_mode=ceil_mode)]

    @staticmethod
    def onnx_masked(graph: Graph, bottom: list[str], **size: Any) -> list[str]:
        """MAX pooling with both its tops."""
        top, places = graph.node_outputs("MaxPool", bottom, 2, **size)
        image = graph.constant([math.prod(graph.shapes[bottom[0]][2:])])  # ONNX counts on over channels and items
        return [top, graph.cast(graph.node("Mod", [places, image]), np.float32)]

    def beyond(self, spatial: Sequence[int]) -> list[tuple[int, int]]:
        """By how much the windows reach beyond the bottom, before and behind, on each axis of (H, W)."""
        return [(pad, (windows - 1) * stride + kernel - size - pad) for size, windows, kernel, stride, pad in
                zip(spatial, self.pooled(spatial), self.kernel, self.stride, self.pad, strict=True)]

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
            raise self.error(f"bottom of shape {bottom[0]} and pyramid_height {param.pyramid_height} where "
                             "(N, C, H, W) and at least 1 were expected")
        tops = [level.setup(bottom)[0] for level in self.levels(bottom[0])]
        return tops if len(tops) == 1 else [(bottom[0][0], sum(math.prod(top[1:]) for top in tops))]

    def levels(self, bottom: Shape) -> list[Pooling]:
        """The Pooling layers for a bottom of that shape."""
        poolings = []
        for level in range(self.param.spp_param.pyramid_height):
            param = LayerParameter(name=self.param.name, phase=self.param.phase,
                                   bottom=self.param.bottom, top=self.param.top)
            pooling = PoolingParameter(pool=SPPParameter.PoolMethod.Name(self.param.spp_param.pool))
            for axis, size in zip("hw", bottom[2:], strict=True):
                kernel = -(-size // 2**level)
                setattr(pooling, f"kernel_{axis}", kernel)
                setattr(pooling, f"stride_{axis}", kernel)
                setattr(pooling, f"pad_{axis}", (kernel * 2**level - size + 1) // 2)
            param.pooling_param.CopyFrom(pooling)
            poolings.append(Pooling(param, self.generator))
        return poolings

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
            level.setup([shape])
            tops += level.onnx(graph, bottom)
        if len(tops) == 1:
            return tops
        flat = graph.constant([0, -1])
        return [graph.node("Concat", [graph.node("Reshape", [top, flat]) for top in tops], axis=1)]
