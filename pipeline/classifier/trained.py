"""A trained net as evaluate and export see it: its deploy prototxt, weights and mean, run over databases."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.base.console import progress_bar
from pipeline.base.errors import InputError
from pipeline.caffe.data_transformer import Transformer
from pipeline.caffe.database import DatabaseReader, datum_to_array
from pipeline.caffe.proto.caffe_pb2 import TEST, TransformationParameter
from pipeline.classifier.views import read_views
from pipeline.data import manifest

if TYPE_CHECKING:
    from pipeline.caffe.net import Net

BATCH = 256
PARTS = ("val", "test")  # what is held out, and may be measured


class MeasureError(InputError):
    """A net, a database and labels that do not belong together."""


@dataclass(frozen=True)
class Measurable:
    """What gives probabilities, with its name, its classes and what makes its input.

    output: the name of its output. run: takes transformed images (N, C, h, w) to probabilities (N, classes); forward:
    raw ones (N, C, H, W).
    """

    name: str
    output: str
    run: Callable[[np.ndarray], np.ndarray]
    transformer: Transformer
    labels: tuple[str, ...]

    def forward(self, images: np.ndarray, views: int = 1) -> np.ndarray:
        return read_views(self.run, images, self.transformer, views)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of a raw image: the mean's."""
        assert self.transformer.mean is not None
        channels, height, width = self.transformer.mean.shape
        return channels, height, width


@dataclass(frozen=True)
class Trained(Measurable):
    """A deploy net with its weights."""

    net: "Net"


def load(deploy: Path, weights: Path, mean: Path, labels: Path) -> Trained:
    """Build a deploy net. Raises MeasureError when it is none, or does not fit the labels or the mean.

    Its images are scaled as the transform_param of its Input layer says, which render takes from train_val.prototxt.
    Caffe's Input layer itself transforms nothing.
    """
    from pipeline.caffe.layers.data import Input
    from pipeline.caffe.net import build_net

    net = build_net(deploy, TEST)
    if len(net.inputs) != 1 or len(net.outputs) != 1 or len(net.shapes[net.outputs[0]]) != 2:
        raise MeasureError(
            f"{deploy}: inputs {', '.join(net.inputs) or 'none'}, outputs {', '.join(net.outputs) or 'none'} where one "
            "input of images and one output (N, classes) were expected; is it a deploy prototxt?"
        )
    (given,) = (layer for layer in net.layers if isinstance(layer, Input))
    param = TransformationParameter(mean_file=str(mean), scale=given.param.transform_param.scale)
    net.copy_from(weights)
    names = manifest.read_labels(labels)
    classes = net.shapes[net.outputs[0]][1]
    if classes != len(names):
        raise MeasureError(
            f"{deploy}: output '{net.outputs[0]}' has {classes} classes where {labels} names {len(names)}; render the "
            "prototxts again for this class list"
        )
    wanted = net.shapes[net.inputs[0]][1:]
    trained = Trained(
        net.name, net.outputs[0], lambda images: _forward(net, images), Transformer(param, TEST), names, net
    )
    shape = trained.image_shape
    if shape != wanted:
        # The net sees the centre of the image: Caffe's crop, which is square.
        param.crop_size = wanted[-1]
        if wanted != (shape[0], wanted[-1], wanted[-1]) or wanted[-1] > min(shape[1:]):
            raise MeasureError(
                f"{mean}: a mean of shape {shape} where {deploy} takes {wanted}; give the mean of this net's own "
                "training database"
            )
    return trained


def _forward(net: "Net", images: np.ndarray) -> np.ndarray:
    import torch

    with torch.inference_mode():
        (output,) = net.forward(**{net.inputs[0]: images}).values()
    return output.numpy()


def read_batches(
    reader: DatabaseReader, classes: int, rows: range | None = None
) -> Iterator[tuple[list[bytes], np.ndarray, np.ndarray]]:
    """Every record once, or those of some rows: keys, images (N, C, H, W), labels (N,).

    Raises MeasureError naming one that is wrong.
    """
    keys: list[bytes] = []
    images: list[np.ndarray] = []
    labels: list[int] = []
    rows = range(len(reader)) if rows is None else rows
    for key, value in islice(reader.records(rows.start), len(rows)):
        datum = reader.datum(key, value)
        image = datum_to_array(datum, reader.name(key))
        if images and image.shape != images[0].shape:
            raise MeasureError(
                f"{reader.name(key)}: shape {image.shape} where {images[0].shape} as before was expected; make the "
                "database again from images of one size"
            )
        if not 0 <= datum.label < classes:
            raise MeasureError(
                f"{reader.name(key)}: label {datum.label} where 0 to {classes - 1} was expected; make the database "
                "again with these labels"
            )
        keys.append(key)
        images.append(image)
        labels.append(datum.label)
        if len(images) == BATCH:
            yield keys, np.stack(images), np.array(labels)
            keys, images, labels = [], [], []
    if images:
        yield keys, np.stack(images), np.array(labels)


def predictions(
    trained: Measurable,
    database: Path,
    in_caffe: Callable[[Path], np.ndarray] | None = None,
    views: int = 1,
    rows: range | None = None,
) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Run a database through the net: the images' paths in its list, labels (N,), probabilities (N, classes).

    in_caffe: gives a database's probabilities instead of the net as it is here. views: of each image, as views.COUNTS
    has them; probabilities are their means. rows: those to run, in whole batches; None: all.
    """
    paths: list[str] = []
    truth = [np.empty(0, np.int64)]
    scores = [np.empty((0, len(trained.labels)), np.float32)]
    with (
        DatabaseReader(database) as reader,
        progress_bar(len(reader) if rows is None else len(rows), "images", database.name) as bar,
    ):
        for keys, images, labels in read_batches(reader, len(trained.labels), rows):
            # A record's key is its number, "_" and its path in the list (Caffe's convert_imageset).
            paths += (key.decode("utf-8", "surrogateescape").split("_", 1)[1] for key in keys)
            truth.append(labels)
            if in_caffe is None:
                scores.append(trained.forward(images, views))
            bar.update(len(keys))
    probabilities = np.concatenate(scores) if in_caffe is None or not paths else in_caffe(database)
    if not np.allclose(probabilities.sum(axis=1), 1, atol=1e-3):
        raise MeasureError(
            f"net '{trained.name}': output '{trained.output}' does not add up to 1; end the deploy "
            "net with a Softmax layer"
        )
    return paths, np.concatenate(truth), probabilities


def versions(*packages: str) -> list[str]:
    from importlib.metadata import version
    from platform import python_version

    from pipeline import __version__

    return [f"pipeline {__version__}", f"python {python_version()}", *(f"{name} {version(name)}" for name in packages)]
