"""OpenCV's Haar cascade for frontal faces (Viola, Jones: Rapid Object Detection using a Boosted Cascade, 2001)."""

import threading
from collections.abc import Sequence

import cv2
import numpy as np

from pipeline.faces.detector import LANDMARKS, Detections, check_images

# Of 445 faces that MTCNN finds, most of them FER2013's, alt2 found 84%, and on 23 photographs without a face one;
# `default`, the best known, found 86%, and ten. Equalising the histogram first gained neither a face.
CASCADE = "haarcascade_frontalface_alt2.xml"
WINDOW = 20  # the cascade's, in pixels
SCALE_FACTOR = 1.1  # between two sizes that are looked for: 1.2 halves the work and loses one face in 25
NEIGHBOURS = 3  # windows that must agree on a face
HALF = 10  # windows that give a score of a half: a face mostly has 30 and seldom under 7, what is none about 4


class Haar:
    """Frontal faces only, without landmarks, fast and with no net.

    min_face: side in pixels of the smallest face looked for; none is smaller than the cascade's window. threads: taken
    for the sake of the other detectors; OpenCV's own setting, cv2.setNumThreads, rules. Several threads may call
    detect at once, each with a cascade of its own, as OpenCV's are not to be shared.
    """

    def __init__(self, *, min_face: int = 20, threads: int = 1) -> None:
        self.min_face = max(min_face, WINDOW)
        self._own = threading.local()

    def detect(self, images: Sequence[np.ndarray]) -> list[Detections]:
        """Find the faces in each of the images, (H, W, 3) uint8 RGB, the best score first.

        The score is n / (n + HALF) for a face that n overlapping windows agree on: it ranks, and is no probability.
        """
        check_images(images)
        return [self._detect(image) for image in images]

    def _detect(self, image: np.ndarray) -> Detections:
        if not hasattr(self._own, "cascade"):
            self._own.cascade = cv2.CascadeClassifier(cv2.data.haarcascades + CASCADE)  # type: ignore[attr-defined]
        boxes, windows = self._own.cascade.detectMultiScale2(
            cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), scaleFactor=SCALE_FACTOR, minNeighbors=NEIGHBOURS,
            minSize=(self.min_face, self.min_face),
        )  # fmt: skip
        if not len(boxes):
            return Detections.none()
        order = np.argsort(-windows, kind="stable")
        left, top, width, height = boxes[order].T
        counts = windows[order].astype(np.float32)
        return Detections(
            np.stack([left, top, left + width - 1, top + height - 1], axis=1).astype(np.float32),
            counts / (counts + HALF),
            np.full((len(boxes), len(LANDMARKS), 2), np.nan, np.float32),
        )
