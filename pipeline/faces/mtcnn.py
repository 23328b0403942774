"""MTCNN, three nets in a cascade, over many images at once.

Zhang, Zhang, Li, Qiao: Joint Face Detection and Alignment Using Multitask Cascaded Convolutional Networks, 2016.
Details that the paper leaves open are those of the PyPI package mtcnn 1.0.0, whose weights these are: area resampling,
crops that are grey outside the image, box sizes counted with both borders, and the suppression described below.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import onnxruntime

from pipeline.errors import InputError
from pipeline.faces.detector import Detections, check_images

MODELS = Path(__file__).resolve().parents[2] / "models" / "mtcnn"
WINDOW, STRIDE = 12, 2  # P-Net's, in pixels of the scaled image
PYRAMID_FACTOR = 0.709  # between two scales: about 1/sqrt(2), halving the area
P_SCORE, R_SCORE, O_SCORE = 0.6, 0.7, 0.8
P_SCALE_OVERLAP, OVERLAP = 0.5, 0.7  # within one scale of P-Net; everywhere else
R_SIZE, O_SIZE = 24, 48
MAX_BATCH_PIXELS = 1 << 23  # of the images held as float32 at a time: 100 MB
MAX_BATCH_CROPS = 16  # what O-Net makes of them stays in a core's cache
MAX_PAIRS = 1 << 20


class Mtcnn:
    """The cascade on ONNX Runtime.

    models: folder of pnet.onnx, rnet.onnx and onet.onnx. min_face: side in pixels of the smallest face looked for, 12
    at least. threads: cores that one call of detect uses; several threads may call it at once. Raises InputError when
    a model is missing or cannot be read.
    """

    def __init__(self, *, models: Path = MODELS, min_face: int = 20, threads: int = 2) -> None:
        if min_face < WINDOW:
            raise InputError(f"min_face {min_face} where at least {WINDOW} was expected: MTCNN's window is no smaller")
        self.min_face = min_face
        self.p_net, self.r_net, self.o_net = (_session(models / f"{name}.onnx", threads)
                                              for name in ("pnet", "rnet", "onet"))

    def detect(self, images: Sequence[np.ndarray]) -> list[Detections]:
        """Find the faces in each of the images, (H, W, 3) uint8 RGB of any sizes, the best score first."""
        check_images(images)
        found = [Detections.none()] * len(images)
        by_shape: dict[tuple[int, ...], list[int]] = {}
        for index, image in enumerate(images):
            by_shape.setdefault(image.shape[:2], []).append(index)
        for (height, width), indices in by_shape.items():
            count = max(1, MAX_BATCH_PIXELS // (height * width))
            for start in range(0, len(indices), count):
                batch = indices[start:start + count]
                for index, detections in zip(batch, self._detect([images[index] for index in batch]), strict=True):
                    found[index] = detections
        return found

    def _detect(self, images: list[np.ndarray]) -> list[Detections]:
        """detect() for images of one size."""
        pixels = (np.stack(images).astype(np.float32) - 127.5) / 128  # (N, H, W, 3)
        owner, boxes = self._propose(pixels)
        owner, boxes = self._refine(pixels, owner, boxes)
        owner, boxes, scores, landmarks = self._output(pixels, owner, boxes)
        height, width = pixels.shape[1:3]
        boxes = boxes.clip(0, [width - 1, height - 1] * 2).astype(np.float32)
        bounds = np.searchsorted(owner, np.arange(len(images) + 1))
        return [Detections(boxes[first:last], scores[first:last], landmarks[first:last])
                for first, last in pairwise(bounds)]

    def _propose(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """P-Net over the pyramid. Returns the image number (n,) and the square box (n, 4) of each proposal."""
        owners, boxes, scores, groups = [], [], [], []
        for level, (scale, batch) in enumerate(self._pyramid(pixels)):
            offsets, probability = self.p_net.run(["box", "probability"], {"data": batch})
            face = probability[:, 1]
            owner, y, x = np.nonzero(face > P_SCORE)
            # The package counts a window's pixels from 1 to WINDOW, both included.
            window = np.stack([x, y, x, y], axis=1) * STRIDE + np.array([1, 1, WINDOW, WINDOW])
            owners.append(owner)
            boxes.append((window + offsets[owner, :, y, x] * (WINDOW - 1)) / scale)
            scores.append(face[owner, y, x])
            groups.append(level * len(pixels) + owner)
        if not owners:
            return np.empty(0, np.intp), np.empty((0, 4))
        owner, box, score, group = map(np.concatenate, (owners, boxes, scores, groups))
        kept = suppress(group, box, score, P_SCALE_OVERLAP)
        owner, box, score = owner[kept], box[kept], score[kept]
        kept = suppress(owner, box, score, OVERLAP)
        return owner[kept], _square(box[kept])

    def _pyramid(self, pixels: np.ndarray) -> Iterator[tuple[float, np.ndarray]]:
        """The images scaled so that faces from min_face upwards fill P-Net's window: (N, 3, h, w)."""
        count, height, width, _ = pixels.shape
        levels = round(-np.log(min(height, width) / WINDOW) / np.log(PYRAMID_FACTOR) - 1)
        for scale in WINDOW / self.min_face * PYRAMID_FACTOR ** np.arange(levels):
            size = int(width * scale), int(height * scale)
            if min(size) < WINDOW:
                break
            batch = np.empty((count, *size[::-1], 3), np.float32)
            for pixel, scaled in zip(pixels, batch, strict=True):
                cv2.resize(pixel, size, dst=scaled, interpolation=cv2.INTER_AREA)
            yield scale, np.ascontiguousarray(batch.transpose(0, 3, 1, 2))

    def _refine(self, pixels: np.ndarray, owner: np.ndarray, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """R-Net over the proposals. Returns the image number (n,) and the square box (n, 4) of those that remain."""
        offsets, probability = _run(self.r_net, ["box", "probability"], _crops(pixels, owner, boxes, R_SIZE))
        boxes = _adjust(boxes, offsets)
        sure = probability[:, 1] > R_SCORE
        owner, boxes, scores = owner[sure], boxes[sure], probability[sure, 1]
        kept = suppress(owner, boxes, scores, OVERLAP)
        return owner[kept], _square(boxes[kept])

    def _output(self, pixels: np.ndarray, owner: np.ndarray, boxes: np.ndarray) -> tuple[np.ndarray, ...]:
        """O-Net over what R-Net left. Returns image number (n,), box (n, 4), score (n,) and landmarks (n, 5, 2)."""
        crops = _crops(pixels, owner, boxes, O_SIZE)
        offsets, probability, points = _run(self.o_net, ["box", "probability", "landmarks"], crops)
        size = boxes[:, None, 2:] - boxes[:, None, :2] + 1
        landmarks = boxes[:, None, :2] + points.reshape(-1, 2, 5).transpose(0, 2, 1) * size - 1
        boxes = _adjust(boxes, offsets)
        sure = probability[:, 1] > O_SCORE
        owner, boxes, scores, landmarks = owner[sure], boxes[sure], probability[sure, 1], landmarks[sure]
        kept = suppress(owner, boxes, scores, OVERLAP, of_smaller=True)
        return owner[kept], boxes[kept], scores[kept], landmarks[kept].astype(np.float32)


def _session(path: Path, threads: int) -> onnxruntime.InferenceSession:
    if not path.exists():
        raise InputError(f"{path}: no such file; MTCNN's three nets stand in models/mtcnn of the repository")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Threads that spin while they wait take the cores from whatever else runs: on a busy machine detection then took
    # three times as long.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3  # errors only
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors have no common class of their own
        raise InputError(f"{path}: not a model that ONNX Runtime reads ({error})") from None


def _run(net: onnxruntime.InferenceSession, outputs: list[str], batches: Iterator[np.ndarray]) -> list[np.ndarray]:
    """The net's outputs, (n, ...) each, for the batches one after the other."""
    results = [net.run(outputs, {"data": batch}) for batch in batches]
    return [np.concatenate(result) for result in zip(*results, strict=True)]


def _crops(pixels: np.ndarray, owner: np.ndarray, boxes: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """crop()'s result in batches, one at least."""
    for start in range(0, max(len(boxes), 1), MAX_BATCH_CROPS):
        batch = slice(start, start + MAX_BATCH_CROPS)
        yield crop(pixels, owner[batch], boxes[batch], size)


def crop(pixels: np.ndarray, owner: np.ndarray, boxes: np.ndarray, size: int) -> np.ndarray:
    """Cut boxes (n, 4) out of the images `owner` (n,) of pixels (N, H, W, 3): (n, 3, size, size), zero outside.

    Bilinear, the crop's corner pixels on the box's corners, which are taken relative to the image's size
    (tensorflow's crop_and_resize, as the weights were used).
    """
    count, (height, width) = len(boxes), pixels.shape[1:3]
    extent = np.array([width, height])
    start = boxes[:, :2] * (extent - 1) / extent
    step = (boxes[:, 2:] - boxes[:, :2]) * (extent - 1) / extent / (size - 1)
    at = start[:, None] + step[:, None] * np.arange(size)[:, None]  # (n, size, 2): x of the columns, y of the rows
    inside = (at >= 0) & (at <= extent - 1)
    crops = np.empty((count, size, size, 3), np.float32)
    for index in range(count):
        matrix = np.array([[step[index, 0], 0, start[index, 0]], [0, step[index, 1], start[index, 1]]])
        cv2.warpAffine(pixels[owner[index]], matrix, (size, size), dst=crops[index],
                       flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE)
    crops *= inside[:, :, None, 1, None]
    crops *= inside[:, None, :, 0, None]
    return np.ascontiguousarray(crops.transpose(0, 3, 1, 2))


def suppress(group: np.ndarray, boxes: np.ndarray, scores: np.ndarray, overlap: float, *, of_smaller: bool = False
             ) -> np.ndarray:
    """Non-maximum suppression within groups: indices of the boxes kept, by group, the best score first.

    A box goes when one of its group with a better score overlaps it by more than `overlap`, whether that one is kept
    or not (the usual, greedy form asks only those that are kept). group, scores: (n,); boxes: (n, 4). The overlap is
    the intersection over the union, or over the smaller box.
    """
    order = np.lexsort((-scores, group))
    group, boxes = group[order], boxes[order]
    left, top, right, bottom = boxes.T
    area = (right - left) * (bottom - top)
    rivals = np.arange(len(group)) - np.searchsorted(group, group)  # of each box: those of its group before it
    gone = np.zeros(len(group), bool)
    ends = np.cumsum(rivals)
    start = 0
    while start < len(group):
        # All pairs of a box and a rival at once, as many boxes at a time as make MAX_PAIRS.
        done = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, done + MAX_PAIRS, "right")))
        box = np.repeat(np.arange(start, stop), rivals[start:stop])
        rival = np.arange(len(box)) - np.repeat(ends[start:stop] - done, rivals[start:stop]) + box
        width = np.minimum(right[box], right[rival]) - np.maximum(left[box], left[rival])
        height = np.minimum(bottom[box], bottom[rival]) - np.maximum(top[box], top[rival])
        shared = width.clip(0) * height.clip(0)
        whole = np.minimum(area[box], area[rival]) if of_smaller else area[box] + area[rival] - shared
        gone[box[shared > overlap * whole]] = True
        start = stop
    return order[~gone]


def _square(boxes: np.ndarray) -> np.ndarray:
    """Widen boxes to squares about their centres."""
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    half = (boxes[:, 2:] - boxes[:, :2]).max(axis=1, keepdims=True) / 2
    return np.concatenate([centre - half, centre + half], axis=1)


def _adjust(boxes: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Move each side of the boxes by a net's offsets, which are relative to the box's size."""
    size = boxes[:, 2:] - boxes[:, :2] + 1
    return boxes + offsets * np.concatenate([size, size], axis=1)
