"""Caffe's layer types, one family a file. Importing this package fills the registry LAYERS."""

from pipeline.caffe.layers import (
    activation,
    arithmetic,
    comparison,
    convolution,
    data,
    elementwise,
    inner_product,
    loss,
    normalization,
    parameter,
    pooling,
    recurrent,
    reduction,
    selection,
    shape,
)
from pipeline.caffe.layers.layer import LAYERS, Layer, LayerError, Shape

__all__ = [
    "LAYERS",
    "Layer",
    "LayerError",
    "Shape",
    "activation",
    "arithmetic",
    "comparison",
    "convolution",
    "data",
    "elementwise",
    "inner_product",
    "loss",
    "normalization",
    "parameter",
    "pooling",
    "recurrent",
    "reduction",
    "selection",
    "shape",
]
