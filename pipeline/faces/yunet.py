"""YuNet by OpenCV's FaceDetectorYN (Wu, Peng, Yu: YuNet: A Tiny Millisecond-level Face Detector, 2023)."""

import threading
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from pipeline.base.errors import InputError
from pipeline.base.onnx_file import read_onnx
from pipeline.base.onnx_runtime import CPU
from pipeline.faces.boxes import clip, sides
from pipeline.faces.detector import MODEL_SOURCES, Detections, check_images

SCORE = 0.6  # of a face
OVERLAP = 0.3  # of two boxes over which they are one face: OpenCV's own
CANDIDATES = 5000  # before overlapping ones go: OpenCV's own
SMALLEST = 14  # pixels, as the net sees it; it was trained on 10 to 300, and finds two thirds more of 14 than of 10
MAX_SIDE = 640  # of the image as the net sees it, beyond which a face that fills it is larger than those


class YuNet:
    """OpenCV's FaceDetectorYN.

    model: an ONNX file with the outputs of OpenCV's own. min_face: side in pixels of the smallest face looked for:
    images are made as small as it allows, and no larger than MAX_SIDE. threads, providers: taken for the sake of the
    other detectors; OpenCV's own setting, cv2.setNumThreads, rules. Several threads may call detect at once, each with
    a net of its own, as OpenCV's are not to be shared. Raises InputError when the file is not such a model.
    """

    def __init__(
        self,
        *,
        model: Path,
        min_face: int = 20,
        max_faces: int | None = None,
        threads: int = 1,
        providers: Sequence[str] = CPU,
    ) -> None:
        self.max_faces = max_faces
        self.min_face = min_face
        self._model = model
        self._data = np.frombuffer(read_onnx(model), np.uint8)
        self._own = threading.local()
        self.detect([np.zeros((64, 64, 3), np.uint8)])  # reports what is no model now and not at the first image

    def detect(self, images: Sequence[np.ndarray]) -> list[Detections]:
        """Find the faces in each of the images, (H, W, 3) uint8 RGB, the best score first."""
        check_images(images)
        return [self._detect(image).largest(self.max_faces) for image in images]

    def _detect(self, image: np.ndarray) -> Detections:
        height, width = image.shape[:2]
        scale = min(1, SMALLEST / self.min_face, MAX_SIDE / max(height, width))
        size = max(1, round(width * scale)), max(1, round(height * scale))
        small = cv2.resize(image, size, interpolation=cv2.INTER_AREA) if scale < 1 else image
        try:
            if not hasattr(self._own, "net"):
                self._own.net = cv2.FaceDetectorYN.create(
                    "onnx", self._data, np.empty(0, np.uint8), size, SCORE, OVERLAP, CANDIDATES
                )
            self._own.net.setInputSize(size)
            faces = self._own.net.detect(cv2.cvtColor(small, cv2.COLOR_RGB2BGR))[1]
        except (cv2.error, SystemError) as error:
            reason = " ".join(str(error).split())
            raise InputError(
                f"{self._model}: not a model that OpenCV's FaceDetectorYN runs; {MODEL_SOURCES['yunet']} was expected "
                f"({reason})"
            ) from None
        if faces is None:
            return Detections.none()
        # A row is left, top, width, height, the landmarks in LANDMARKS' order, and the score.
        faces = faces[np.argsort(-faces[:, 14], kind="stable")].astype(np.float64)
        steps = np.array([width, height]) / size
        corner = faces[:, :2] * steps
        opposite = (faces[:, :2] + faces[:, 2:4]) * steps - 1
        boxes = clip(np.concatenate([corner, np.maximum(corner, opposite)], axis=1), image.shape)
        landmarks = (faces[:, 4:14].reshape(-1, 5, 2) + 0.5) * steps - 0.5
        large = sides(boxes).max(axis=1) >= self.min_face
        return Detections(
            boxes[large].astype(np.float32),
            faces[large, 14].clip(0, 1).astype(np.float32),
            landmarks[large].astype(np.float32),
        )
