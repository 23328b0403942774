"""Pictures from files nobody vouches for."""

import numpy as np


def decode(data: bytes, mode: int) -> np.ndarray | None:
    """Decode a PNG, JPEG or other picture: (H, W[, C]) in OpenCV's channel order, as `mode`, a cv2.IMREAD_ flag, says.

    None where `data` is empty, no picture that OpenCV reads, or one of more than its limit of 2^30 pixels.
    """
    import cv2  # slow to import, and most readers of databases decode nothing

    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), mode) if data else None
    except cv2.error:
        return None
