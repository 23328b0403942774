"""Count a net's parameters and multiply-adds, layer by layer: summary NET_PROTO."""

from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.base.errors import InputError
from pipeline.caffe.layers import Shape
from pipeline.caffe.layers.shape import Split
from pipeline.caffe.net import Net, build_net
from pipeline.caffe.proto.caffe_pb2 import TEST, TRAIN
from pipeline.caffe.tools.flags import FlagParser

PHASES = {"TRAIN": TRAIN, "TEST": TEST}
NUMBERS = ("parameters", "statistics", "multiply_adds")


@dataclass(frozen=True)
class LayerSize:
    """What a layer holds and does.

    tops: their shapes. parameters: values that are learned, those of a blob that layers share in the first of them;
    statistics: values that the layer gathers itself, as BatchNorm does. multiply_adds: of a forward for those shapes.
    """

    name: str
    type: str
    tops: tuple[Shape, ...]
    parameters: int
    statistics: int
    multiply_adds: int


def add_arguments(parser: FlagParser) -> None:
    parser.add_flag("phase", "TEST", "the layers to count: TRAIN or TEST")
    parser.add_argument("net", metavar="NET_PROTO", type=Path, help="the net's prototxt, such as deploy.prototxt")


def run(args: Namespace) -> None:
    """Print a row a layer and their sums."""
    if args.phase not in PHASES:
        raise InputError(f"phase '{args.phase}' where {' or '.join(PHASES)} was expected")
    sizes = layer_sizes(build_net(args.net, PHASES[args.phase]))
    rows = [
        ("layer", "type", "tops", "parameters", "statistics", "multiply-adds"),
        *(
            (size.name, size.type, " ".join("x".join(map(str, shape)) for shape in size.tops), *_numbers([size]))
            for size in sizes
        ),
        ("all", "", "", *_numbers(sizes)),
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        words = [word.ljust(width) for word, width in zip(row[:3], widths, strict=False)]
        numbers = [word.rjust(width) for word, width in zip(row[3:], widths[3:], strict=True)]
        print("  ".join([*words, *numbers]))


def layer_sizes(net: Net) -> list[LayerSize]:
    """The sizes of a net's layers in their order, without the splits that the net inserts."""
    sizes = []
    for layer in net.layers:
        if isinstance(layer, Split):
            continue
        bottoms, tops = ([net.shapes[name] for name in names] for names in (layer.param.bottom, layer.param.top))
        values = sum(learnable.blob.numel() for learnable in net.learnable if learnable.layer == layer.param.name)
        parameters, statistics = (values, 0) if layer.blobs_are_learned else (0, values)
        sizes.append(
            LayerSize(
                layer.param.name, layer.type, tuple(tops), parameters, statistics, layer.multiply_adds(bottoms, tops)
            )
        )
    return sizes


def _numbers(sizes: Sequence[LayerSize]) -> tuple[str, ...]:
    return tuple(f"{sum(getattr(size, name) for size in sizes):,}" for name in NUMBERS)
