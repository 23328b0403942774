"""What a face detector gives, and the detectors by name."""

import pkgutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from pipeline.base.errors import InputError
from pipeline.base.onnx_runtime import CPU
from pipeline.readings import LANDMARKS


@dataclass(frozen=True, eq=False)
class Detections:
    """The n faces found in one image, in pixels; (0, 0) is the centre of its top left pixel.

    boxes: (n, 4) left, top, right, bottom. scores: (n,) in 0..1. landmarks: (n, 5, 2) x and y in LANDMARKS' order,
    NaN from a detector that finds none. All float32. Raises ValueError when they do not fit together.
    """

    boxes: np.ndarray
    scores: np.ndarray
    landmarks: np.ndarray
    more: int = 0  # faces that were found and left out

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
        return cls(np.empty((0, 4), np.float32), np.empty(0, np.float32), np.empty((0, len(LANDMARKS), 2), np.float32))

    def __len__(self) -> int:
        return len(self.scores)

    def by_size(self) -> np.ndarray:
        """Indices of the faces from the largest box to the smallest; of equals, the better score comes first."""
        areas = np.prod(self.boxes[:, 2:] - self.boxes[:, :2], axis=1)
        return np.lexsort((-self.scores, -areas))

    def largest(self, count: int | None) -> "Detections":
        """The `count` largest faces in the order in which they are, the others counted in `more`; None for all."""
        if count is None or len(self) <= count:
            return self
        kept = np.sort(self.by_size()[:count])
        return Detections(self.boxes[kept], self.scores[kept], self.landmarks[kept], self.more + len(self) - count)


class Detector(Protocol):
    """Finds the faces in images of any sizes: each (H, W, 3) uint8, RGB. Gives one Detections an image, in order.

    What is found in an image does not depend on the others.
    """

    def detect(self, images: Sequence[np.ndarray]) -> list[Detections]: ...


# Classes by the name that commands and settings know; each is imported, with what it needs, when it is asked for.
DETECTORS = {
    "haar": "pipeline.faces.haar:Haar",
    "mtcnn": "pipeline.faces.mtcnn:Mtcnn",
    "none": "pipeline.faces.detector:WholeImage",
    "yolo": "pipeline.faces.yolo:Yolo",
    "yunet": "pipeline.faces.yunet:YuNet",
}
# Those that take the file of a model, and where the user finds one.
MODEL_SOURCES = {
    "yolo": "a YOLO face model, v5 to v11, exported to ONNX, as deepcam-cn/yolov5-face, derronqi/yolov7-face, "
    "derronqi/yolov8-face and akanametov/yolo-face on GitHub publish them",
    "yunet": "face_detection_yunet_2023mar.onnx, as OpenCV's model zoo on GitHub, opencv/opencv_zoo, publishes it",
}
# What is taken where no file is named.
SHIPPED_MODELS = {
    "yunet": Path(__file__).resolve().parents[1] / "weights" / "yunet" / "face_detection_yunet_2023mar.onnx",
}


def build_detector(name: str, *, model: Path | None = None, **options: Any) -> Detector:
    """The detector called `name` in DETECTORS. All take the options min_face, in pixels, max_faces, threads, providers.

    max_faces: of an image no more than so many are found, the largest ones; None for all. providers: what runs its nets
    (base.onnx_runtime), where ONNX Runtime does.

    model: the file of a detector in MODEL_SOURCES; None for the one in SHIPPED_MODELS. Raises InputError when it is
    missing or not wanted, and when there is no such detector.
    """
    if name not in DETECTORS:
        raise InputError(f"detector {name!r} where one of {', '.join(DETECTORS)} was expected")
    if name in MODEL_SOURCES:
        model = model or SHIPPED_MODELS.get(name)
        if model is None:
            raise InputError(f"detector {name} needs the file of a model: {MODEL_SOURCES[name]}")
        if not model.is_file():
            raise InputError(f"{model}: no such file where {name}'s model was expected: {MODEL_SOURCES[name]}")
        options["model"] = model
    elif model is not None:
        raise InputError(f"{model}: {name} takes no model file, only {' and '.join(MODEL_SOURCES)} do")
    detector: Detector = pkgutil.resolve_name(DETECTORS[name])(**options)
    return detector


def check_images(images: Sequence[np.ndarray]) -> None:
    """Raise ValueError unless every image is (H, W, 3) uint8."""
    for index, image in enumerate(images):
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise ValueError(f"image {index}: {image.dtype} {image.shape} where uint8 (H, W, 3), RGB, was expected")


class WholeImage:
    """Takes every image for one face, whatever the options: its box is the image, its score 1; it has no landmarks."""

    def __init__(
        self,
        *,
        min_face: int = 1,
        max_faces: int | None = None,
        threads: int = 1,
        providers: Sequence[str] = CPU,
    ) -> None:
        pass

    def detect(self, images: Sequence[np.ndarray]) -> list[Detections]:
        check_images(images)
        landmarks = np.full((1, len(LANDMARKS), 2), np.nan, np.float32)
        return [
            Detections(
                np.array([[0, 0, image.shape[1] - 1, image.shape[0] - 1]], np.float32),
                np.ones(1, np.float32),
                landmarks,
            )
            for image in images
        ]
