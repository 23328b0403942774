"""Softmax, losses and accuracy."""

import math

import torch

from pipeline.caffe.caffe_pb2 import LossParameter
from pipeline.caffe.layers.layer import Graph, Layer, Shape, Tensors, register

FLT_MIN = 1.17549435e-38  # the smallest probability a loss takes the logarithm of (C's <float.h>)


class LabelledScores(Layer):
    """Scores with the classes along `axis`, and one integer label for each place on the other axes."""

    bottoms = (2, 2)

    def scores_setup(self, bottom: list[Shape], axis: int) -> None:
        scores, label = bottom
        self.class_axis = self.axis(axis, scores)
        places = math.prod(scores) // scores[self.class_axis]
        if math.prod(label) != places:
            raise self.error(f"{math.prod(label)} labels of shape {label} where scores of shape {scores} have {places} "
                             f"predictions along axis {self.class_axis}")

    def flat(self, bottom: Tensors, ignore_label: int | None) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Scores (places, classes) in float32, labels (places,) with the ignored at 0, and which are not ignored."""
        scores = bottom[0].float().movedim(self.class_axis, -1)
        scores = scores.reshape(-1, scores.shape[-1])
        labels = bottom[1].reshape(-1).long()
        valid = torch.ones_like(labels, dtype=torch.bool) if ignore_label is None else labels != ignore_label
        labels = torch.where(valid, labels, 0)
        if labels.numel() and not 0 <= int(labels.min()) <= int(labels.max()) < scores.shape[1]:
            wrong = int(labels.min()) if int(labels.min()) < 0 else int(labels.max())
            raise self.error(f"label {wrong} where the scores have classes 0 to {scores.shape[1] - 1}; do num_output "
                             "and the labels belong together?")
        return scores, labels, valid


@register("Softmax")
class Softmax(Layer):
    """exp(x) divided by its sum along `axis`. Shape unchanged."""

    def setup(self, bottom: list[Shape]) -> list[Shape]:
        self.class_axis = self.axis(self.param.softmax_param.axis, bottom[0])
        return bottom

    def forward(self, bottom: Tensors) -> Tensors:
        return [torch.softmax(bottom[0].float(), self.class_axis)]

    def onnx(self, graph: Graph, bottom: list[str]) -> list[str]:
        return [graph.node("Softmax", bottom, axis=self.class_axis)]


@register("SoftmaxWithLoss")
class SoftmaxWithLoss(LabelledScores):
    """-log of the true class's softmax. bottom (N, classes, ...) scores, (N, ...) labels -> loss ()[, softmax].

    Summed over all places and divided by `normalization`: VALID (default) the places not ignored, FULL all of them,
    BATCH_SIZE those of axis 0, each at least 1, or NONE; `normalize: false` alone is BATCH_SIZE.
    """

    tops = (1, 2)
    default_loss_weight = 1

    def setup(self, bottom: list[Shape]) -> list[Shape]:
        self.scores_setup(bottom, self.param.softmax_param.axis)
        return [(), bottom[0]][: len(self.param.top)]

    def forward(self, bottom: Tensors) -> Tensors:
        param = self.param.loss_param
        scores, labels, valid = self.flat(bottom, param.ignore_label if param.HasField("ignore_label") else None)
        log_probability = torch.log_softmax(scores, 1).gather(1, labels[:, None])[:, 0]
        # The clamp bounds the loss, not its gradient, which Caffe computes from the softmax alone.
        log_probability = log_probability + (log_probability.clamp(min=math.log(FLT_MIN)) - log_probability).detach()
        loss = -torch.where(valid, log_probability, 0).sum() / self.normalizer(bottom[0], valid)
        return [loss, torch.softmax(bottom[0].float(), self.class_axis)][: len(self.param.top)]

    def normalizer(self, scores: torch.Tensor, valid: torch.Tensor) -> float:
        param = self.param.loss_param
        mode = param.normalization
        if not param.HasField("normalization") and param.HasField("normalize"):
            mode = LossParameter.VALID if param.normalize else LossParameter.BATCH_SIZE
        places = {
            LossParameter.FULL: valid.numel(),
            LossParameter.VALID: int(valid.sum()),
            LossParameter.BATCH_SIZE: scores.shape[0],
            LossParameter.NONE: 1,
        }
        return max(1.0, places[mode])


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


@register("Accuracy")
class Accuracy(LabelledScores):
    """The share of places whose true class is among the top_k scores; a tie counts against it.

    bottom (N, classes, ...) scores, (N, ...) labels -> accuracy ()[, accuracy of each class (classes,)].
    """

    tops = (1, 2)

    def setup(self, bottom: list[Shape]) -> list[Shape]:
        param = self.param.accuracy_param
        self.scores_setup(bottom, param.axis)
        if not 1 <= param.top_k <= bottom[0][self.class_axis]:
            raise self.error(f"top_k {param.top_k} where there are {bottom[0][self.class_axis]} classes")
        return [(), (bottom[0][self.class_axis],)][: len(self.param.top)]

    @torch.no_grad()
    def forward(self, bottom: Tensors) -> Tensors:
        param = self.param.accuracy_param
        scores, labels, valid = self.flat(bottom, param.ignore_label if param.HasField("ignore_label") else None)
        at_least = (scores >= scores.gather(1, labels[:, None])).sum(1)  # the true class itself is one of them
        right = ((at_least <= param.top_k) & valid).float()
        accuracy = right.sum() / max(1, int(valid.sum()))
        if len(self.param.top) == 1:
            return [accuracy]
        classes = scores.new_zeros(2, scores.shape[1])
        classes.index_add_(1, labels, torch.stack([right, valid.float()]))
        return [accuracy, classes[0] / classes[1].clamp(min=1)]
