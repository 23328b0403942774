"""Losses that compare values with values, not with a class."""

import math

import torch
import torch.nn.functional as F

from pipeline.caffe.layers.layer import Layer, Shape, Tensors, register
from pipeline.caffe.layers.loss import normalizer
from pipeline.caffe.proto.caffe_pb2 import LossParameter


@register("EuclideanLoss")
class EuclideanLoss(Layer):
    """Sum of squared differences of two bottoms of one shape, divided by 2 N -> loss ()."""

    bottoms = (2, 2)
    default_loss_weight = 1

    def setup(self, bottom: list[Shape]) -> list[Shape]:
        if math.prod(bottom[0][1:]) != math.prod(bottom[1][1:]) or bottom[0][:1] != bottom[1][:1]:
            raise self.error(f"bottoms of shapes {bottom[0]} and {bottom[1]} where one shape was expected")
        return [()]

    def forward(self, bottom: Tensors) -> Tensors:
        first, second = (value.float().reshape(-1) for value in bottom)
        return [(first - second).square().sum() / (2 * bottom[0].shape[0])]


@register("SigmoidCrossEntropyLoss")
class SigmoidCrossEntropyLoss(Layer):
    """-(t log s + (1 - t) log(1 - s)) of s = sigmoid(score) and a target t, which gets no gradient.

    bottom (N, ...) scores, as many targets -> loss (), summed and divided by `normalization`: BATCH_SIZE (default) N,
    VALID the values not ignored, FULL all of them, each at least 1, or NONE; `normalize: true` alone is VALID. A
    target whose whole part is ignore_label is ignored.
    """

    bottoms = (2, 2)
    labels = (1,)
    default_loss_weight = 1

    def setup(self, bottom: list[Shape]) -> list[Shape]:
        if math.prod(bottom[0]) != math.prod(bottom[1]):
            raise self.error(
                f"bottoms of shapes {bottom[0]} and {bottom[1]} where as many targets as scores were expected"
            )
        return [()]

    def forward(self, bottom: Tensors) -> Tensors:
        param = self.param.loss_param
        scores, targets = bottom[0].float().reshape(-1), bottom[1].detach().float().reshape(-1)
        valid = torch.ones_like(targets, dtype=torch.bool)
        if param.HasField("ignore_label"):
            valid = targets.long() != param.ignore_label
        losses = F.binary_cross_entropy_with_logits(scores, targets, reduction="none")
        divisor = normalizer(param, LossParameter.BATCH_SIZE, valid, bottom[0].shape[0])
        return [torch.where(valid, losses, 0).sum() / divisor]


@register("ContrastiveLoss")
class ContrastiveLoss(Layer):
    """For pairs of vectors d apart: d^2 where they are alike, else max(0, margin - d)^2; summed, divided by 2 N.

    bottom (N, C), (N, C), (N,) not 0 for pairs that are alike -> loss (). With legacy_version pairs that are not
    alike cost max(0, margin - d^2).
    """

    bottoms = (3, 3)
    labels = (2,)
    default_loss_weight = 1

    def setup(self, bottom: list[Shape]) -> list[Shape]:
        first, second, alike = bottom
        if not first or math.prod(first[2:]) != 1 or first[:2] != second[:2] or math.prod(second[2:]) != 1:
            raise self.error(f"bottoms of shapes {first} and {second} where (N, C) twice was expected")
        if math.prod(alike) != first[0]:
            raise self.error(f"{math.prod(alike)} labels where {first[0]} pairs were expected")
        return [()]

    def forward(self, bottom: Tensors) -> Tensors:
        param = self.param.contrastive_loss_param
        first, second = (value.float().reshape(len(value), -1) for value in bottom[:2])
        squares = (first - second).square().sum(1)
        if param.legacy_version:
            apart = F.relu(param.margin - squares)
        else:
            # Against a d of 0 Caffe divides by d + 1e-4 in the root's gradient, and there alone.
            distance = squares.detach().sqrt()
            distance = distance + (squares - squares.detach()) / (2 * (distance + 1e-4))
            apart = F.relu(param.margin - distance).square()
        alike = bottom[2].reshape(-1).long() != 0
        return [torch.where(alike, squares, apart).sum() / (2 * len(first))]
