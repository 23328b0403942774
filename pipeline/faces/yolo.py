"""YOLO face models of the generations v5 to v11 in ONNX, whose heads are recognised by the shapes of what they give.

Of an input in which the net sees n cells (of 8x8, 16x16 and 32x32 pixels, some nets of 64x64 too) a head gives

    yolov5, yolov7             (1, 3n, 5 + classes)     centre, width, height, objectness, classes
    yolov5-face                (1, 3n, 16)              ..., objectness, five x and y, class
    yolov7-face                (1, 3n, 21)              ..., objectness, class, five x, y and visibility
    yolov5-face, not decoded   3 of (1, 3, h, w, 16)    the same before sigmoid, grid and anchors; also (1, 48, h, w)
    yolov8 to yolov11          (1, 4 + classes, n)      centre, width, height, classes; also (1, n, 4 + classes)
    the same with landmarks    (1, 20, n), (1, 15, n)   ..., class, five x, y and visibility, or five x and y
    with suppression inside    (1, m, 6)                left, top, right, bottom, score, class: yolov10, and exports
    the same with landmarks    (1, m, 21), (1, m, 16)   ..., five x, y and visibility, or five x and y

in pixels of the input. That a net with landmarks has one class tells its rows from those of a net with many.
"""

import ast
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from pipeline.base.errors import InputError
from pipeline.base.onnx_file import read_onnx
from pipeline.base.onnx_runtime import CPU, open_session
from pipeline.faces.boxes import sides
from pipeline.faces.detector import Detections, check_images
from pipeline.readings import LANDMARKS

SIDE = 640  # of the input, where the model leaves it open: what these models are trained with
MAX_SIDE = 4096
GREY = 114  # of the margins about an image: what they were in training
SCORE = 0.4  # of a face; what these models give less is mostly tiny or blurred
OVERLAP = 0.45  # of two boxes over which they are one face: Ultralytics' own
MAX_CLASSES = 8  # a model of more finds other things than faces
STRIDES = (8, 16, 32, 64)  # of the cells; most nets have the first three
# Of yolov5-face, width and height in pixels for the first three strides: models/yolov5s.yaml of its repository.
ANCHORS = (((4, 5), (8, 10), (13, 16)), ((23, 29), (43, 55), (73, 105)), ((146, 217), (231, 300), (335, 433)))
HEADS = (
    "(1, 3n, 6), (1, 3n, 16), (1, 3n, 21) as of yolov5, yolov5-face and yolov7-face, three (1, 3, h, w, 16) as of "
    "yolov5-face before decoding, (1, 5, n), (1, 20, n), (1, 15, n) as of yolov8 to v11, (1, m, 6), (1, m, 21), "
    "(1, m, 16) with suppression inside"
)


class UnknownHeadError(Exception):
    """Outputs of shapes that no head known here has; the message says what is wrong with them."""


@dataclass(frozen=True, eq=False)
class Candidates:
    """Boxes before suppression, in pixels of the net's input, counted from the corner of the first one.

    corners: (n, 2, 2), left top and right bottom. classes: (n, classes), each class's score. landmarks: (n, 5, 2), NaN
    from a head that has none.
    """

    corners: np.ndarray
    classes: np.ndarray
    landmarks: np.ndarray

    @classmethod
    def of(cls, boxes: np.ndarray, classes: np.ndarray, points: np.ndarray) -> "Candidates":
        """boxes: (n, 4) centre, width and height; points: (n, 0), (n, 10) or, with visibility, (n, 15)."""
        centre, half = boxes[:, :2], boxes[:, 2:4] / 2
        return cls(np.stack([centre - half, centre + half], axis=1), classes, _landmarks(points))


