"""Faces in images that lie on their side or stand on their head: detectors find upright ones."""

import numpy as np

from pipeline.faces.detector import Detections, Detector
from pipeline.faces.landmarks import Landmarker


def detect_turned(detector: Detector, landmarker: Landmarker, image: np.ndarray) -> Detections:
    """The faces in an image, (H, W, 3) uint8 RGB, of that of its three other orientations in which they are surest.

    Boxes and landmarks are those in the image as it is; faces without landmarks get them while they are upright.
    """
    best, sure = Detections.none(), 0.0
    for quarters in (1, 2, 3):
        turned = np.ascontiguousarray(np.rot90(image, quarters))
        found = landmarker.complete([turned], detector.detect([turned]))[0]
        if float(found.scores.sum()) > sure:
            best, sure = _turned_back(found, quarters, image.shape[1], image.shape[0]), float(found.scores.sum())
    return best


def _turned_back(found: Detections, quarters: int, width: int, height: int) -> Detections:
    """Places in an image of width x height that np.rot90 turned by so many quarters, in the image before that."""

    def back(points: np.ndarray) -> np.ndarray:
        x, y = points[..., 0], points[..., 1]
        places = {1: (width - 1 - y, x), 2: (width - 1 - x, height - 1 - y), 3: (y, height - 1 - x)}
        return np.stack(places[quarters], axis=-1).astype(np.float32)

    corners = back(found.boxes.reshape(-1, 2, 2))
    boxes = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
    return Detections(boxes, found.scores, back(found.landmarks), found.more)
