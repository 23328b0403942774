"""Layers that set values in proportion to those around them."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from pipeline.caffe.layers.layer import Graph, Layer, Shape, Tensors, register
from pipeline.caffe.proto.blob_proto import MAX_COUNT
from pipeline.caffe.proto.caffe_pb2 import FillerParameter, LRNParameter

VALUES_ADDED_UP = 2048  # of a channel, one after the other
Average = Callable[[torch.Tensor], torch.Tensor]


class _PlainBatchStride(torch.autograd.Function):
    """Returns the bottom as it is, and its gradient: of a batch of one with the stride of a whole item.

    A reshape may give the only item the stride of a channel. torch's backward of batch norm takes such images, or such
    gradients, for others than they are when the two lie in different orders (torch 2.13).
    """

    @staticmethod
    def forward(context: Any, values: torch.Tensor) -> torch.Tensor:
        return _with_plain_batch_stride(values)

    @staticmethod
    def backward(context: Any, gradient: torch.Tensor) -> torch.Tensor:
        return _with_plain_batch_stride(gradient)


def _with_plain_batch_stride(values: torch.Tensor) -> torch.Tensor:
    if len(values) != 1:
        return values.view_as(values)
    return values.as_strided(values.shape, (values.numel(), *values.stride()[1:]))


class _Normalisation(torch.autograd.Function):
    """(x - mean) / sqrt(variance + eps) * scale + bias for x (N, C, ...) by the batch's mean and variance (C,).

    Those two come as well. scale, bias: (C,), or None for 1 and 0.
    """

    @staticmethod
    def forward(
        context: Any, x: torch.Tensor, eps: float, scale: torch.Tensor | None, bias: torch.Tensor | None
    ) -> tuple[torch.Tensor, ...]:
        mean, variance = _statistics(x)
        context.save_for_backward(x, mean, torch.rsqrt(variance + eps), scale)
        context.eps = eps
        context.mark_non_differentiable(mean, variance)
        return torch.native_batch_norm(x, scale, bias, mean, variance, False, 0, eps)[0], mean, variance

    @staticmethod
    def backward(context: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, mean, inverse, scale = context.saved_tensors
        needs_x, _, needs_scale, needs_bias = context.needs_input_grad
        below, of_scale, of_bias = torch.ops.aten.native_batch_norm_backward(
            gradients[0], x, scale, None, None, mean, inverse, True, context.eps, [needs_x, needs_scale, needs_bias]
        )
        return below if needs_x else None, None, of_scale if needs_scale else None, of_bias if needs_bias else None


def _statistics(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and biased variance (C,) of x (N, C, ...), from those of parts of the batch (Chan et al., 1979).

    torch adds a channel's values up one after the other. Behind a rectifier most of them are equal, so that every
    addition rounds to the same side, and the variance of a whole batch of 64 would be off by a thousandth.
    """
    if x.device.type != "cpu":  # where torch adds up by parts
        variance, mean = torch.var_mean(x.float(), [axis for axis in range(x.ndim) if axis != 1], correction=0)
        return mean, variance
    items = max(1, VALUES_ADDED_UP * x.shape[1] // x[0].numel())
    parts = x.split(items)
    unused = torch.zeros(x.shape[1])  # running statistics; being float32, they make torch return float32 ones
    found = [torch.batch_norm_update_stats(part, unused, unused, 0.0) for part in parts]
    if len(found) == 1:
        return found[0]
    means, variances = (torch.stack(each) for each in zip(*found, strict=True))
    shares = means.new_tensor([len(part) / len(x) for part in parts])[:, None]
    mean = (means * shares).sum(0)
    return mean, ((variances + (means - mean).square()) * shares).sum(0)


@register("BatchNorm")
class BatchNorm(Layer):
    """(x - mean) / sqrt(variance + eps), a channel at a time; no scale or shift. bottom (N, C, ...) -> the same shape.

    Blobs: running sums of the means (C,) and variances (C,), and the factor (1,) they are to be divided by. In TRAIN
    (or use_global_stats: false) the batch's own mean and biased variance normalise, and each blob becomes
    moving_average_fraction times itself plus the batch's mean, variance * m/(m-1) (of one value, 0), and 1; otherwise
    the stored ones normalise, a factor of 0 reading as statistics of 0 (caffe/layers/batch_norm_layer.cpp).
    """

    blobs_are_learned = False

    def setup(self, bottom: list[Shape]) -> list[Shape]:
        if any(spec.lr_mult for spec in self.param.param if spec.HasField("lr_mult")):
            raise self.error("lr_mult is not 0; statistics are not learned by the solver")
        if len(bottom[0]) < 2:  # where Caffe aborts too
            raise self.error(f"bottom of shape {bottom[0]} where (N, C, ...) was expected")
        channels = bottom[0][1]
        zero = FillerParameter(type="constant", value=0)
        for shape in ((channels,), (channels,), (1,)):
            self.add_blob(shape, zero)
        # As Caffe's LayerSetUp leaves it, so that the .caffemodel reads the same.
        while len(self.param.param) < len(self.blobs):
            self.param.param.add()
        for spec in self.param.param:
            spec.lr_mult = 0
        self.fraction = self.param.batch_norm_param.moving_average_fraction
        return bottom

    @property
    def uses_stored(self) -> bool:
        """Whether the stored statistics normalise, instead of the batch's own."""
        param = self.param.batch_norm_param
        return param.use_global_stats if param.HasField("use_global_stats") else not self.training

    @contextmanager
    def renewing(self) -> Iterator[None]:
        """Forget the statistics. Every batch that runs meanwhile counts alike: N batches leave sums and a factor N."""
        with torch.no_grad():
            for blob in self.blobs:
                blob.zero_()
        before, self.fraction = self.fraction, 1.0
        try:
            yield
        finally:
            self.fraction = before

    def forward(self, bottom: Tensors) -> Tensors:
        return self.forward_scaled(bottom, None)

    def forward_scaled(self, bottom: Tensors, scale: torch.Tensor | None, bias: torch.Tensor | None = None) -> Tensors:
        """What forward and a Scale layer after it make, in one pass: times scale (C,), plus bias (C,)."""
        param = self.param.batch_norm_param
        mean, variance, factor = self.blobs
        if not len(bottom[0]):
            raise self.error("a batch of no items, where at least one was expected")
        x = _PlainBatchStride.apply(bottom[0])
        if self.uses_stored:
            share = 0.0 if factor.item() == 0 else 1 / factor.item()
            top = torch.native_batch_norm(x, scale, bias, mean * share, variance * share, False, 0, param.eps)[0]
            return [_PlainBatchStride.apply(top)]
        if x.numel() == len(mean):  # one value a channel is its own mean, and of its variance torch makes no number
            top, batch_mean, batch_variance = x - x, x.detach().reshape(-1), torch.zeros_like(variance)
        else:
            top, batch_mean, batch_variance = _Normalisation.apply(x, param.eps, scale, bias)
        count = x.numel() // x.shape[1]
        with torch.no_grad():
            unbiased = batch_variance * (count / (count - 1) if count > 1 else 1)
            for blob, batch in ((mean, batch_mean), (variance, unbiased), (factor, 1)):
                blob.mul_(self.fraction).add_(batch)
        return [_PlainBatchStride.apply(top)]

    def onnx(self, graph: Graph, bottom: list[str]) -> list[str]:
        param = self.param.batch_norm_param
        if param.HasField("use_global_stats") and not param.use_global_stats:  # by the batch's own, in TEST too
            axes = [axis for axis in range(len(graph.shapes[bottom[0]])) if axis != 1]
            centred = graph.node("Sub", [*bottom, graph.node("ReduceMean", bottom, axes=axes)])
            squares = graph.node("ReduceMean", [graph.node("Mul", [centred] * 2)], axes=axes)
            shifted = graph.node("Add", [squares, graph.constant(np.array(param.eps))])
            return [graph.node("Div", [centred, graph.node("Sqrt", [shifted])])]
        mean, variance, factor = self.blobs
        scale = 0.0 if factor.item() == 0 else 1 / factor.item()
        constants = [torch.ones_like(mean), torch.zeros_like(mean), mean * scale, variance * scale]
        return [graph.node("BatchNormalization", [*bottom, *map(graph.constant, constants)], epsilon=param.eps)]


class _Proportion(torch.autograd.Function):
    """x / (k + alpha average(x^2))^beta, with its gradient in fewer passes than torch's own takes.

    `average` weighs one value for another as it weighs the other for the one.
    """

    @staticmethod
    def forward(context: Any, x: torch.Tensor, param: LRNParameter, average: Average, k: float) -> torch.Tensor:
        scale = average(x.square()).mul_(param.alpha).add_(k)
        # Caffe's default power by roots, which takes a third of the time.
        factor = (scale * scale.sqrt()).rsqrt_() if param.beta == 0.75 else scale.pow(-param.beta)
        context.save_for_backward(x, scale, factor)
        context.average, context.slope = average, 2 * param.alpha * param.beta
        return x * factor

    @staticmethod
    def backward(context: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, scale, factor = context.saved_tensors
        scaled = gradient * factor
        around = context.average(scaled * x / scale)
        return scaled.addcmul_(x, around, value=-context.slope), None, None, None


@register("LRN")
class LRN(Layer):
    """Local response normalisation: x / (k + alpha/n * sum of squares over a window)^beta. Shape unchanged.

    ACROSS_CHANNELS: n = local_size channels around each. WITHIN_CHANNEL: n = local_size^2 pixels, k fixed at 1, the
    window's average counting padding (caffe/layers/lrn_layer.cpp).
    """

    def setup(self, bottom: list[Shape]) -> list[Shape]:
        size = self.param.lrn_param.local_size
        if size % 2 == 0 or size > MAX_COUNT:
            raise self.error(f"local_size {size} where an odd number of at most {MAX_COUNT} was expected")
        if len(bottom[0]) != 4:
            raise self.error(f"bottom of shape {bottom[0]} where (N, C, H, W) was expected")
        return bottom

    def forward(self, bottom: Tensors) -> Tensors:
        param = self.param.lrn_param
        if param.norm_region == LRNParameter.ACROSS_CHANNELS:
            return [_Proportion.apply(bottom[0], param, self.across, param.k)]
        return [_Proportion.apply(bottom[0], param, self.within, 1)]

    def across(self, x: torch.Tensor) -> torch.Tensor:
        """The average over the channels around each, those beyond the first and last counted as 0."""
        size = self.param.lrn_param.local_size
        averages = x / size
        for distance in range(1, min(size // 2 + 1, x.shape[1])):
            averages[:, distance:].add_(x[:, :-distance], alpha=1 / size)
            averages[:, :-distance].add_(x[:, distance:], alpha=1 / size)
        return averages

    def within(self, x: torch.Tensor) -> torch.Tensor:
        """The average over the pixels around each, those beyond the edges counted as 0."""
        size = self.param.lrn_param.local_size
        return F.avg_pool2d(x, size, stride=1, padding=size // 2)

    def onnx(self, graph: Graph, bottom: list[str]) -> list[str]:
        param = self.param.lrn_param
        size, half = param.local_size, param.local_size // 2
        if param.norm_region == LRNParameter.ACROSS_CHANNELS:
            return [graph.node("LRN", bottom, size=size, alpha=param.alpha, beta=param.beta, bias=param.k)]
        averages = graph.node(
            "AveragePool",
            [graph.node("Mul", bottom * 2)],
            kernel_shape=[size] * 2,
            pads=[half] * 4,
            count_include_pad=1,
        )
        scaled = graph.node("Mul", [averages, graph.constant(np.array(param.alpha))])
        base = graph.node("Add", [scaled, graph.constant(np.array(1))])
        return [graph.node("Div", [*bottom, graph.node("Pow", [base, graph.constant(np.array(param.beta))])])]


@register("Normalize")
class Normalize(Layer):
    """scale * x / sqrt(eps + sum of squares over the channels, and with across_spatial over all places as well).

    bottom (N, C, ...) -> the same shape. Blob: scale () or, with channel_shared: false, (C,); 1 unless scale_filler
    says otherwise (Liu et al., 2016; weiliu89/caffe, normalize_layer.cpp).
    """

    def setup(self, bottom: list[Shape]) -> list[Shape]:
        param = self.param.norm_param
        if len(bottom[0]) < 2:
            raise self.error(f"bottom of shape {bottom[0]} where (N, C, ...) was expected")
        if not 0 <= param.eps < math.inf:
            raise self.error(f"eps {param.eps:g} where a number from 0 on was expected")
        filler = param.scale_filler if param.HasField("scale_filler") else FillerParameter(type="constant", value=1)
        self.add_blob(() if param.channel_shared else (bottom[0][1],), filler)
        self.axes = list(range(1, len(bottom[0]))) if param.across_spatial else [1]
        return bottom

    def forward(self, bottom: Tensors) -> Tensors:
        x = bottom[0]
        norm = (x.float().square().sum(self.axes, keepdim=True) + self.param.norm_param.eps).sqrt()
        return [x / norm * self.blobs[0].reshape(-1, *[1] * (x.ndim - 2))]

    def onnx(self, graph: Graph, bottom: list[str]) -> list[str]:
        squares = graph.node("ReduceSumSquare", bottom, axes=self.axes)
        shifted = graph.node("Add", [squares, graph.constant(np.array(self.param.norm_param.eps))])
        scale = self.blobs[0].reshape(-1, *[1] * (len(graph.shapes[bottom[0]]) - 2))
        normalised = graph.node("Div", [*bottom, graph.node("Sqrt", [shifted])])
        return [graph.node("Mul", [normalised, graph.constant(scale)])]


@register("MVN")
class MVN(Layer):
    """(x - mean) / (standard deviation + eps) of every channel, or of every item with across_channels.

    bottom of at most four axes -> top of four, (N, C, H, W), those that the bottom lacks 1. normalize_variance: false
    leaves the division out. The deviation is the biased one (caffe/layers/mvn_layer.cpp).
    """

    def setup(self, bottom: list[Shape]) -> list[Shape]:
        if len(bottom[0]) > 4:
            raise self.error(f"bottom of shape {bottom[0]} where at most four axes were expected")
        self.first = 1 if self.param.mvn_param.across_channels else 2
        return [self.four(bottom[0])]

    @staticmethod
    def four(shape: Shape) -> Shape:
        """A shape with as many axes of 1 behind it as make four."""
        return (*shape, *[1] * (4 - len(shape)))

    def forward(self, bottom: Tensors) -> Tensors:
        param = self.param.mvn_param
        shape = self.four(tuple(bottom[0].shape))
        vectors = bottom[0].reshape(*shape[: self.first], math.prod(shape[self.first :]))
        centred = vectors - vectors.mean(-1, keepdim=True)
        if param.normalize_variance:
            variance = centred.square().mean(-1, keepdim=True)
            # Caffe's gradient has eps beside the deviation wherever it divides by it, also in that of the root.
            scale = variance.detach().sqrt() + param.eps
            centred = centred / (scale + (variance - variance.detach()) / (2 * scale))
        return [centred.reshape(shape)]

    def onnx(self, graph: Graph, bottom: list[str]) -> list[str]:
        param = self.param.mvn_param
        missing = 4 - len(graph.shapes[bottom[0]])
        if missing:
            bottom = [graph.node("Unsqueeze", [*bottom, graph.constant(list(range(4 - missing, 4)))])]
        axes = list(range(self.first, 4))
        centred = graph.node("Sub", [*bottom, graph.node("ReduceMean", bottom, axes=axes)])
        if not param.normalize_variance:
            return [centred]
        variance = graph.node("ReduceMean", [graph.node("Mul", [centred] * 2)], axes=axes)
        scale = graph.node("Add", [graph.node("Sqrt", [variance]), graph.constant(np.array(param.eps))])
        return [graph.node("Div", [centred, scale])]
