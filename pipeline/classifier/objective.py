"""What a rendered net learns: one-hot labels, smoothed and weighted ones, or soft targets, in Caffe's own layers.

Soft targets are float Datums of a second database, read in step with the images. Their cross-entropy,
-1/N sum(target * log softmax(scores)), is Softmax, Log, Eltwise and Reduction, so that real Caffe trains them too.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.base.errors import InputError
from pipeline.caffe.database import DatabaseReader, datum_to_array
from pipeline.caffe.proto.blob_proto import write_mean
from pipeline.caffe.proto.caffe_pb2 import (
    TEST,
    TRAIN,
    DataParameter,
    EltwiseParameter,
    LayerParameter,
    LogParameter,
    NetParameter,
    NetStateRule,
    ReductionParameter,
)
from pipeline.caffe.proto.files import PrototxtError

TARGETS, AUXILIARY = "targets_lmdb", "auxiliary_lmdb"  # in the folder that the stage `targets` writes
INFOGAIN = "infogain.binaryproto"
AUXILIARY_SCORES = "auxiliary_scores"  # the layer of the second head
SMALLEST_PROBABILITY = 1e-10  # added before the logarithm, so that a probability of 0 has one

_ONLY_TRAIN = NetStateRule(phase=TRAIN)


@dataclass(frozen=True)
class Objective:
    """What a net learns. label_smoothing, class_weights: of its labels, as infogain_matrix and read_class_weights take
    them. targets: the folder that the stage `targets` wrote, for soft targets and a second head. auxiliary_weight: of
    the second head's loss.
    """

    label_smoothing: float = 0.0
    class_weights: tuple[str, ...] = ()
    targets: Path | None = None
    auxiliary_weight: float = 0.4

    def set_in(
        self, message: NetParameter, labels: tuple[str, ...], database: Path, batch_size: int, infogain: Path
    ) -> None:
        """Change a train_val net accordingly. database: of the training images. infogain: the file for H, if any.

        Raises InputError for weights that are none, a folder without targets, and weights beside targets.
        """
        weights = read_class_weights(self.class_weights, labels, database)
        mixture, auxiliary = (
            self.targets and (self.targets / name).exists() and self.targets / name for name in (TARGETS, AUXILIARY)
        )
        if self.targets and not mixture and not auxiliary:
            raise InputError(
                f"{self.targets}: neither {TARGETS} nor {AUXILIARY} inside; make them with the stage targets"
            )
        if mixture and weights:
            raise InputError("class_weights: they weigh labels, and the net learns soft_targets; leave one of them out")
        if mixture:
            learn_targets(message, mixture, batch_size)
        elif self.label_smoothing or weights:
            learn_by_infogain(message, infogain_matrix(labels, self.label_smoothing, weights), infogain)
        if auxiliary:
            learn_auxiliary(message, auxiliary, batch_size, self.auxiliary_weight)


LABELS_ALONE = Objective()


def infogain_matrix(labels: tuple[str, ...], smoothing: float, weights: Mapping[str, float]) -> np.ndarray:
    """InfogainLoss's H, (K, K) float32: row c is label c's target, the label's weight times its smoothed one-hot.

    smoothing: the share that goes to all K labels alike (Szegedy et al., 2016). weights: 1 for a label not named.
    Raises InputError for a label that does not exist.
    """
    unknown = [name for name in weights if name not in labels]
    if unknown:
        raise InputError(f"class_weights: {', '.join(unknown)}, where the labels are {', '.join(labels)}")
    matrix = (1 - smoothing) * np.eye(len(labels)) + smoothing / len(labels)
    return (matrix * [[weights.get(name, 1.0)] for name in labels]).astype(np.float32)


def balanced_weights(labels: tuple[str, ...], counts: Iterable[int]) -> dict[str, float]:
    """Weights that give every label the same say: N / (K n) for n of the N images. Raises InputError where n is 0."""
    counts = list(counts)
    empty = [name for name, count in zip(labels, counts, strict=True) if not count]
    if empty:
        raise InputError(f"class_weights: balanced, but the training set has no image of {', '.join(empty)}")
    return {name: sum(counts) / (len(labels) * count) for name, count in zip(labels, counts, strict=True)}


def read_class_weights(words: Sequence[str], labels: tuple[str, ...], database: Path) -> dict[str, float]:
    """Weights from words such as disgust=2, or from the one word balanced and the labels in the training database.

    Raises InputError for a word that is none or a label that is named twice, and as balanced_weights does.
    """
    if list(words) == ["balanced"]:
        with DatabaseReader(database) as reader:
            counts = Counter(datum.label for _, datum in reader)
        return balanced_weights(labels, [counts[index] for index in range(len(labels))])
    weights = {}
    for word in words:
        label, _, weight = word.rpartition("=")
        if label in weights:
            raise InputError(f"class_weights: '{word}': {label} is named twice; give each label once")
        try:
            weights[label] = float(weight)
        except ValueError:
            weights[label] = -1.0
        if not label or not 0 <= weights[label] < math.inf:
            raise InputError(
                f"class_weights: '{word}', where LABEL=WEIGHT with a weight of at least 0, or the one "
                "word balanced, was expected"
            )
    return weights


def learn_by_infogain(message: NetParameter, matrix: np.ndarray, path: Path) -> None:
    """Put InfogainLoss with `matrix`, which is written to `path`, in the place of SoftmaxWithLoss while training."""
    write_mean(path, matrix[None])
    loss = _training_loss(message)
    loss.type = "InfogainLoss"
    loss.infogain_loss_param.source = path.as_posix()


def learn_targets(message: NetParameter, database: Path, batch_size: int) -> None:
    """Put the cross-entropy with the targets of `database` in the place of SoftmaxWithLoss while training."""
    loss = _training_loss(message)
    scores, label = loss.bottom
    message.layer.remove(loss)
    _add_data(message, "targets", database, batch_size)
    _add_cross_entropy(message, scores, "targets", batch_size, weight=1.0, name="loss")
    message.layer.add(name="silence", type="Silence", bottom=[label], include=[_ONLY_TRAIN])


def learn_auxiliary(message: NetParameter, database: Path, batch_size: int, weight: float) -> None:
    """Give the net a second head while training, which learns the targets of `database` with a loss of this weight."""
    classifier = last_inner_product(message)
    if classifier is None:
        raise PrototxtError("no InnerProduct layer, beside which a second head could stand")
    head = LayerParameter()
    head.CopyFrom(classifier)
    head.name = head.top[0] = AUXILIARY_SCORES
    head.inner_product_param.num_output = _width(database)
    head.include.extend([_ONLY_TRAIN])
    _add_data(message, "auxiliary", database, batch_size)
    message.layer.append(head)
    _add_cross_entropy(message, head.top[0], "auxiliary", batch_size, weight=weight, name="auxiliary_loss")


def last_inner_product(message: NetParameter) -> LayerParameter | None:
    """The last InnerProduct of a net: its outputs are the classes."""
    return next((layer for layer in reversed(message.layer) if layer.type == "InnerProduct"), None)


def _training_loss(message: NetParameter) -> LayerParameter:
    """The SoftmaxWithLoss that TRAIN learns by; where TEST measures by it too, it is parted from a copy for TEST."""
    losses = [layer for layer in message.layer if layer.type == "SoftmaxWithLoss"]
    if len(losses) != 1:
        raise PrototxtError(
            f"{len(losses)} SoftmaxWithLoss layers where one was expected, whose place another loss takes"
        )
    (loss,) = losses
    if not loss.include and not loss.exclude:
        measured = message.layer.add()
        measured.CopyFrom(loss)
        measured.include.add(phase=TEST)
        loss.include.extend([_ONLY_TRAIN])
    return loss


def _width(database: Path) -> int:
    """The number of values in a target."""
    with DatabaseReader(database) as reader:
        for key, datum in reader:
            return datum_to_array(datum, reader.name(key)).size
    raise InputError(f"{database}: no records, where a target for every training image was expected")


def _add_data(message: NetParameter, name: str, database: Path, batch_size: int) -> None:
    """Read `database` in TRAIN: (N, K, 1, 1) Datums flattened to the blob `name`, (N, K)."""
    source = DataParameter(source=database.as_posix(), batch_size=batch_size, backend=DataParameter.LMDB)
    layers = [
        LayerParameter(name=name, type="Data", top=[f"{name}_data"], data_param=source, include=[_ONLY_TRAIN]),
        LayerParameter(name=f"{name}_flat", type="Flatten", bottom=[f"{name}_data"], top=[name], include=[_ONLY_TRAIN]),
    ]
    first = next((place for place, layer in enumerate(message.layer) if layer.type != "Data"), len(message.layer))
    for offset, layer in enumerate(layers):
        message.layer.insert(first + offset, layer)


def _add_cross_entropy(
    message: NetParameter, scores: str, targets: str, batch_size: int, *, weight: float, name: str
) -> None:
    """-1/N sum(targets * log softmax(scores)) as the top `name`, times `weight` in the net's loss."""
    chain: tuple[tuple[str, str, list[str], dict[str, Any]], ...] = (
        ("softmax", "Softmax", [scores], {}),
        ("log", "Log", [f"{name}_softmax"], {"log_param": LogParameter(shift=SMALLEST_PROBABILITY)}),
        (
            "product",
            "Eltwise",
            [f"{name}_log", targets],
            {"eltwise_param": EltwiseParameter(operation=EltwiseParameter.PROD)},
        ),
    )
    for part, kind, bottom, param in chain:
        message.layer.add(
            name=f"{name}_{part}", type=kind, bottom=bottom, top=[f"{name}_{part}"], include=[_ONLY_TRAIN], **param
        )
    message.layer.add(
        name=f"{name}_sum",
        type="Reduction",
        bottom=[f"{name}_product"],
        top=[name],
        loss_weight=[weight],
        include=[_ONLY_TRAIN],
        reduction_param=ReductionParameter(operation=ReductionParameter.SUM, coeff=-1 / batch_size),
    )
