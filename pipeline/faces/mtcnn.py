"""MTCNN, three nets in a cascade, over many images at once.

Zhang, Zhang, Li, Qiao: Joint Face Detection and Alignment Using Multitask Cascaded Convolutional Networks, 2016.
Details that the paper leaves open are those of the PyPI package mtcnn 1.0.0, whose weights these are: area resampling,
crops that are grey outside the image, box sizes counted with both borders, and the suppression described below.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
import onnxruntime

from pipeline.base.errors import InputError
from pipeline.base.onnx_file import read_onnx
from pipeline.base.onnx_runtime import CPU, open_session
from pipeline.faces.boxes import adjust, clip, nms, sides, square
from pipeline.faces.detector import Detections, check_images

MODELS = Path(__file__).resolve().parents[1] / "weights" / "mtcnn"
WINDOW, STRIDE = 12, 2  # P-Net's, in pixels of the scaled image
PYRAMID_FACTOR = 0.709  # between two scales: about 1/sqrt(2), halving the area
P_SCORE, R_SCORE, O_SCORE = 0.6, 0.7, 0.8
P_SCALE_OVERLAP, OVERLAP = 0.5, 0.7  # within one scale of P-Net; everywhere else
MAX_BATCH_PIXELS = 1 << 19  # of the images looked at together
MAX_SOURCE_PIXELS = 1 << 20  # of these that exist as float32 at a time: 12 MB
MAX_BAND_PIXELS = 1 << 19  # of a level of the pyramid that P-Net sees at a time: 6 MB, and some 80 MB within P-Net
MIN_BAND_ROWS = 8  # of P-Net's output
MAX_BATCH_CROPS = 16  # what O-Net makes of them stays in a core's cache
# Of one image, for each face that may be found at most: P-Net's proposals at one scale, and what R-Net and O-Net see.
# A face gives five proposals at most of its scales; all pairs of these are compared.
LEVEL_PROPOSALS, R_PROPOSALS, O_PROPOSALS = 20, 20, 10
LEAST_PROPOSALS = 200  # however few faces may be found: what looks like a face at first is mostly none
T = TypeVar("T")
R = TypeVar("R")


class Mtcnn:
    """The cascade on ONNX Runtime.

    models: folder of pnet.onnx, rnet.onnx and onet.onnx. min_face: side in pixels of the smallest face looked for, 12
    at least. max_faces: of an image no more are found, the largest ones, which bounds the work on an image as well;
    None for all. threads: cores that one call of detect uses, which changes nothing in what it finds; several threads
    may call it at once. providers: what runs the nets (base.onnx_runtime). Raises InputError when a model is missing or
    cannot be read.
    """

    def __init__(
        self,
        *,
        models: Path = MODELS,
        min_face: int = 20,
        max_faces: int | None = None,
        threads: int = 2,
        providers: Sequence[str] = CPU,
    ) -> None:
        if min_face < WINDOW:
            raise InputError(f"min_face {min_face} where at least {WINDOW} was expected: MTCNN's window is no smaller")
        self.min_face = min_face
        self.max_faces = max_faces
        nets = [open_net(models / f"{name}.onnx", providers) for name in ("pnet", "rnet", "onet")]
        self.p_net, self.r_net, self.o_net = nets
        # The pieces of the work run side by side, each on one core: a net that shares its layers among cores makes
        # them wait for one another after every layer.
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None

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
                batch = indices[start : start + count]
                pixels = images[batch[0]][None] if len(batch) == 1 else np.stack([images[index] for index in batch])
                for index, detections in zip(batch, self._detect(pixels), strict=True):
                    found[index] = detections
        return found

    def _detect(self, images: np.ndarray) -> list[Detections]:
        """detect() for images of one size: (N, H, W, 3)."""
        owner, boxes = self._propose(images)
        owner, boxes = self._refine(images, owner, boxes)
        owner, boxes, scores, landmarks = self._output(images, owner, boxes)
        boxes = clip(boxes, images.shape[1:3]).astype(np.float32)
        bounds = np.searchsorted(owner, np.arange(len(images) + 1))
        return [
            Detections(boxes[first:last], scores[first:last], landmarks[first:last]).largest(self.max_faces)
            for first, last in pairwise(bounds)
        ]

    def _bounded(self, group: np.ndarray, rank: np.ndarray, per_face: int) -> np.ndarray:
        """Indices of those with the greatest rank in each group, so many for each face, in their order."""
        if self.max_faces is None:
            return np.arange(len(group))
        order = np.lexsort((-rank, group))
        place = np.arange(len(group)) - np.searchsorted(group[order], group[order])
        return np.sort(order[place < max(LEAST_PROPOSALS, per_face * self.max_faces)])

    def _each(self, function: Callable[[T], R], items: Iterable[T]) -> Iterable[R]:
        """Results of `function` in the order of `items`, worked out by as many threads as there may be."""
        return self._pool.map(function, items) if self._pool else map(function, items)

    def _propose(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """P-Net over the pyramid. Returns the image number (n,) and the square box (n, 4) of each proposal."""
        count, height, width, _ = images.shape
        if count * height * width <= MAX_SOURCE_PIXELS:
            images = images.astype(np.float32)  # once for all levels
        bands = pyramid(count, height, width, self.min_face)
        found = list(self._each(lambda band: self._propose_band(images, band), bands))
        if not found:
            return np.empty(0, np.intp), np.empty((0, 4))
        owner, box, score, level = map(np.concatenate, zip(*found, strict=True))
        kept = self._bounded(level * count + owner, score, LEVEL_PROPOSALS)
        owner, box, score, level = owner[kept], box[kept], score[kept], level[kept]
        kept = nms(level * count + owner, box, score, P_SCALE_OVERLAP)
        owner, box, score = owner[kept], box[kept], score[kept]
        kept = nms(owner, box, score, OVERLAP)
        owner, box = owner[kept], box[kept]
        kept = self._bounded(owner, _width(box), R_PROPOSALS)
        return owner[kept], square(box[kept])

    def _propose_band(self, images: np.ndarray, band: "Band") -> tuple[np.ndarray, ...]:
        """P-Net over one band. Returns image number (n,), box (n, 4), score (n,) and the band's level (n,)."""
        batch = _normalise(scale_rows(images, band.width, band.height, band.first, band.last))
        offsets, probability = self.p_net.run(["box", "probability"], {"data": batch})
        face = probability[:, 1]
        owner, y, x = np.nonzero(face > P_SCORE)
        # The package counts a window's pixels from 1 to WINDOW, both included.
        window = np.stack([x, y, x, y], axis=1) * STRIDE + np.array([1, 1, WINDOW, WINDOW])
        window[:, 1::2] += band.first
        boxes = (window + offsets[owner, :, y, x] * (WINDOW - 1)) / band.scale
        return owner, boxes, face[owner, y, x], np.full(len(owner), band.level)

    def _refine(self, images: np.ndarray, owner: np.ndarray, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """R-Net over the proposals. Returns the image number (n,) and the square box (n, 4) of those that remain."""
        offsets, probability = run_on_crops(self.r_net, ["box", "probability"], images, owner, boxes, each=self._each)
        boxes = adjust(boxes, offsets)
        sure = probability[:, 1] > R_SCORE
        owner, boxes, scores = owner[sure], boxes[sure], probability[sure, 1]
        kept = nms(owner, boxes, scores, OVERLAP)
        owner, boxes = owner[kept], boxes[kept]
        kept = self._bounded(owner, _width(boxes), O_PROPOSALS)
        return owner[kept], square(boxes[kept])

    def _output(self, images: np.ndarray, owner: np.ndarray, boxes: np.ndarray) -> tuple[np.ndarray, ...]:
        """O-Net over what R-Net left. Returns image number (n,), box (n, 4), score (n,) and landmarks (n, 5, 2)."""
        names = ["box", "probability", "landmarks"]
        offsets, probability, points = run_on_crops(self.o_net, names, images, owner, boxes, each=self._each)
        landmarks = place_landmarks(boxes, points)
        boxes = adjust(boxes, offsets)
        sure = probability[:, 1] > O_SCORE
        owner, boxes, scores, landmarks = owner[sure], boxes[sure], probability[sure, 1], landmarks[sure]
        kept = nms(owner, boxes, scores, OVERLAP, of_smaller=True)
        return owner[kept], boxes[kept], scores[kept], landmarks[kept].astype(np.float32)


def run_on_crops(
    net: onnxruntime.InferenceSession,
    outputs: list[str],
    images: np.ndarray,
    owner: np.ndarray,
    boxes: np.ndarray,
    *,
    each: Callable[[Callable[[int], Any], Iterable[int]], Iterable[Any]] = map,
) -> list[np.ndarray]:
    """R-Net's or O-Net's outputs, (n, ...) each, for the crops of boxes (n, 4), MAX_BATCH_CROPS at a time.

    owner: (n,), which of the images (N, H, W, 3) each box is in. each: applies a function to items, as map does.
    """
    size = net.get_inputs()[0].shape[-1]

    def run(start: int) -> list[np.ndarray]:
        batch = slice(start, start + MAX_BATCH_CROPS)
        return net.run(outputs, {"data": crop_boxes(images, owner[batch], boxes[batch], size)})

    # Without boxes an empty batch tells the outputs' shapes.
    results = each(run, range(0, max(len(boxes), 1), MAX_BATCH_CROPS))
    return [np.concatenate(result) for result in zip(*results, strict=True)]


def place_landmarks(boxes: np.ndarray, points: np.ndarray) -> np.ndarray:
    """O-Net's five points (n, 10), five x then five y relative to the boxes it saw, as landmarks (n, 5, 2)."""
    return np.asarray(boxes[:, None, :2] + points.reshape(-1, 2, 5).transpose(0, 2, 1) * sides(boxes)[:, None] - 1)


def open_net(path: Path, providers: Sequence[str] = CPU) -> onnxruntime.InferenceSession:
    """A net of pipeline/weights/mtcnn on one core. Raises InputError when the file is missing or cannot be read."""
    if not path.exists():
        raise InputError(f"{path}: no such file; MTCNN's three nets are in pipeline/weights/mtcnn of the repository")
    # A memory pattern would be a plan for every size of image that was ever seen, and all are kept.
    return open_session(read_onnx(path), str(path), providers=providers, enable_mem_pattern=False)


@dataclass(frozen=True)
class Band:
    """Rows first to last (without) of a level of the pyramid, which is the image times `scale`: width x height."""

    level: int
    scale: float
    width: int
    height: int
    first: int
    last: int


def pyramid(count: int, height: int, width: int, min_face: int) -> Iterator[Band]:
    """The levels at which faces from min_face upwards fill P-Net's window, in bands that P-Net sees one at a time.

    count: images of height x width that are scaled together. Bands overlap by what P-Net's window needs, so that each
    of its outputs comes from one band.
    """
    levels = round(-np.log(min(height, width) / WINDOW) / np.log(PYRAMID_FACTOR) - 1)
    for level, scale in enumerate(WINDOW / min_face * PYRAMID_FACTOR ** np.arange(levels)):
        scaled_width, scaled_height = int(width * scale), int(height * scale)
        if min(scaled_width, scaled_height) < WINDOW:
            return
        overlap = WINDOW - STRIDE  # n outputs one below the other see n * STRIDE rows and this many more
        rows = max(MIN_BAND_ROWS, (MAX_BAND_PIXELS // (count * scaled_width) - overlap) // STRIDE)
        for first in range(0, scaled_height - overlap, rows * STRIDE):
            last = min(first + rows * STRIDE + overlap, scaled_height)
            yield Band(level, scale, scaled_width, scaled_height, first, last)


def scale_rows(images: np.ndarray, width: int, height: int, first: int, last: int) -> np.ndarray:
    """Rows first to last (without) of images (N, H, W, 3), uint8 or float32, scaled down to width x height.

    Returns (N, last - first, width, 3) float32 of 0..255. By area: a scaled pixel is the mean of what it covers, parts
    of pixels included.
    """
    count, full_height, full_width, _ = images.shape
    if last - first == height and full_height * full_width <= MAX_SOURCE_PIXELS:
        return np.stack(
            [
                cv2.resize(image.astype(np.float32, copy=False), (width, height), interpolation=cv2.INTER_AREA)
                for image in images
            ]
        )
    # OpenCV has no scaling of a part of an image whose edge lies between pixels: the rows are ours, the columns its.
    step = full_height / height  # rows that a scaled one covers
    piece = min(last - first, max(1, int(MAX_SOURCE_PIXELS / (count * full_width * step))))
    scaled = np.empty((count, last - first, width, 3), np.float32)
    space = np.empty((2, count * piece * full_width * 3), np.float32)
    for start in range(first, last, piece):
        edges = np.arange(start, min(start + piece, last) + 1) * step
        upper, lower = edges[:-1], edges[1:]
        row, end = np.floor(upper).astype(np.intp), np.ceil(lower)
        source = images[:, row[0] : int(end[-1])].astype(np.float32, copy=False)
        rows, part = space[:, : count * len(row) * full_width * 3].reshape(2, count, len(row), full_width, 3)
        rows[:] = 0
        for above in range(int((end - row).max())):
            share = (np.minimum(lower, row + above + 1) - np.maximum(upper, row + above)).clip(0) / step
            np.take(source, row + above - row[0], axis=1, out=part, mode="clip")  # clipped where the share is 0
            part *= share[:, None, None].astype(np.float32)
            rows += part
        columns = cv2.resize(rows.reshape(-1, full_width, 3), (width, count * len(row)), interpolation=cv2.INTER_AREA)
        scaled[:, start - first : start - first + len(row)] = columns.reshape(count, -1, width, 3)
    return scaled


def crop_boxes(images: np.ndarray, owner: np.ndarray, boxes: np.ndarray, size: int) -> np.ndarray:
    """Cut boxes (n, 4) out of the images `owner` (n,) of images (N, H, W, 3) uint8, as the nets take them.

    Returns (n, 3, size, size) float32: (value - 127.5) / 128, zero outside the image. Bilinear, the crop's corner
    pixels on the box's corners, which are taken relative to the image's size (tensorflow's crop_and_resize, as the
    weights were used).
    """
    count, (height, width) = len(boxes), images.shape[1:3]
    extent = np.array([width, height])
    start = boxes[:, :2] * (extent - 1) / extent
    step = (boxes[:, 2:] - boxes[:, :2]) * (extent - 1) / extent / (size - 1)
    at = start[:, None] + step[:, None] * np.arange(size)[:, None]  # (n, size, 2): x of the columns, y of the rows
    inside = (at >= 0) & (at <= extent - 1)
    low = np.floor(at[:, 0]).clip(0, extent - 1).astype(int)
    high = np.floor(at[:, -1]).clip(low, extent - 1).astype(int) + 2
    crops = np.empty((count, size, size, 3), np.float32)
    for index, ((left, top), (right, bottom)) in enumerate(zip(low, high, strict=True)):
        source = images[owner[index], top:bottom, left:right].astype(np.float32)  # no more than the crop is made of
        matrix = np.array([[step[index, 0], 0, start[index, 0] - left], [0, step[index, 1], start[index, 1] - top]])
        cv2.warpAffine(
            source,
            matrix,
            (size, size),
            dst=crops[index],
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
    normalised = _normalise(crops)
    normalised *= inside[:, None, :, None, 1]
    normalised *= inside[:, None, None, :, 0]
    return normalised


def _normalise(pixels: np.ndarray) -> np.ndarray:
    """Pixels (N, H, W, 3) float32 of 0..255, changed in place, as the nets take them: (N, 3, H, W), about -1..1."""
    pixels -= 127.5
    pixels *= 1 / 128
    return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))


def _width(boxes: np.ndarray) -> np.ndarray:
    return boxes[:, 2] - boxes[:, 0]
