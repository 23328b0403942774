"""Which sizes of a net's blobs are only known when it runs, found by asking its layers about other sizes."""

from collections.abc import Collection, Iterator
from itertools import combinations

import torch
from google.protobuf.message import Message

from pipeline.caffe.caffe_pb2 import FillerParameter, LayerParameter
from pipeline.caffe.layers import LayerError, Shape
from pipeline.caffe.layers.data import Input
from pipeline.caffe.net import Net

FACTORS = ((2, 3, 5, 7, 11), (3, 5, 7, 11, 13))  # by axis: primes, so that no axis stands in for another unseen
MAX_AXES = len(FACTORS[0])  # beyond, sizes are those of the prototxt
MAX_CHOSEN_INPUTS = 6  # of more inputs, an axis changes in all or in none

Axes = frozenset[tuple[str, int]]  # of inputs, by name


def run_time_shapes(net: Net, axes: Collection[int] | None = None) -> dict[str, Shape]:
    """The shapes of a net's blobs by name, -1 where a size changes with those of the inputs that may change.

    An axis of an input may change when every layer can be set up with multiples of its size and has blobs of the same
    shapes then. Of several inputs as many change together as can; of `axes`, by number, all unless it says which.
    """
    changing: Axes = frozenset()
    shapes = [net.shapes] * len(FACTORS)
    for axis in range(max((len(net.shapes[name]) for name in net.inputs), default=0)):
        if axis >= MAX_AXES or (axes is not None and axis not in axes):
            continue
        for names in _largest_first([name for name in net.inputs if len(net.shapes[name]) > axis]):
            wider = changing | {(name, axis) for name in names}
            try:
                shapes = [_shapes_at(net, wider, factors) for factors in FACTORS]
            except LayerError:
                continue
            changing = wider
            break
    return {name: tuple(size if all(other[name][axis] == size for other in shapes) else -1
                        for axis, size in enumerate(shape))
            for name, shape in net.shapes.items()}


def insist_on_any_size(net: Net) -> None:
    """Raise LayerError naming the first layer that does not take images of another height and width."""
    images = [name for name in net.inputs if len(net.shapes[name]) == 4]
    for axis in (2, 3):
        for factors in FACTORS:
            _shapes_at(net, frozenset((name, axis) for name in images), factors)


def _largest_first(names: list[str]) -> Iterator[tuple[str, ...]]:
    fewest = 1 if len(names) <= MAX_CHOSEN_INPUTS else len(names)
    for count in range(len(names), fewest - 1, -1):
        yield from combinations(names, count)


def _shapes_at(net: Net, changing: Axes, factors: tuple[int, ...]) -> dict[str, Shape]:
    """The blobs' shapes with the `changing` axes of inputs that many times as long. Raises LayerError."""
    shapes: dict[str, Shape] = {}
    with torch.device("meta"):  # blobs have shapes there, and no values
        for layer in net.layers:
            if isinstance(layer, Input):
                for name in layer.param.top:
                    shapes[name] = tuple(size * factors[axis] if (name, axis) in changing else size
                                         for axis, size in enumerate(net.shapes[name]))
                continue
            param = LayerParameter()
            param.CopyFrom(layer.param)
            _clear_fillers(param)
            other = type(layer)(param, net.generator)
            tops = other.setup([shapes[name] for name in param.bottom])
            shapes.update(zip(param.top, tops, strict=True))
            if [blob.shape for blob in other.blobs] != [blob.shape for blob in layer.blobs]:
                raise layer.error(f"{layer.type} has blobs that depend on the size of the image, which is therefore "
                                  "that of the prototxt")
    return shapes


def _clear_fillers(message: Message) -> None:
    """Leave nothing to draw: a FillerParameter's default is a constant."""
    for field, value in message.ListFields():
        if field.message_type is None or field.is_repeated:
            continue
        if field.message_type is FillerParameter.DESCRIPTOR:
            message.ClearField(field.name)
        else:
            _clear_fillers(value)
