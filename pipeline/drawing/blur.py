"""Hides faces so that nobody recognises them."""

from collections.abc import Sequence

import cv2
import numpy as np

MARGIN = 0.3  # of the box's size, hidden around it on every side: hair, ears, chin
CELLS = 8  # across what is hidden, on its longer side: five across the face, too few for any feature
MIN_CELL = 4  # pixels; of a face of a few pixels no more than one or two are left


def hide_faces(image: np.ndarray, boxes: Sequence[tuple[float, float, float, float]]) -> np.ndarray:
    """A copy of a (H, W, 3) image in which coarse squares of the mean colour stand for what the boxes show.

    boxes: left, top, right, bottom in pixels.
    """
    hidden = image.copy()
    for left, top, right, bottom in boxes:
        x, y = MARGIN * (right - left), MARGIN * (bottom - top)
        columns = slice(max(0, int(left - x)), max(0, int(np.ceil(right + x)) + 1))
        rows = slice(max(0, int(top - y)), max(0, int(np.ceil(bottom + y)) + 1))
        part = hidden[rows, columns]
        if not part.size:
            continue
        height, width = part.shape[:2]
        cell = max(MIN_CELL, -(-max(height, width) // CELLS))
        cells = max(1, round(width / cell)), max(1, round(height / cell))
        coarse = cv2.resize(part, cells, interpolation=cv2.INTER_AREA)
        part[:] = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_NEAREST)
    return hidden
