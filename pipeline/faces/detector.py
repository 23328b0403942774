"""What a face detector gives, and the detectors by name."""

import pkgutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

LANDMARKS = ("left_eye", "right_eye", "nose", "mouth_left", "mouth_right")  # left is the picture's left


@dataclass(frozen=True, eq=False)
class Detections:
    """The n faces found in one image, in pixels; (0, 0) is the centre of its top left pixel.

    boxes: (n, 4) left, top, right, bottom. scores: (n,) in 0..1. landmarks: (n, 5, 2) x and y in LANDMARKS' order,
    NaN from a detector that finds none. All float32. Raises ValueError when they do not fit together.
    """

    boxes: np.ndarray
    scores: np.ndarray
    landmarks: np.ndarray

    def __post_init__(self) -> None:
        count = len(self.scores)
        for name, shape in (("boxes", (count, 4)), ("scores", (count,)), ("landmarks", (count, len(LANDMARKS), 2))):
            array = getattr(self, name)
            if array.shape != shape or array.dtype != np.float32:
                raise ValueError(f"{name}: {array.dtype} {array.shape} where float32 {shape} was expected")
        if not np.isfinite(self.boxes).all() or (self.boxes[:, 2:] < self.boxes[:, :2]).any():
            raise ValueError("boxes: left <= right and top <= bottom were expected")
        if not ((self.scores >= 0) & (self.scores <= 1)).all():
            raise ValueError("scores: values in 0..1 were expected")

    @classmethod
    def none(cls) -> "Detections":
        """No face at all."""
        return cls(np.empty((0, 4), np.float32), np.empty(0, np.float32),
                   np.empty((0, len(LANDMARKS), 2), np.float32))

    def __len__(self) -> int:
        return len(self.scores)

    def by_size(self) -> np.ndarray:
        """Indices of the faces from the largest box to the smallest; of equals, the better score comes first."""
        areas = np.prod(self.boxes[:, 2:] - self.boxes[:, :2], axis=1)
        return np.lexsort((-self.scores, -areas))


class Detector(Protocol):
    """Finds the faces in images of any sizes: each (H, W, 3) uint8, RGB. Gives one Detections an image, in order.

    What is found in an image does not depend on the others.
    """

    def detect(self, images: Sequence[np.ndarray]) -> list[Detections]: ...


# Classes by the name that commands and settings know; each is imported, with what it needs, when it is asked for.
DETECTORS = {
    "mtcnn": "pipeline.faces.mtcnn:Mtcnn",
    "none": "pipeline.faces.detector:WholeImage",
}


def build_detector(name: str, **options: Any) -> Detector:
    """The detector called `name` in DETECTORS. All take the options min_face, in pixels, and threads."""
    detector: Detector = pkgutil.resolve_name(DETECTORS[name])(**options)
    return detector


def check_images(images: Sequence[np.ndarray]) -> None:
    """Raise ValueError unless every image is (H, W, 3) uint8."""
    for index, image in enumerate(images):
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise ValueError(f"image {index}: {image.dtype} {image.shape} where uint8 (H, W, 3), RGB, was expected")


class WholeImage:
    """Takes every image for one face, whatever the options: its box is the image, its score 1; it has no landmarks."""

    def __init__(self, *, min_face: int = 1, threads: int = 1) -> None:
        pass

    def detect(self, images: Sequence[np.ndarray]) -> list[Detections]:
        check_images(images)
        landmarks = np.full((1, len(LANDMARKS), 2), np.nan, np.float32)
        return [
            Detections(np.array([[0, 0, image.shape[1] - 1, image.shape[0] - 1]], np.float32),
                       np.ones(1, np.float32), landmarks)
            for image in images
        ]
