"""Batch normalisation."""

import torch

from pipeline.caffe.caffe_pb2 import FillerParameter
from pipeline.caffe.layers.layer import Graph, Layer, Shape, Tensors, register


@register("BatchNorm")
class BatchNorm(Layer):
    """(x - mean) / sqrt(variance + eps), a channel at a time; no scale or shift. bottom (N, C, ...) -> the same shape.

    Blobs: running sums of the means (C,) and variances (C,), and the factor (1,) they are to be divided by. In TRAIN
    (or use_global_stats: false) the batch's own mean and biased variance normalise, and each blob becomes
    moving_average_fraction times itself plus the batch's mean, variance * m/(m-1), and 1; otherwise the stored ones
    normalise, a factor of 0 reading as statistics of 0 (caffe/layers/batch_norm_layer.cpp).
    """

    blobs_are_learned = False

    def setup(self, bottom: list[Shape]) -> list[Shape]:
        if any(spec.lr_mult for spec in self.param.param if spec.HasField("lr_mult")):
            raise self.error("lr_mult is not 0; statistics are not learned by the solver")
        channels = bottom[0][1] if len(bottom[0]) > 1 else 1
        zero = FillerParameter(type="constant", value=0)
        for shape in ((channels,), (channels,), (1,)):
            self.add_blob(shape, zero)
        # As Caffe's LayerSetUp leaves it, so that the .caffemodel reads the same.
        while len(self.param.param) < len(self.blobs):
            self.param.param.add()
        for spec in self.param.param:
            spec.lr_mult = 0
        return bottom

    def forward(self, bottom: Tensors) -> Tensors:
        param = self.param.batch_norm_param
        stored = param.use_global_stats if param.HasField("use_global_stats") else not self.training
        x = bottom[0]
        mean, variance, factor = self.blobs
        if stored:
            scale = 0.0 if factor.item() == 0 else 1 / factor.item()
            return [torch.native_batch_norm(x, None, None, mean * scale, variance * scale, False, 0, param.eps)[0]]
        # With momentum 1 torch leaves the batch's mean and unbiased variance in the running buffers.
        batch_mean, batch_variance = torch.zeros_like(mean), torch.zeros_like(variance)
        top = torch.native_batch_norm(x, None, None, batch_mean, batch_variance, True, 1.0, param.eps)[0]
        with torch.no_grad():
            for blob, batch in ((mean, batch_mean), (variance, batch_variance), (factor, 1)):
                blob.mul_(param.moving_average_fraction).add_(batch)
        return [top]

    def onnx(self, graph: Graph, bottom: list[str]) -> list[str]:
        param = self.param.batch_norm_param
        if param.HasField("use_global_stats") and not param.use_global_stats:
            raise self.error("use_global_stats: false normalises by the batch, which has no ONNX form here")
        mean, variance, factor = self.blobs
        scale = 0.0 if factor.item() == 0 else 1 / factor.item()
        constants = [torch.ones_like(mean), torch.zeros_like(mean), mean * scale, variance * scale]
        return [graph.node("BatchNormalization", [*bottom, *map(graph.constant, constants)], epsilon=param.eps)]
