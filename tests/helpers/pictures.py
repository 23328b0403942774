"""Pictures that a test's subject wrote."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np


def read_picture(path: Path, flags: int = cv2.IMREAD_COLOR) -> np.ndarray[Any, Any]:
    """Decode a file as cv2.imread does; one that is no picture fails the test."""
    image = cv2.imread(str(path), flags)
    assert image is not None, path
    return image
