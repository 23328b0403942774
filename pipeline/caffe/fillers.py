"""The seven fillers that give a blob its first values (caffe/filler.hpp)."""

import math
from collections.abc import Callable

import torch

from pipeline.caffe.caffe_pb2 import FillerParameter
from pipeline.caffe.proto import PrototxtError

Fill = Callable[[torch.Tensor, FillerParameter, torch.Generator], torch.Tensor]


def fill(shape: tuple[int, ...], param: FillerParameter, generator: torch.Generator) -> torch.Tensor:
    """Make a float32 blob of `shape` filled as `param` says. Raises PrototxtError for an unknown type."""
    if param.type not in FILLERS:
        raise PrototxtError(f"filler '{param.type}' is unknown; one of {', '.join(sorted(FILLERS))} was expected")
    return FILLERS[param.type](torch.empty(shape), param, generator)


def fan(blob: torch.Tensor, variance_norm: int) -> float:
    """The n that xavier and msra divide by: fan_in = count/shape[0], fan_out = count/shape[1], or their mean."""
    count = blob.numel()
    fan_in = count / blob.shape[0]
    fan_out = count / blob.shape[1] if blob.ndim > 1 else count
    if variance_norm == FillerParameter.FAN_OUT:
        return fan_out
    if variance_norm == FillerParameter.AVERAGE:
        return (fan_in + fan_out) / 2
    return fan_in


def constant(blob: torch.Tensor, param: FillerParameter, generator: torch.Generator) -> torch.Tensor:
    """Every value is `value`."""
    return blob.fill_(param.value)


def uniform(blob: torch.Tensor, param: FillerParameter, generator: torch.Generator) -> torch.Tensor:
    """U(min, max)."""
    return blob.uniform_(param.min, param.max, generator=generator)


def gaussian(blob: torch.Tensor, param: FillerParameter, generator: torch.Generator) -> torch.Tensor:
    """N(mean, std^2); with `sparse`, each value is kept with probability sparse/shape[0] and is 0 otherwise."""
    blob.normal_(param.mean, param.std, generator=generator)
    if param.sparse >= 0:
        blob *= torch.empty_like(blob).bernoulli_(param.sparse / blob.shape[0], generator=generator)
    return blob


def positive_unitball(blob: torch.Tensor, param: FillerParameter, generator: torch.Generator) -> torch.Tensor:
    """U(0, 1), then every row (all axes after the first) divided by its sum."""
    rows = blob.uniform_(generator=generator).view(blob.shape[0], -1)
    rows /= rows.sum(dim=1, keepdim=True)
    return blob


def xavier(blob: torch.Tensor, param: FillerParameter, generator: torch.Generator) -> torch.Tensor:
    """U(-s, s) with s = sqrt(3/n) (Glorot and Bengio, 2010)."""
    scale = math.sqrt(3 / fan(blob, param.variance_norm))
    return blob.uniform_(-scale, scale, generator=generator)


def msra(blob: torch.Tensor, param: FillerParameter, generator: torch.Generator) -> torch.Tensor:
    """N(0, 2/n) (He et al., 2015)."""
    return blob.normal_(0, math.sqrt(2 / fan(blob, param.variance_norm)), generator=generator)


def bilinear(blob: torch.Tensor, param: FillerParameter, generator: torch.Generator) -> torch.Tensor:
    """The same bilinear interpolation kernel in every plane of a (., ., K, K) blob, for upsampling."""
    if blob.ndim != 4 or blob.shape[2] != blob.shape[3]:
        raise PrototxtError(f"filler 'bilinear' needs a 4-D blob of square planes, not {tuple(blob.shape)}")
    size = blob.shape[3]
    half = math.ceil(size / 2)
    centre = (size - 1) / (2 * half)
    ramp = 1 - (torch.arange(size, dtype=torch.float32) / half - centre).abs()
    return blob.copy_(torch.outer(ramp, ramp).expand_as(blob))


FILLERS: dict[str, Fill] = {
    "constant": constant,
    "uniform": uniform,
    "gaussian": gaussian,
    "positive_unitball": positive_unitball,
    "xavier": xavier,
    "msra": msra,
    "bilinear": bilinear,
}
