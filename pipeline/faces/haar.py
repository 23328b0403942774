"""OpenCV's Haar cascade for frontal faces (Viola, Jones: Rapid Object Detection using a Boosted Cascade, 2001)."""

import threading
from collections.abc import Sequence

import cv2
import numpy as np

from pipeline.base.onnx_runtime import CPU
from pipeline.faces.boxes import clip
from pipeline.faces.detector import Detections, check_images
from pipeline.readings import LANDMARKS

# Of 445 faces that MTCNN finds, most of them FER2013's, alt2 found 84%, and on 23 photographs without a face one;
# `default`, the best known, found 86%, and ten. Equalising the histogram first gained neither a face.
CASCADE = "haarcascade_frontalface_alt2.xml"
WINDOW = 20  # the cascade's, in pixels
SCALE_FACTOR = 1.1  # between two sizes that are looked for: 1.2 halves the work and loses one face in 25
NEIGHBOURS = 3  # windows that must agree on a face
# Side that the smallest face is shrunk to, in pixels: of windows up to 40 pixels OpenCV looks at every other one each
# way. That saves a third of the work from faces of 50 pixels; as there are fewer windows, fewer need agree. Of 360
# FER2013 faces of 56 to 150 pixels 271 were found so, and 283 without, with 11 and 8 false ones.
SHRUNK = 30
SHRUNK_NEIGHBOURS = 2
HALF = 10  # windows that give a score of a half: a face mostly has 30 and seldom under 7, what is none about 4


class Haar:
    """Frontal faces only, without landmarks, fast and with no net.

    min_face: side in pixels of the smallest face looked for; none is smaller than the cascade's window. threads,
    providers: taken for the sake of the other detectors; OpenCV's own setting, cv2.setNumThreads, rules. Several
    threads may call detect at once, each with a cascade of its own, as OpenCV's are not to be shared.
    """

    def __init__(
        self,
        *,
        min_face: int = 20,
        max_faces: int | None = None,
        threads: int = 1,
        providers: Sequence[str] = CPU,
    ) -> None:
        self.max_faces = max_faces
        self.min_face = max(min_face, WINDOW)
        self._own = threading.local()

    def detect(self, images: Sequence[np.ndarray]) -> list[Detections]:
        """Find the faces in each of the images, (H, W, 3) uint8 RGB, the best score first.

        The score is n / (n + HALF) for a face that n overlapping windows agree on: it ranks, and is no probability.
        """
        check_images(images)
        return [self._detect(image).largest(self.max_faces) for image in images]

    def _detect(self, image: np.ndarray) -> Detections:
        if not hasattr(self._own, "cascade"):
            self._own.cascade = cv2.CascadeClassifier(cv2.data.haarcascades + CASCADE)  # type: ignore[attr-defined]
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        height, width = grey.shape
        factor = max(1.0, self.min_face / SHRUNK)
        if factor > 1:
            size = max(1, round(width / factor)), max(1, round(height / factor))
            grey = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
        least = round(self.min_face / factor)
        boxes, windows = self._own.cascade.detectMultiScale2(
            grey,
            scaleFactor=SCALE_FACTOR,
            minNeighbors=SHRUNK_NEIGHBOURS if factor > 1 else NEIGHBOURS,
            minSize=(least, least),
        )
        if not len(boxes):
            return Detections.none()
        order = np.argsort(-windows, kind="stable")
        left, top, wide, high = np.rint(boxes[order].T * factor)
        corners = np.stack([left, top, left + wide - 1, top + high - 1], axis=1)
        counts = windows[order].astype(np.float32)
        return Detections(
            clip(corners, image.shape).astype(np.float32),
            counts / (counts + HALF),
            np.full((len(boxes), len(LANDMARKS), 2), np.nan, np.float32),
        )
