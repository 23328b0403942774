"""Which sizes of a net's blobs are only known when it runs, found by asking its layers about other sizes."""

from collections.abc import Collection, Iterator
from itertools import combinations

import torch
from google.protobuf.message import Message

from pipeline.caffe.layers import LayerError, Shape
from pipeline.caffe.layers.data import Input
from pipeline.caffe.net import Net
from pipeline.caffe.proto.caffe_pb2 import FillerParameter, LayerParameter

FACTORS = ((2, 3, 5, 7, 11, 13), (3, 5, 7, 11, 13, 17))  # by axis: primes, so that none stands in for another unseen
BATCH = 5  # the factor, by its place, of a batch that is not on the same axis of all inputs
MAX_AXES = 5  # beyond, sizes are those of the prototxt
MAX_CHOSEN = 6  # of more inputs, an axis changes in all or in none

Axis = tuple[str, int]  # of an input: its name and a number
Changing = dict[Axis, int]  # with the factors' places


def run_time_shapes(net: Net, axes: Collection[int] | None = None) -> dict[str, Shape]:
    """The shapes of a net's blobs by name, -1 where a size changes with those of the inputs that may change.

    An axis of an input may change when every layer can be set up with multiples of its size and has blobs of the same
    shapes then. Of several inputs as many change together as can; of `axes`, by number, all unless it says which.
    """
    wanted = [axis for axis in range(MAX_AXES) if axes is None or axis in axes]
    changing: Changing = {}
    shapes = [net.shapes] * len(FACTORS)
    for together in (*_same_axis(net, wanted), *_batches(net, wanted)):
        for chosen in _largest_first([axis for axis in together if axis not in changing]):
            wider = changing | {axis: together[axis] for axis in chosen}
            try:
                shapes = [_shapes_at(net, wider, factors) for factors in FACTORS]
            except LayerError:
                continue
            changing = wider
            break
    return {
        name: tuple(
            size if all(other[name][axis] == size for other in shapes) else -1 for axis, size in enumerate(shape)
        )
        for name, shape in net.shapes.items()
    }


def _same_axis(net: Net, axes: Collection[int]) -> Iterator[Changing]:
    """Each of the axes, in all inputs that have it."""
    for axis in axes:
        yield {(name, axis): axis for name in net.inputs if len(net.shapes[name]) > axis}


def _batches(net: Net, axes: Collection[int]) -> Iterator[Changing]:
    """Axes 0 and 1 of one size: where the batch is, of sequences (T, N, ...) and of what is for all steps (N, ...)."""
    if not {0, 1} <= set(axes) or len(net.inputs) == 1:
        return
    first = [(name, axis) for name in net.inputs for axis in range(min(2, len(net.shapes[name])))]
    for size in sorted({net.shapes[name][axis] for name, axis in first}):
        yield {(name, axis): BATCH for name, axis in first if net.shapes[name][axis] == size}


def insist_on_any_size(net: Net) -> None:
    """Raise LayerError naming the first layer that does not take images of another height and width."""
    images = [name for name in net.inputs if len(net.shapes[name]) == 4]
    for axis in (2, 3):
        for factors in FACTORS:
            _shapes_at(net, {(name, axis): axis for name in images}, factors)


def _largest_first(axes: list[Axis]) -> Iterator[tuple[Axis, ...]]:
    fewest = 1 if len(axes) <= MAX_CHOSEN else max(len(axes), 1)
    for count in range(len(axes), fewest - 1, -1):
        yield from combinations(axes, count)


def _shapes_at(net: Net, changing: Changing, factors: tuple[int, ...]) -> dict[str, Shape]:
    """The blobs' shapes with the `changing` axes of inputs that many times as long. Raises LayerError."""
    shapes: dict[str, Shape] = {}
    with torch.device("meta"):  # blobs have shapes there, and no values
        for layer in net.layers:
            if isinstance(layer, Input):
                for name in layer.param.top:
                    shapes[name] = tuple(
                        size * factors[changing[name, axis]] if (name, axis) in changing else size
                        for axis, size in enumerate(net.shapes[name])
                    )
                continue
            param = LayerParameter()
            param.CopyFrom(layer.param)
            _clear_fillers(param)
            other = type(layer)(param, net.generator)
            tops = other.setup([shapes[name] for name in param.bottom])
            shapes.update(zip(param.top, tops, strict=True))
            if [blob.shape for blob in other.blobs] != [blob.shape for blob in layer.blobs]:
                raise layer.error(
                    f"{layer.type} has blobs that depend on the size of the image, which is therefore "
                    "that of the prototxt"
                )
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
