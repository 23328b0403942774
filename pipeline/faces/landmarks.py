"""Five landmarks for boxes of any origin: MTCNN's last two nets, asked about faces that something else has found.

So that a face is aligned as in training whichever detector found it, or whoever drew its box.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime

from pipeline.base.onnx_runtime import CPU
from pipeline.faces.detector import Detections, check_images
from pipeline.faces.mtcnn import MAX_BATCH_CROPS, MODELS, O_SCORE, _adjust, _square, crop, open_net


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
            second, second_scores, second_landmarks = self._output(image, _square(first))
            surer = second_scores > first_scores
            height, width = image.shape[:2]
            box = np.where(surer[:, None], second, first).clip(0, [width - 1, height - 1] * 2)
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
        boxes = _square(boxes.astype(np.float64))
        (offsets,) = self._run(self._r_net, ["box"], image, boxes)
        return self._output(image, _square(_adjust(boxes, offsets)))

    def _output(self, image: np.ndarray, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        offsets, probability, points = self._run(self._o_net, ["box", "probability", "landmarks"], image, boxes)
        size = boxes[:, None, 2:] - boxes[:, None, :2] + 1
        landmarks = boxes[:, None, :2] + points.reshape(-1, 2, 5).transpose(0, 2, 1) * size - 1
        boxes = _adjust(boxes, offsets)
        boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2])
        return boxes, probability[:, 1], landmarks

    def _run(
        self, net: onnxruntime.InferenceSession, outputs: list[str], image: np.ndarray, boxes: np.ndarray
    ) -> list[np.ndarray]:
        """The net's outputs, (n, ...) each, for the crops of the boxes, MAX_BATCH_CROPS at a time."""
        size = net.get_inputs()[0].shape[-1]
        results = []
        for start in range(0, max(len(boxes), 1), MAX_BATCH_CROPS):
            batch = boxes[start : start + MAX_BATCH_CROPS]
            crops = crop(image[None], np.zeros(len(batch), np.intp), batch, size)
            results.append(net.run(outputs, {"data": crops}))
        return [np.concatenate(result) for result in zip(*results, strict=True)]
