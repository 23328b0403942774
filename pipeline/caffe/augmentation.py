"""Augmentation of training images on the fly: augmentation_param of transform_param, which Caffe does not have."""

import math
from collections.abc import Sequence

import numpy as np

from pipeline.base.errors import InputError
from pipeline.caffe.proto.caffe_pb2 import AugmentationParameter

# What may be changed, and the range that each change must stay below.
LIMITS = {
    "rotation": 180.0,
    "shift": 1.0,
    "zoom": 1.0,
    "shear": 60.0,
    "brightness": 1.0,
    "contrast": 1.0,
    "blur": 10.0,
    "erasing": 1.0,
}
GEOMETRY = ("rotation", "shift", "zoom", "shear")
SMALLEST_ERASED = 0.02  # share of the area
ERASED_ASPECT = 3.0  # a rectangle is at most this many times as long as it is wide, as in Zhong et al., 2017


class AugmentationError(InputError):
    """An augmentation that cannot be followed: says which change and what was expected."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"augmentation: {reason}")


def check_augmentation(param: AugmentationParameter) -> None:
    """Raise AugmentationError for a range or probability that is impossible."""
    for name, limit in LIMITS.items():
        value, probability = getattr(param, name), getattr(param, f"{name}_probability")
        if not 0 <= value < limit:
            raise AugmentationError(f"{name} {value:g} where at least 0 and less than {limit:g} was expected")
        if not 0 <= probability <= 1:
            raise AugmentationError(f"{name}_probability {probability:g} where 0 to 1 was expected")


def read_augmentation(words: Sequence[str]) -> AugmentationParameter:
    """What words such as rotation=12, erasing=0.2:0.5 (with a probability) and alternate_mirror say.

    Raises AugmentationError for a word that is none or a change that is named twice, and as check_augmentation does.
    """
    param = AugmentationParameter()
    named: set[str] = set()
    for word in words:
        name, _, rest = word.partition("=")
        if name in named:
            raise AugmentationError(f"'{word}': {name} is named twice; give each change once")
        named.add(name)
        value, _, probability = rest.partition(":")
        try:
            if word == "alternate_mirror":
                param.alternate_mirror = True
            elif name in LIMITS:
                setattr(param, name, float(value))
                if probability:
                    setattr(param, f"{name}_probability", float(probability))
            else:
                raise ValueError
        except ValueError:
            raise AugmentationError(
                f"'{word}', where CHANGE=RANGE or CHANGE=RANGE:PROBABILITY was expected, the "
                f"changes being {', '.join(LIMITS)}, or alternate_mirror"
            ) from None
    check_augmentation(param)
    return param


def augment(images: np.ndarray, param: AugmentationParameter, generator: np.random.Generator) -> np.ndarray:
    """Change images (N, C, H, W) of values 0 to 255 at random; return them as float32, still within 0 to 255.

    What lies beyond an image's edges is its mirror image. Rotation, shear, zoom and shift come first, as one
    resampling, then blur, contrast, brightness and erasing.
    """
    count = len(images)

    def drawn(name: str, low: float = -1.0) -> np.ndarray:
        """(N,) changes, uniform in [low, 1] times the range, 0 where an image goes without."""
        changed = generator.random(count) < getattr(param, f"{name}_probability")
        return np.where(changed, generator.uniform(low, 1, count) * getattr(param, name), 0.0)

    result = images.astype(np.float32)  # a copy
    if any(getattr(param, name) for name in GEOMETRY):
        shift_x, shift_y = drawn("shift"), drawn("shift")
        _warp(result, drawn("rotation"), drawn("shear"), drawn("zoom"), np.stack([shift_x, shift_y], axis=1))
    if param.blur:
        _blur(result, drawn("blur", low=0))
    if param.contrast:
        mean = result.mean(axis=(1, 2, 3), keepdims=True)
        result = (result - mean) * (1 + drawn("contrast")[:, None, None, None].astype(np.float32)) + mean
    if param.brightness:
        result += (255 * drawn("brightness"))[:, None, None, None].astype(np.float32)
    result = result.clip(0, 255, out=result)
    if param.erasing:
        _erase(result, drawn("erasing", low=min(1.0, SMALLEST_ERASED / param.erasing)), generator)
    return result


def _warp(images: np.ndarray, rotation: np.ndarray, shear: np.ndarray, zoom: np.ndarray, shift: np.ndarray) -> None:
    """Resample images (N, C, H, W) in place. rotation and shear (N,) degrees, zoom (N,), shift (N, 2) shares."""
    import cv2

    height, width = images.shape[2:]
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    angle, slant, scale = np.radians(rotation), np.tan(np.radians(shear)), 1 + zoom
    cos, sin = np.cos(angle) * scale, np.sin(angle) * scale
    matrices = np.empty((len(images), 2, 3))
    matrices[:, 0, 0], matrices[:, 0, 1] = cos, cos * slant - sin
    matrices[:, 1, 0], matrices[:, 1, 1] = sin, sin * slant + cos
    matrices[:, :, 2] = centre - matrices[:, :, :2] @ centre + shift * (width, height)
    for image, matrix in zip(images, matrices, strict=True):
        for plane in image:
            plane[:] = cv2.warpAffine(plane, matrix, (width, height), borderMode=cv2.BORDER_REFLECT_101)


def _blur(images: np.ndarray, deviations: np.ndarray) -> None:
    """Blur images (N, C, H, W) in place by Gaussians of (N,) standard deviations; 0 leaves an image as it is."""
    import cv2

    for image, deviation in zip(images, deviations, strict=True):
        if deviation > 0.1:  # a narrower one changes no value by a hundredth
            for plane in image:
                cv2.GaussianBlur(plane, (0, 0), deviation, dst=plane, borderType=cv2.BORDER_REFLECT_101)


def _erase(images: np.ndarray, shares: np.ndarray, generator: np.random.Generator) -> None:
    """Lay a rectangle of one grey over images (N, C, H, W) in place, of (N,) shares of the area; 0 lays none."""
    count, _, height, width = images.shape
    aspects = np.exp(generator.uniform(-1, 1, count) * math.log(ERASED_ASPECT))
    tops, lefts, greys = generator.random((3, count))
    for image, share, aspect, top, left, grey in zip(images, shares, aspects, tops, lefts, greys, strict=True):
        if share > 0:
            rows = min(height, round(math.sqrt(share * aspect) * height))
            columns = min(width, round(math.sqrt(share / aspect) * width))
            y, x = int(top * (height - rows + 1)), int(left * (width - columns + 1))
            image[:, y : y + rows, x : x + columns] = 255 * grey
