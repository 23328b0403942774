"""Where the pixels of one blob of a NetSpec lie in another, and the Crop that aligns them, as caffe.coord_map.

A place x of a layer's bottom is scale * x + shift in its top, axis by axis.
"""

from typing import Any

import numpy as np

from pipeline.base.errors import InputError
from pipeline.caffe.net_spec import Function, Top, maker

_POINTWISE = (
    "PReLU",
    "ELU",
    "ReLU",
    "AbsVal",
    "BNLL",
    "Dropout",
    "Exp",
    "Log",
    "Power",
    "Sigmoid",
    "TanH",
    "Threshold",
    "Eltwise",
    "BatchNorm",
    "Scale",
    "LRN",
    "Swish",
    "Clip",
    "Bias",
)
_WINDOWS = {"Convolution": "convolution_param", "Pooling": "pooling_param", "Im2col": "convolution_param"}


class MappingError(InputError, RuntimeError):
    """Blobs between which no place can be mapped."""


class CropError(MappingError, AssertionError):
    """Blobs of which one cannot be cropped to the other, or a layer whose kernel cannot be told."""


Mapping = tuple[int | None, Any, Any]  # axis: the last that is no coordinate, None for any; scale; shift


def coord_map(fn: Function) -> Mapping:
    """Where the places of a layer's bottom lie in its top. Raises MappingError for a type that has no such places."""
    if fn.type_name in _WINDOWS:
        axis, stride, kernel, pad = _kernel(fn, _WINDOWS[fn.type_name])
        return axis, 1 / stride, (pad - (kernel - 1) / 2) / stride
    if fn.type_name == "Deconvolution":
        axis, stride, kernel, pad = _kernel(fn, "convolution_param")
        return axis, stride, (kernel - 1) / 2 - pad
    if fn.type_name in _POINTWISE:
        return None, 1, 0
    if fn.type_name == "Crop":
        param = fn.params.get("crop_param", fn.params)
        axis, offset = param.get("axis", 2), param.get("offset", 0)
        return axis - 1, 1, -np.array(offset)
    raise MappingError(f"{fn.type_name} maps no places of its bottom to places of its top one by one")


def _kernel(fn: Function, field: str) -> tuple[int, Any, Any, Any]:
    param = fn.params.get(field, fn.params)
    if any(f"{name}_{axis}" in param for name in ("kernel", "stride", "pad") for axis in "hw"):
        raise CropError(f"{fn.type_name} has kernel_h and the like where kernel_size, stride and pad are read")
    kernel, stride, pad, dilation = (
        np.atleast_1d(param.get(name, default))
        for name, default in (("kernel_size", 1), ("stride", 1), ("pad", 0), ("dilation", 1))
    )
    return param.get("axis", 1), stride, dilation * (kernel - 1) + 1, pad


def compose(outer: Mapping, inner: Mapping) -> Mapping:
    """One mapping after another, `inner` first."""
    (axis_1, scale_1, shift_1), (axis_2, scale_2, shift_2) = outer, inner
    if axis_1 is not None and axis_2 is not None and axis_1 != axis_2:
        raise MappingError(f"layers on axes from {axis_1} and from {axis_2} on do not compose")
    return axis_2 if axis_1 is None else axis_1, scale_1 * scale_2, scale_1 * shift_2 + shift_1


def inverse(mapping: Mapping) -> Mapping:
    """The mapping back."""
    axis, scale, shift = mapping
    return axis, 1 / scale, -shift / scale


def coord_map_from_to(top_from: Top, top_to: Top) -> Mapping:
    """Where the places of `top_from` lie in `top_to`, by way of a blob that is behind both.

    Raises MappingError when there is none, or a layer between them has no such places.
    """
    behind = _behind(top_to)
    for top, mapping in _behind(top_from).items():
        if top in behind:
            return compose(behind[top], inverse(mapping))
    raise MappingError("no blob is behind both, by way of which places could be mapped")


def _behind(top: Top) -> dict[Top, Mapping]:
    """Where the places of every blob that a blob comes from lie in it, the nearest first."""
    found: dict[Top, Mapping] = {top: (None, 1, 0)}
    waiting = [top]
    for reached in waiting:
        inputs = reached.fn.inputs
        for bottom in inputs[:1] if reached.fn.type_name == "Crop" else inputs:
            if bottom not in found:
                found[bottom] = compose(found[reached], coord_map(reached.fn))
                waiting.append(bottom)
    return found


def crop(top_from: Top, top_to: Top) -> Top:
    """The Crop of `top_from` to the size of `top_to`, at the offset where its places lie.

    Raises MappingError when one is scaled against the other, or does not lie whole pixels within it.
    """
    axis, scale, shift = coord_map_from_to(top_from, top_to)
    if np.any(np.asarray(scale) != 1):
        raise CropError(f"one blob is the other scaled by {scale}; only blobs of one scale are cropped")
    if np.any(np.asarray(shift) > 0) or np.any(np.asarray(shift) != np.round(shift)):
        raise CropError(
            f"one blob lies at {-np.asarray(shift)} in the other where whole pixels of at least 0 were "
            "expected; pad the first layer more"
        )
    offset = np.atleast_1d(-np.round(shift).astype(int)).tolist()
    made: Top = maker("Crop")(top_from, top_to, crop_param={"axis": (axis or 0) + 1, "offset": offset})
    return made