def _landmarks(points: np.ndarray) -> np.ndarray:
    count, width = points.shape
    if not width:
        return np.full((count, len(LANDMARKS), 2), np.nan)
    return points.reshape(count, len(LANDMARKS), width // len(LANDMARKS))[:, :, :2]


def candidates(outputs: Sequence[np.ndarray], side: tuple[int, int]) -> Candidates:
    """What a net says of an input of height and width `side`. Raises UnknownHeadError."""
    raw = [output for output in outputs if output.ndim in {4, 5}]
    rows = next((output[0] for output in outputs if output.ndim == 3 and len(output) == 1), None)
    if rows is None:
        return _anchored(_decoded(raw, side))
    cells = [sum(-(-side[0] // stride) * -(-side[1] // stride) for stride in STRIDES[:levels]) for levels in (3, 4)]
    if len(rows) in [3 * count for count in cells]:
        return _anchored(rows)
    if len(rows) in cells:
        return _anchor_free(rows)
    if rows.shape[1] in cells:
        return _anchor_free(rows.T)
    if rows.shape[1] in {6, 16, 21}:
        scores = np.zeros((len(rows), MAX_CLASSES))
        kinds = rows[:, 5].round().astype(int)
        if ((kinds < 0) | (kinds >= MAX_CLASSES)).any():
            raise UnknownHeadError(f"it tells more than {MAX_CLASSES} classes")
        scores[np.arange(len(rows)), kinds] = rows[:, 4]
        return Candidates(rows[:, :4].reshape(-1, 2, 2), scores, _landmarks(rows[:, 6:]))
    raise UnknownHeadError(f"{rows.shape} fits no head with {cells[0]} or {cells[1]} cells")


def _anchor_free(rows: np.ndarray) -> Candidates:
    width = rows.shape[1]
    if width in {15, 20}:
        return Candidates.of(rows, rows[:, 4:5], rows[:, 5:])
    _check_classes(width - 4)
    return Candidates.of(rows, rows[:, 4:], rows[:, :0])


def _anchored(rows: np.ndarray) -> Candidates:
    width, objectness = rows.shape[1], rows[:, 4:5]
    if width == 16:
        return Candidates.of(rows, rows[:, 15:] * objectness, rows[:, 5:15])
    if width == 21:
        return Candidates.of(rows, rows[:, 5:6] * objectness, rows[:, 6:])
    _check_classes(width - 5)
    return Candidates.of(rows, rows[:, 5:] * objectness, rows[:, :0])


def _check_classes(count: int) -> None:
    if not 1 <= count <= MAX_CLASSES:
        raise UnknownHeadError(f"it tells {count} classes where 1 to {MAX_CLASSES} were expected of a face model")


def _decoded(outputs: Sequence[np.ndarray], side: tuple[int, int]) -> np.ndarray:
    """The rows (3n, 16) that yolov5-face makes of its three outputs."""
    rows = []
    for stride, anchors in zip(STRIDES, ANCHORS, strict=False):
        height, width = side[0] // stride, side[1] // stride
        grid = [output for output in outputs if output.shape == (1, 3, height, width, 16)]
        grid += [
            output.reshape(1, 3, 16, height, width).transpose(0, 1, 3, 4, 2)
            for output in outputs
            if output.shape == (1, 48, height, width)
        ]
        if len(grid) != 1 or len(outputs) != len(ANCHORS):
            raise UnknownHeadError("no output has three dimensions")
        values = grid[0][0].astype(np.float64)
        cell = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1)
        anchor = np.array(anchors)[:, None, None]
        sure = 1 / (1 + np.exp(-values[..., [0, 1, 2, 3, 4, 15]]))
        centre = (sure[..., :2] * 2 - 0.5 + cell) * stride
        size = (sure[..., 2:4] * 2) ** 2 * anchor
        points = values[..., 5:15].reshape(*values.shape[:3], 5, 2) * anchor[..., None, :] + (cell * stride)[:, :, None]
        rows.append(
            np.concatenate(
                [centre, size, sure[..., 4:5], points.reshape(*values.shape[:3], 10), sure[..., 5:]], axis=-1
            ).reshape(-1, 16)
        )
    return np.concatenate(rows)


@dataclass(frozen=True)
class Letterbox:
    """An image scaled to width x height, whose top left corner is at left, top of the net's input."""

    left: int
    top: int
    width: int
    height: int

    @classmethod
    def of(cls, image: np.ndarray, side: tuple[int, int]) -> "Letterbox":
        """The largest that fits into `side`, height and width of the input, in its middle."""
        scale = min(side[0] / image.shape[0], side[1] / image.shape[1])
        width, height = (max(1, round(length * scale)) for length in image.shape[1::-1])
        return cls((side[1] - width) // 2, (side[0] - height) // 2, width, height)

    def apply(self, image: np.ndarray, side: tuple[int, int]) -> np.ndarray:
        """The input: (1, 3, H, W) float32 in 0..1."""
        shrinking = self.width < image.shape[1]
        canvas = np.full((*side, 3), GREY, np.uint8)
        canvas[self.top : self.top + self.height, self.left : self.left + self.width] = cv2.resize(
            image, (self.width, self.height), interpolation=cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR
        )
        return np.ascontiguousarray(canvas.transpose(2, 0, 1), np.float32)[None] / 255

    def back(self, points: np.ndarray, image: np.ndarray) -> np.ndarray:
        """Points (..., 2) of the input as points of the image; both count from the first pixel's corner."""
        return (points - (self.left, self.top)) * (image.shape[1] / self.width, image.shape[0] / self.height)


class Yolo:
    """A YOLO face model on ONNX Runtime.

    model: its file. min_face: side in pixels of the smallest face reported. threads: cores that one call uses; several
    threads may call it at once. providers: what runs the model (base.onnx_runtime). Raises InputError when the file is
    no model, or one that does not find faces, or whose head is none of HEADS.
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
        self._session = open_session(read_onnx(model), str(model), providers=providers, threads=threads)
        self._input, self._side, self._type = self._read_input()
        self._faces = self._read_names()
        self._detect(np.full((*self._side, 3), GREY, np.uint8))  # reports now what the model cannot do

    def _read_input(self) -> tuple[str, tuple[int, int], str]:
        """Name, height and width, and numpy's type of the input."""
        inputs = self._session.get_inputs()
        types = {"tensor(float)": "float32", "tensor(float16)": "float16"}
        shape = inputs[0].shape
        if len(inputs) != 1 or len(shape) != 4 or shape[1] not in {3, None, "channels"} or inputs[0].type not in types:
            found = ", ".join(f"{each.name} {each.type} {each.shape}" for each in inputs)
            raise InputError(f"{self._model}: takes {found} where a YOLO model takes one float tensor (1, 3, H, W)")
        height, width = (length if isinstance(length, int) else SIDE for length in shape[2:])
        if not (STRIDES[2] <= height <= MAX_SIDE and STRIDES[2] <= width <= MAX_SIDE):
            raise InputError(
                f"{self._model}: takes images of {width}x{height} where {STRIDES[2]} to {MAX_SIDE} pixels "
                "a side were expected"
            )
        return inputs[0].name, (height, width), types[inputs[0].type]

    def _read_names(self) -> list[int] | None:
        """The classes that are faces, by the names that Ultralytics' exports carry; None where there are no names."""
        text = self._session.get_modelmeta().custom_metadata_map.get("names", "")
        try:
            names = ast.literal_eval(text) if len(text) < 100_000 else None
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return None
        if isinstance(names, list | tuple):
            names = dict(enumerate(names))
        if not isinstance(names, dict) or len(names) < 2:
            return None
        faces = [index for index, name in names.items() if "face" in str(name).lower()]
        if not faces:
            some = ", ".join(str(name) for name in list(names.values())[:5])
            raise InputError(
                f"{self._model}: finds {len(names)} kinds of things ({some}, ...), none of them a face; "
                "give a face model"
            )
        return faces

    def detect(self, images: Sequence[np.ndarray]) -> list[Detections]:
        """Find the faces in each of the images, (H, W, 3) uint8 RGB, the best score first."""
        check_images(images)
        return [self._detect(image).largest(self.max_faces) for image in images]

    def _detect(self, image: np.ndarray) -> Detections:
        letterbox = Letterbox.of(image, self._side)
        found = self._run(letterbox.apply(image, self._side))
        classes = found.classes if self._faces is None else found.classes[:, self._faces]
        scores = classes.max(axis=1)
        sure = (scores >= SCORE) & np.isfinite(found.corners).all(axis=(1, 2))
        limit = np.array(image.shape[1::-1])
        corners = letterbox.back(found.corners[sure], image).clip(0, limit)
        # From the corners of the first and the last pixel to their centres.
        first = np.minimum(corners[:, 0], limit - 1)
        boxes = np.concatenate([first, np.maximum(corners[:, 1] - 1, first)], axis=1)
        scores = scores[sure].clip(0, 1).astype(np.float32)
        landmarks = (letterbox.back(found.landmarks[sure], image) - 0.5).astype(np.float32)
        sizes = sides(boxes)
        rectangles = np.concatenate([boxes[:, :2], sizes], axis=1)
        kept = np.array(cv2.dnn.NMSBoxes(rectangles.tolist(), scores.tolist(), SCORE, OVERLAP), np.intp).reshape(-1)
        kept = kept[sizes[kept].max(axis=1, initial=0) >= self.min_face]
        return Detections(boxes[kept].astype(np.float32), scores[kept], landmarks[kept])

    def _run(self, data: np.ndarray) -> Candidates:
        try:
            outputs = self._session.run(None, {self._input: data.astype(self._type)})
        except Exception as error:  # onnxruntime's errors have no common class of their own
            raise InputError(f"{self._model}: cannot look at an input of {data.shape} ({_line(error)})") from None
        try:
            found = candidates([np.asarray(output, np.float64) for output in outputs], self._side)
            if self._faces is not None and max(self._faces) >= found.classes.shape[1]:
                raise UnknownHeadError("it gives fewer classes than the model names")
        except UnknownHeadError as error:
            shapes = ", ".join(str(np.shape(output)) for output in outputs)
            raise InputError(
                f"{self._model}: a head of shape {shapes} for an input of {self._side[1]}x{self._side[0]} "
                f"is not known ({error}); known are {HEADS}"
            ) from None
        return found


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
