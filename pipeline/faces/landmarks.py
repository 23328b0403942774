"""Five landmarks for boxes of any origin: MTCNN's last two nets, asked about faces that something else has found.

So that a face is aligned as in training whichever detector found it, or whoever drew its box.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from pipeline.base.onnx_runtime import CPU
from pipeline.faces.boxes import adjust, clip, square
from pipeline.faces.detector import Detections, check_images
from pipeline.faces.mtcnn import MODELS, O_SCORE, open_net, place_landmarks, run_on_crops


class Landmarker:
    """R-Net and O-Net on ONNX Runtime, one core a call; several threads may call at once.

    A box is widened to a square and refined by R-Net, as P-Net's proposals are, which is what O-Net expects to see.
    providers: what runs the nets (base.onnx_runtime). Raises InputError when a model is missing or cannot be read.
    """

    def __init__(self, *, models: Path = MODELS, providers: Sequence[str] = CPU) -> None:
        self._r_net, self._o_net = (open_net(models / f"{name}.onnx", providers) for name in ("rnet", "onet"))

    def locate(self, images: Sequence[np.ndarray], boxes: Sequence[np.ndarray]) -> list[Detections]:
        """Look at each of the boxes, (n, 4) an image, in images (H, W, 3) uint8 RGB of any sizes.

        Gives as many faces, in the boxes' order: O-Net's boxes, clipped to the image, and landmarks; the score is
        O-Net's that a face is there at all. O-Net looks twice, the second time at its own box, and its surer answer
        counts: of boxes that are off by an eighth, or half as large again, that mends a third of the errors.
        """
        check_images(images)
        found = []
        for image, given in zip(images, boxes, strict=True):
            first, first_scores, first_landmarks = self.refine(image, given)
            second, second_scores, second_landmarks = self._output(image, square(first))
            surer = second_scores > first_scores
            box = clip(np.where(surer[:, None], second, first), image.shape)
            landmarks = np.where(surer[:, None, None], second_landmarks, first_landmarks)
            scores = np.maximum(first_scores, second_scores)
            found.append(Detections(box.astype(np.float32), scores, landmarks.astype(np.float32)))
        return found

    def complete(self, images: Sequence[np.ndarray], found: Sequence[Detections]) -> list[Detections]:
        """Landmarks for the faces that have none (NaN); boxes and scores stay the detector's.

        Where O-Net is no surer that it sees a face than MTCNN asks of it, there are none still.
        """
        missing = [np.isnan(detections.landmarks).any(axis=(1, 2)) for detections in found]
        boxes = [detections.boxes[which] for detections, which in zip(found, missing, strict=True)]
        completed = []
        for detections, which, seen in zip(found, missing, self.locate(images, boxes), strict=True):
            landmarks = detections.landmarks.copy()
            landmarks[which] = np.where(seen.scores[:, None, None] > O_SCORE, seen.landmarks, np.nan)
            completed.append(replace(detections, landmarks=landmarks))
        return completed

    def refine(self, image: np.ndarray, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """One look at boxes (n, 4) of one image: O-Net's boxes, not clipped, scores (n,) and landmarks (n, 5, 2)."""
        boxes = square(boxes.astype(np.float64))
        (offsets,) = run_on_crops(self._r_net, ["box"], image[None], np.zeros(len(boxes), np.intp), boxes)
        return self._output(image, square(adjust(boxes, offsets)))

    def _output(self, image: np.ndarray, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        names = ["box", "probability", "landmarks"]
        owner = np.zeros(len(boxes), np.intp)
        offsets, probability, points = run_on_crops(self._o_net, names, image[None], owner, boxes)
        landmarks = place_landmarks(boxes, points)
        boxes = adjust(boxes, offsets)
        boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2])
        return boxes, probability[:, 1], landmarks
