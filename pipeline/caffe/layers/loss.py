"""Softmax, and the losses and the accuracy of scores against labels."""

import math
from pathlib import Path

import torch
import torch.nn.functional as F

from pipeline.caffe.layers.layer import Graph, Layer, Shape, Tensors, register
from pipeline.caffe.proto.blob_proto import from_blobproto
from pipeline.caffe.proto.caffe_pb2 import BlobProto, HingeLossParameter, LossParameter
from pipeline.caffe.proto.files import read_binary

FLT_MIN = 1.17549435e-38  # the smallest probability SoftmaxWithLoss takes the logarithm of (C's <float.h>)
LOG_THRESHOLD = 1e-20  # the smallest one that the others take it of (caffe/layers/*_loss_layer.hpp, kLOG_THRESHOLD)


def normalizer(
    param: LossParameter, default: LossParameter.NormalizationMode, valid: torch.Tensor, batch: int
) -> float:
    """What the sum of a loss over `valid` places is divided by, at least 1.

    VALID: the places not ignored, FULL: all of them, BATCH_SIZE: `batch`, NONE: 1; the older normalize is VALID or,
    when false, BATCH_SIZE; `default` where neither is given.
    """
    mode = default
    if param.HasField("normalization"):
        mode = param.normalization
    elif param.HasField("normalize"):
        mode = LossParameter.VALID if param.normalize else LossParameter.BATCH_SIZE
    divisors = {
        LossParameter.FULL: valid.numel(),
        LossParameter.VALID: int(valid.sum()),
        LossParameter.BATCH_SIZE: batch,
        LossParameter.NONE: 1,
    }
    return max(1.0, divisors[mode])


def clamped_log(probability: torch.Tensor) -> torch.Tensor:
    """The logarithm of LOG_THRESHOLD at least, whose gradient there is that of the clamped value, not 0."""
    return (probability + (probability.clamp(min=LOG_THRESHOLD) - probability).detach()).log()


