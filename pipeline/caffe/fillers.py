"""The seven fillers that give a blob its first values (caffe/filler.hpp)."""

import math
from collections.abc import Callable

import torch

from pipeline.caffe.proto.caffe_pb2 import FillerParameter
from pipeline.caffe.proto.files import PrototxtError

Fill = Callable[[torch.Tensor, FillerParameter, torch.Generator], torch.Tensor]


def fill(shape: tuple[int, ...], param: FillerParameter, generator: torch.Generator) -> torch.Tensor:
    """Make a float32 blob of `shape` filled as `param` says. Raises PrototxtError as check_filler() does."""
    check_filler(shape, param)
    return FILLERS[param.type](torch.empty(shape), param, generator)


def check_filler(shape: tuple[int, ...], param: FillerParameter) -> None:
    """Raise PrototxtError for a filler of unknown type, with impossible numbers, or that does not suit the shape."""
    if param.type not in FILLERS:
        raise PrototxtError(f"filler '{param.type}' is unknown; one of {', '.join(sorted(FILLERS))} was expected")
    if param.type == "uniform" and not -math.inf < param.min <= param.max < math.inf:
        raise PrototxtError(
            f"filler 'uniform' from min {param.min:g} to max {param.max:g} where the first may not be above the second"
        )
    if param.type == "gaussian" and not 0 <= param.std < math.inf:
        raise PrototxtError(f"filler 'gaussian' with std {param.std:g} where at least 0 was expected")
    if param.type == "gaussian" and param.sparse > (shape[0] if shape else 1):
        raise PrototxtError(
            f"filler 'gaussian' with sparse {param.sparse} where at most {shape[0] if shape else 1}, "
            "the size of the blob's first axis, was expected"
        )
    if param.type in ("xavier", "msra") and not math.prod(shape):
        raise PrototxtError(f"filler '{param.type}' for a blob of shape {shape}, which has no values")
    if param.type == "bilinear" and (len(shape) != 4 or shape[2] != shape[3]):
        raise PrototxtError(f"filler 'bilinear' needs a 4-D blob of square planes, not {shape}")


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
