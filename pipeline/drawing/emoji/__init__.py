"""A face for every expression, drawn by this project: <expression>.svg, and rendered from it <expression>.png."""

from functools import lru_cache
from pathlib import Path

import numpy as np

from pipeline.drawing.palette import COLOURS, expression

FOLDER = Path(__file__).parent
UNKNOWN = "unknown"  # the face for labels that are none of the palette's expressions
NAMES = (*COLOURS, UNKNOWN)


def name_of(label: str) -> str:
    """The one of NAMES that stands for a model's label."""
    return expression(label) or UNKNOWN


def picture(name: str, size: int) -> np.ndarray:
    """An emoji of NAMES as (size, size, 4) uint8: red, green and blue times alpha, and alpha."""
    import cv2

    full = _full(name)
    shrink = size < len(full)
    return cv2.resize(full, (size, size), interpolation=cv2.INTER_AREA if shrink else cv2.INTER_LINEAR)


@lru_cache(maxsize=len(NAMES))
def _full(name: str) -> np.ndarray:
    from PIL import Image

    with Image.open(FOLDER / f"{name}.png") as image:
        rgba = np.array(image.convert("RGBA"))
    rgba[..., :3] = np.rint(rgba[..., :3] * (rgba[..., 3:] / 255)).astype(np.uint8)
    return rgba