class LabelledScores(Layer):
    """Scores with the classes along `axis`, and one integer label for each place on the other axes."""

    bottoms = (2, 2)
    labels = (1,)

    def scores_setup(self, bottom: list[Shape], axis: int) -> None:
        scores, label, *_ = bottom
        self.class_axis = self.axis(axis, scores)
        if not scores[self.class_axis]:
            raise self.error(f"scores of shape {scores} have no classes on axis {self.class_axis}")
        places = math.prod(scores) // scores[self.class_axis]
        if math.prod(label) != places:
            raise self.error(
                f"{math.prod(label)} labels of shape {label} where scores of shape {scores} have {places} "
                f"predictions along axis {self.class_axis}"
            )

    def flat(self, bottom: Tensors, ignore_label: int | None) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Scores (places, classes) in float32, labels (places,) with the ignored at 0, and which are not ignored."""
        scores = bottom[0].float().movedim(self.class_axis, -1)
        scores = scores.reshape(-1, scores.shape[-1])
        labels = bottom[1].reshape(-1).long()
        valid = torch.ones_like(labels, dtype=torch.bool) if ignore_label is None else labels != ignore_label
        labels = torch.where(valid, labels, 0)
        if labels.numel() and not 0 <= int(labels.min()) <= int(labels.max()) < scores.shape[1]:
            wrong = int(labels.min()) if int(labels.min()) < 0 else int(labels.max())
            raise self.error(
                f"label {wrong} where the scores have classes 0 to {scores.shape[1] - 1}; do num_output "
                "and the labels belong together?"
            )
        return scores, labels, valid

    def batch(self, scores: torch.Tensor) -> int:
        """How many vectors of places there are: the axes before the classes, multiplied."""
        return math.prod(scores.shape[: self.class_axis])

    def softmax(self, bottom: Tensors) -> Tensors:
        """The scores' softmax, for the second top of the losses that have one."""
        if len(self.param.top) == 1:
            return []
        return [self.without_gradient(torch.softmax(bottom[0].float(), self.class_axis), bottom[0])]


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
    BATCH_SIZE those of the axes before the classes, each at least 1, or NONE; `normalize: false` alone is BATCH_SIZE.
    No gradient passes from the softmax.
    """

    tops = (1, 2)
    default_loss_weight = 1
    reads = ("softmax_param",)

    def setup(self, bottom: list[Shape]) -> list[Shape]:
        self.scores_setup(bottom, self.param.softmax_param.axis)
        return [(), bottom[0]][: len(self.param.top)]

    def forward(self, bottom: Tensors) -> Tensors:
        param = self.param.loss_param
        scores, labels, valid = self.flat(bottom, param.ignore_label if param.HasField("ignore_label") else None)
        log_probability = torch.log_softmax(scores, 1).gather(1, labels[:, None])[:, 0]
        # The clamp bounds the loss, not its gradient, which Caffe computes from the softmax alone.
        log_probability = log_probability + (log_probability.clamp(min=math.log(FLT_MIN)) - log_probability).detach()
        loss = -torch.where(valid, log_probability, 0).sum()
        loss = loss / normalizer(param, LossParameter.VALID, valid, self.batch(bottom[0]))
        return [loss, *self.softmax(bottom)]


@register("InfogainLoss")
class InfogainLoss(LabelledScores):
    """-sum over the classes l of H[true class, l] log softmax(l). bottom scores, labels[, H] -> loss ()[, softmax].

    As SoftmaxWithLoss, but for H, (classes, classes): a third bottom, or the .binaryproto that `source` names.
    """

    bottoms = (2, 3)
    tops = (1, 2)
    default_loss_weight = 1

    def setup(self, bottom: list[Shape]) -> list[Shape]:
        param = self.param.infogain_loss_param
        self.scores_setup(bottom, param.axis)
        if self.param.loss_param.HasField("normalize"):
            raise self.error("normalize is not known; set normalization")
        classes = bottom[0][self.class_axis]
        if len(bottom) == 3:
            shape = bottom[2]
        elif param.source:
            self.matrix = torch.from_numpy(from_blobproto(read_binary(Path(param.source), BlobProto), param.source))
            shape = tuple(self.matrix.shape)
        else:
            raise self.error("neither a third bottom nor a source gives the infogain matrix")
        if math.prod(shape) != classes**2:
            raise self.error(f"infogain matrix of shape {shape} where {classes}x{classes} was expected")
        return [(), bottom[0]][: len(self.param.top)]

    def forward(self, bottom: Tensors) -> Tensors:
        param = self.param.loss_param
        scores, labels, valid = self.flat(bottom, param.ignore_label if param.HasField("ignore_label") else None)
        matrix = bottom[2].detach() if len(bottom) == 3 else self.matrix.to(scores.device)
        log_probabilities = torch.log_softmax(scores, 1)
        bound = math.log(LOG_THRESHOLD)  # of the loss, not of its gradient
        log_probabilities = log_probabilities + (log_probabilities.clamp(min=bound) - log_probabilities).detach()
        gains = (matrix.reshape(scores.shape[1], -1)[labels] * log_probabilities).sum(1)
        loss = -torch.where(valid, gains, 0).sum()
        loss = loss / normalizer(param, LossParameter.VALID, valid, self.batch(bottom[0]))
        return [loss, *self.softmax(bottom)]


class LabelledItems(LabelledScores):
    """Scores (N, ...), every item's one vector, and one label for each item -> loss ()."""

    default_loss_weight = 1

    def setup(self, bottom: list[Shape]) -> list[Shape]:
        items = bottom[0][:1]
        self.scores_setup([(*items, math.prod(bottom[0][1:])), *bottom[1:]], 1)
        return [()]

    def flat_items(self, bottom: Tensors) -> tuple[torch.Tensor, torch.Tensor]:
        """Scores (N, classes) in float32 and labels (N,)."""
        items = bottom[0].reshape(len(bottom[0]), math.prod(bottom[0].shape[1:]))
        scores, labels, _ = self.flat([items, bottom[1]], None)
        return scores, labels


@register("MultinomialLogisticLoss")
class MultinomialLogisticLoss(LabelledItems):
    """-log of the true class's probability, the mean over the batch. bottom (N, ...), labels (N,) -> loss ()."""

    def forward(self, bottom: Tensors) -> Tensors:
        probabilities, labels = self.flat_items(bottom)
        return [-clamped_log(probabilities.gather(1, labels[:, None])).sum() / len(labels)]


@register("HingeLoss")
class HingeLoss(LabelledItems):
    """max(0, 1 - score) of the true class and max(0, 1 + score) of the others, or with norm L2 their squares.

    Summed over the classes, the mean over the batch. bottom (N, ...), labels (N,) -> loss ().
    """

    def forward(self, bottom: Tensors) -> Tensors:
        scores, labels = self.flat_items(bottom)
        true = F.one_hot(labels, scores.shape[1]).bool()
        margins = F.relu(1 + torch.where(true, -scores, scores))
        if self.param.hinge_loss_param.norm == HingeLossParameter.L2:
            margins = margins.square()
        return [margins.sum() / len(labels)]


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
