"""Layer types, one family a file. Importing this package fills the registry LAYERS.

CAFFE_LAYERS has those of Caffe alone; the others are extensions that forks of Caffe have.
"""

from collections.abc import Callable
from typing import Any

from pipeline.caffe.layers import (
    activation,
    arithmetic,
    comparison,
    convolution,
    data,
    detection,
    elementwise,
    hdf5,
    image_data,
    inner_product,
    loss,
    normalization,
    parameter,
    pooling,
    python,
    recurrent,
    reduction,
    resizing,
    selection,
    shape,
    window_data,
)
from pipeline.caffe.layers.layer import LAYERS, Layer, LayerError, Shape

CAFFE_LAYERS = {name: kind for name, kind in LAYERS.items() if not kind.fork}

__all__ = [
    "CAFFE_LAYERS",
    "LAYERS",
    "Layer",
    "LayerError",
    "Shape",
    "activation",
    "arithmetic",
    "comparison",
    "convolution",
    "data",
    "detection",
    "elementwise",
    "hdf5",
    "image_data",
    "inner_product",
    "loss",
    "normalization",
    "parameter",
    "pooling",
    "python",
    "recurrent",
    "reduction",
    "resizing",
    "selection",
    "shape",
    "window_data",
]


def __getattr__(name: str) -> Callable[..., Any]:
    """L.Convolution(...) and so on, after `from pipeline.caffe import layers as L`: what NetSpec is made of.

    As in Caffe of any name that a type may have: what no engine knows here may be known where the prototxt goes.
    """
    if name[:1].isupper():
        from pipeline.caffe.net_spec import maker

        return maker(name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'; layer types are {', '.join(sorted(LAYERS))}")


def __dir__() -> list[str]:
    return sorted([*globals(), *LAYERS])
