"""Images of a database as a model's input takes them, and what two models make of them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from pipeline.base.errors import InputError
from pipeline.base.onnx_runtime import open_session
from pipeline.caffe.database import DatabaseError, DatabaseReader


class EvaluationError(InputError):
    """A database, or an output, of which nothing can be measured."""


@dataclass(frozen=True)
class Images:
    """The images of a database, each made what the model takes.

    prepare: makes the model's input of images (N, C, H, W), uint8 or float32, their channels in the database's order.
    """

    path: Path
    backend: str
    prepare: Callable[[np.ndarray], np.ndarray]

    def batches(self, size: int, *, whole: bool) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Inputs and labels (N,), N being `size`; what is left in the end is a smaller batch, or with `whole` none.

        Raises DatabaseError where images differ in shape or there are none.
        """
        with DatabaseReader(self.path, self.backend) as reader:
            records = reader.records()
            given = 0
            while len(batch := list(islice(records, size))) >= (size if whole else 1):
                images, labels = reader.unpack(batch)
                shapes = {image.shape for image in images}
                if len(shapes) > 1:
                    raise DatabaseError(
                        f"{self.path}: images of shapes {', '.join(map(str, sorted(shapes)))} where "
                        "one was expected; make the database again from images of one size"
                    )
                yield self.prepare(np.asarray(images)), labels
                given += len(batch)
        if not given:
            raise DatabaseError(
                f"{self.path}: {len(batch)} records, where at least {size if whole else 1} were expected"
            )

    def labelled(self) -> bool:
        """Whether the first record has a label."""
        with DatabaseReader(self.path, self.backend) as reader:
            return any(datum.HasField("label") for _, datum in islice(reader, 1))


def centre(images: np.ndarray, height: int, width: int) -> np.ndarray:
    """The centre of (..., H, W), as a Data layer's crop in TEST cuts it out; unchanged where it is not larger."""
    top, left = (images.shape[-2] - height) // 2, (images.shape[-1] - width) // 2
    if min(top, left) < 0:
        return images
    return images[..., top : top + height, left : left + width]


@dataclass
class Comparison:
    """What a model makes of images beside what it was made from.

    deviation: the largest difference of any output, relative to the first model's largest value. right: how many
    images' labels were the largest value of the first and of the second model; agreed: of how many images it is the
    same one; None where the images have no labels, or the output no classes.
    """

    images: int = 0
    difference: float = 0.0
    largest: float = 0.0
    agreed: int | None = 0
    right: tuple[int, int] | None = (0, 0)

    @property
    def deviation(self) -> float:
        return self.difference / self.largest if self.largest else self.difference


def session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    """ONNX Runtime, on the CPU, with a model."""
    return open_session(model.SerializeToString(), "the ONNX form", threads=0)


def class_output(model: onnx.ModelProto, name: str) -> str | None:
    """The output whose second axis is the classes: `name`, else the only one; None where there is none.

    Raises EvaluationError when there is no output `name`.
    """
    shapes = {value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in model.graph.output}
    if name and name not in shapes:
        raise EvaluationError(f"no output '{name}' where {', '.join(shapes)} are; give one of them as -classes")
    found = [output for output, dims in shapes.items() if len(dims) > 1 and all(dim == 1 for dim in dims[2:])]
    if name:
        return name if name in found else None
    return found[0] if len(found) == len(shapes) == 1 else None


def compare(
    before: onnx.ModelProto,
    after: onnx.ModelProto,
    batches: Iterator[tuple[np.ndarray, np.ndarray]],
    classes: str | None,
    *,
    labelled: bool,
) -> Comparison:
    """Run two models of one input over batches of it; `classes` names the output whose largest value is the answer."""
    first, second = session(before), session(after)
    outputs = [value.name for value in first.get_outputs()]
    feed = first.get_inputs()[0].name
    found = Comparison(
        agreed=None if classes is None else 0, right=(0, 0) if labelled and classes is not None else None
    )
    for images, labels in batches:
        pairs = {
            name: pair
            for name, *pair in zip(
                outputs, first.run(outputs, {feed: images}), second.run(outputs, {feed: images}), strict=True
            )
        }
        found.images += len(images)
        for a, b in pairs.values():
            difference = float(np.abs(a - b).max(initial=0))
            found.difference = difference if np.isnan(difference) else max(found.difference, difference)
            found.largest = max(found.largest, float(np.abs(a).max(initial=0)))
        if classes is None:
            continue
        answers = [scores.reshape(len(images), -1).argmax(1) for scores in pairs[classes]]
        found.agreed = (found.agreed or 0) + int((answers[0] == answers[1]).sum())
        if found.right is not None:
            if labels.max(initial=0) >= pairs[classes][0].shape[1]:
                raise EvaluationError(
                    f"label {labels.max()} where output '{classes}' has {pairs[classes][0].shape[1]} "
                    "classes; is this the database of this net's classes?"
                )
            first_right, second_right = (int((answer == labels).sum()) for answer in answers)
            found.right = (found.right[0] + first_right, found.right[1] + second_right)
    return found
