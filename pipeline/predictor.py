"""Reads expressions from pictures in Python: one object, loaded once, for images and for moving pictures.

from pipeline.predictor import Predictor

predictor = Predictor()
reading = predictor("photo.jpg")                      # or a URL, bytes, an array, a PIL image, a list of them
print([(face.label, face.probabilities) for face in reading.faces])
"""

import os
from collections.abc import Generator, Sequence
from copy import copy
from dataclasses import replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import ArrayLike

from pipeline.base.onnx_runtime import CPU, check_providers
from pipeline.classifier import model_folder
from pipeline.classifier.calibration import UNCERTAIN
from pipeline.classifier.class_prior import ClassPrior
from pipeline.classifier.model_folder import DEFAULTS, SHIPPED, Classifier, ModelError, ModelFolder
from pipeline.faces.alignment import SIZE, align_face, face_to_frame, whole_image
from pipeline.faces.detector import Detections, Detector, build_detector
from pipeline.faces.landmarks import Landmarker
from pipeline.faces.quality import assess_quality
from pipeline.faces.rotations import detect_turned
from pipeline.faces.tracking import EVERY, FRAME_TIME, Tracker
from pipeline.media.frames import Frame
from pipeline.media.pictures import ORDERS, Picture, Tensor, split_pictures, to_frame
from pipeline.readings import LANDMARKS, Explanation, FaceReading, Reading

NO_FACE = ("none", "whole")
MIN_FACE = 20  # pixels: MTCNN's own; smaller faces carry no expression that 48x48 pixels could show
MIN_MOVING_FACE = 40  # of videos, cameras and streams: a quarter of the detector's work
SMOOTHING = 0.3  # seconds until a change of expression has shown by 1 - 1/e
FORGET = 2.0  # seconds until a face that is gone is no longer smoothed with what it was
BATCH = 64  # pictures that are in memory and read at once
NOWHERE = np.full((len(LANDMARKS), 2), np.nan, np.float32)


class Predictor:
    """A model folder's classifier behind a face detector, both loaded once; several threads may call it at once.

    Args:
        model: a model folder or its name (model_folder.find). None takes those that ship: `accurate` for images, `fast`
            for sessions.
        detector: one of faces.detector.DETECTORS, or a Detector of your own.
        min_face: side in pixels of the smallest face looked for. None is MIN_FACE in images and MIN_MOVING_FACE in
            sessions.
        max_faces: of an image or frame no more are found and read, the largest ones (Reading.more counts the others
            that were seen). None is all. A detector of your own is not held to it.
        detector_model: the file of a YOLO model, or of another YuNet than the one that ships.
        no_face: what an image without a face gives: no faces (`none`), or itself as the only one (`whole`).
        uncertain: a face whose greatest probability is below this is marked so.
        class_prior: how common each label is where the faces come from: `training` (as in the model's training),
            `uniform`, a power between them (0..1), or a share for each label, as {"neutral": 0.7}; labels left out
            share the rest. None is the model's own default.
        views: of each face, whose probabilities are averaged: 1, 2 (with its mirror image) or 10 (four corners, the
            centre, and their mirror images).
        explain: whether each face says where its labels' scores come from (FaceReading.explanation).
        features: whether each face has the net's feature vector (FaceReading.features, Classifier.features).
        rotations: an image without an upright face is turned by one, two and three quarters as well.
        threads: CPU threads that one call uses. With more than one it serves the process that made it: a fork, where
            its threads would not be, raises RuntimeError.
        providers: what runs the nets, the preferred one first: cpu, cuda, tensorrt, openvino, coreml or directml, as
            far as the installed ONNX Runtime has them. The CPU runs what none of them can.

    Raises:
        ModelError: there is no such model, or it takes other faces than alignment makes.
        ClassPriorError, ViewsError: the prior or the views do not fit the model.
        InputError, of which these are: a file of the model or the detector is missing or damaged, or a provider is not
            installed.
    """

    def __init__(
        self,
        model: str | Path | ModelFolder | None = None,
        *,
        detector: str | Detector = "mtcnn",
        min_face: int | None = None,
        max_faces: int | None = None,
        detector_model: Path | None = None,
        no_face: str = "none",
        uncertain: float = UNCERTAIN,
        class_prior: ClassPrior | None = None,
        views: int = 1,
        explain: bool = False,
        features: bool = False,
        rotations: bool = False,
        threads: int = 1,
        providers: str | Sequence[str] = CPU,
    ) -> None:
        if no_face not in NO_FACE:
            raise ValueError(f"no_face {no_face!r} where {' or '.join(NO_FACE)} was expected")
        if not 0 <= uncertain <= 1:
            raise ValueError(f"uncertain {uncertain} where 0 to 1 was expected")
        for name, value in (("min_face", min_face), ("max_faces", max_faces), ("threads", threads)):
            if value is not None and value < 1:
                raise ValueError(f"{name} {value} where at least 1 was expected")
        self._providers = check_providers(providers)
        self.folder = _read_model(DEFAULTS["images"] if model is None else model)
        self._one_model = model is not None or SHIPPED[DEFAULTS["images"]] == SHIPPED[DEFAULTS["moving"]]
        shared = {"threads": threads, "providers": self._providers}
        self._classify: dict[str, Any] = {**shared, "class_prior": class_prior, "views": views}
        self._process = os.getpid() if threads > 1 else None
        self.classifier = Classifier(self.folder, **self._classify)
        if explain:  # what cannot be explained is refused before anything is read
            self.classifier.explain(np.zeros((1, 1, SIZE, SIZE), np.uint8))
        if features:
            self.classifier.features(np.zeros((1, 1, SIZE, SIZE), np.uint8))
        self.labels = self.folder.labels
        self.no_face = no_face
        self.uncertain = uncertain
        self.explain = explain
        self.features = features
        self._rotations = rotations
        self._align = self.folder.preprocessing.faces == "aligned"
        self._options: dict[str, Any] = {**shared, "model": detector_model, "max_faces": max_faces}
        self._named = detector
        self._min_face = min_face
        self.detector = self._build(MIN_FACE)

    def _build(self, min_face: int) -> Detector:
        if not isinstance(self._named, str):
            return self._named
        return build_detector(self._named, min_face=self._min_face or min_face, **self._options)

    @cached_property
    def moving_folder(self) -> ModelFolder:
        """The model that sessions read with."""
        if self._one_model:
            return self.folder
        folder = _read_model(DEFAULTS["moving"])
        if (folder.labels, folder.preprocessing.faces) != (self.folder.labels, self.folder.preprocessing.faces):
            raise ModelError(
                f"{folder.path}: other labels or faces than {self.folder.path}; say which of the models shall read"
            )
        return folder

    @cached_property
    def moving_classifier(self) -> Classifier:
        return self.classifier if self._one_model else Classifier(self.moving_folder, **self._classify)

    @cached_property
    def moving_detector(self) -> Detector:
        """What sessions find faces with."""
        return self.detector if self._min_face else self._build(MIN_MOVING_FACE)

    @cached_property
    def landmarker(self) -> Landmarker:
        return Landmarker(providers=self._providers)

    def explaining(self) -> "Predictor":
        """The same nets, not loaded again, in a Predictor that explains.

        Raises:
            ModelError: the net cannot be explained.
        """
        self.classifier.explain(np.zeros((1, 1, SIZE, SIZE), np.uint8))
        other = copy(self)
        other.explain = True
        return other

    @overload
    def __call__(self, pictures: Picture, *, boxes: ArrayLike | None = None, channels: str = "RGB") -> Reading: ...

    @overload
    def __call__(
        self,
        pictures: list[Any] | tuple[Any, ...] | Generator[Any, Any, Any],
        *,
        boxes: Sequence[ArrayLike] | None = None,
        channels: str = "RGB",
    ) -> list[Reading]: ...

    @overload
    def __call__(self, pictures: np.ndarray | Tensor, *, boxes: Any = None, channels: str = "RGB") -> Any: ...

    def __call__(self, pictures: Any, *, boxes: Any = None, channels: str = "RGB") -> Any:
        """Read a picture, or several together.

        Args:
            pictures: a path; an http(s) URL; an image file as bytes, as a file object, as base64 text or as a data URL;
                a PIL image; an array (H, W) of grey, (H, W, 3) of colours or (H, W, 4) with opacity, which is laid on
                white; or a torch tensor (C, H, W). Arrays and tensors are uint8, or floating-point values: in 0..1 if
                none is above 1, in 0..255 if one is 2 or more. Several are a list, tuple or generator of these, of
                which BATCH are in memory at a time, or a batch: an array (N, H, W, C) or a tensor (N, C, H, W), whose
                values are in one range.
            boxes: faces known beforehand, (n, 4) left, top, right, bottom in pixels, for several pictures a list of
                them; nothing is then looked for.
            channels: the order of an array's or tensor's colours, RGB or BGR (as OpenCV reads).

        Returns:
            A Reading, or a list of them for several pictures, even if these are none.

        Raises:
            SourceError: a picture cannot be read; the message names it.
            FetchError: a URL gives nothing.
            ValueError: an object, array, box or order of channels that is none.
        """
        if channels not in ORDERS:
            raise ValueError(f"channels {channels!r} where {' or '.join(ORDERS)} was expected")
        each = split_pictures(pictures)
        if each is None:
            return self._read_pictures([pictures], None if boxes is None else [boxes], 0, channels)[0]
        readings: list[Reading] = []
        while batch := list(islice(each, BATCH)):
            first = len(readings)
            some = None if boxes is None else boxes[first : first + BATCH]
            readings += self._read_pictures(batch, some, first, channels)
        if boxes is not None and len(boxes) != len(readings):
            raise ValueError(f"boxes of {len(boxes)} pictures where {len(readings)} were given")
        return readings

    def _read_pictures(self, pictures: list[Any], boxes: Any, first: int, channels: str) -> list[Reading]:
        """Pictures of which the first has the number `first`."""
        frames = [to_frame(picture, number, channels) for number, picture in enumerate(pictures, first)]
        if boxes is None:
            return self.read(frames)
        if len(boxes) < len(frames):
            raise ValueError(f"boxes of {first + len(boxes)} pictures where at least {first + len(frames)} were given")
        found = [_given(frame, each) for frame, each in zip(frames, boxes, strict=True)]
        return self.read_detections(frames, found, "given")

    def read(self, frames: Sequence[Frame]) -> list[Reading]:
        """Find and read the faces of frames together; what is read in one does not depend on the others."""
        self.check_process()
        found = self.detector.detect([frame.image for frame in frames])
        if self._rotations:
            found = [
                each if len(each) else detect_turned(self.detector, self.landmarker, frame.image)
                for frame, each in zip(frames, found, strict=True)
            ]
        return self.read_detections(frames, found, "found")

    def session(self, *, every: float = EVERY) -> "Session":
        """Read one moving picture frame by frame. every: seconds from one full detection to the next, 0 to under 1."""
        return Session(self, Tracker(self.moving_detector, self.landmarker, every=every))

    def read_detections(
        self,
        frames: Sequence[Frame],
        found: Sequence[Detections],
        status: str,
        tracks: Sequence[np.ndarray] | None = None,
        *,
        explain: bool = False,
    ) -> list[Reading]:
        """Read faces that were found already. tracks: of each frame the numbers (n,) of its faces, in a session.

        explain: whether they are explained even if this Predictor does not explain.
        """
        self.check_process()
        crops: list[np.ndarray] = []
        origins: list[tuple[tuple[int, ...], np.ndarray, np.ndarray]] = []  # of each crop, what face_to_frame takes
        classifier = self.classifier if tracks is None else self.moving_classifier
        faces: list[list[FaceReading]] = [[] for _ in frames]
        for number, (frame, detections) in enumerate(zip(frames, self._with_landmarks(frames, found), strict=True)):
            reasons = assess_quality(detections, frame.image.shape)
            for index in detections.by_size():
                box, landmarks = detections.boxes[index], detections.landmarks[index]
                points = landmarks if self._align else NOWHERE
                crops.append(align_face(frame.image, box, points))
                origins.append((frame.image.shape, box, points))
                score = None if status == "given" else float(detections.scores[index])
                track = None if tracks is None else int(tracks[number][index])
                faces[number].append(
                    _face(box, landmarks, score=score, status=status, track=track, reasons=reasons[index])
                )
            if not faces[number] and self.no_face == "whole" and status == "found":
                height, width = frame.image.shape[:2]
                crops.append(whole_image(frame.image))
                box = np.array([0, 0, width - 1, height - 1], np.float32)
                origins.append((frame.image.shape, box, NOWHERE))
                faces[number].append(_face(box, NOWHERE, score=None, status="whole", track=None, reasons=()))
        faces_seen = np.stack(crops)[:, None] if crops else None
        rows = iter(() if faces_seen is None else classifier(faces_seen))
        if (explain or self.explain) and faces_seen is not None:
            places = (face_to_frame(_seen(classifier), *origin) for origin in origins)
            told = (self._explanation(*pair) for pair in zip(classifier.explain(faces_seen), places, strict=True))
            faces = [[replace(face, explanation=next(told)) for face in found] for found in faces]
        if self.features and faces_seen is not None:
            vectors = iter(classifier.features(faces_seen).tolist())
            faces = [[replace(face, features=tuple(next(vectors))) for face in found] for found in faces]
        return [
            Reading(
                frame.name,
                frame.image.shape[1],
                frame.image.shape[0],
                tuple(self.with_probabilities(face, next(rows)) for face in faces[number]),
                frame.index,
                frame.time,
                detections.more,
            )
            for number, (frame, detections) in enumerate(zip(frames, found, strict=True))
        ]

    def _explanation(self, maps: np.ndarray, corners: np.ndarray) -> Explanation:
        rows = {
            label: tuple(tuple(map(float, row)) for row in values)
            for label, values in zip(self.labels, maps, strict=True)
        }
        return Explanation(rows, tuple((float(x), float(y)) for x, y in corners))

    def with_probabilities(self, face: FaceReading, probabilities: np.ndarray) -> FaceReading:
        """The face with these probabilities (classes,)."""
        return replace(
            face,
            probabilities=dict(zip(self.labels, map(float, probabilities), strict=True)),
            uncertain=bool(probabilities.max() < self.uncertain),
        )

    def check_process(self) -> None:
        """Raise RuntimeError in a fork: ONNX Runtime would wait for ever for threads that only the parent has."""
        if self._process not in (None, os.getpid()):
            raise RuntimeError(
                "this Predictor was made with threads before the process was forked, and they are not in the fork; "
                "make it in each process, or with threads=1, or start processes by `spawn`"
            )

    def _with_landmarks(self, frames: Sequence[Frame], found: Sequence[Detections]) -> Sequence[Detections]:
        """Landmarks for faces that have none, so that they are aligned as in training."""
        if not self._align or not any(np.isnan(detections.landmarks).any() for detections in found):
            return found
        return self.landmarker.complete([frame.image for frame in frames], found)


class Session:
    """One moving picture: a face keeps its number from frame to frame, and its probabilities are smoothed over time.

    Not for several threads at once; any number of sessions may share a Predictor.
    """

    def __init__(self, predictor: Predictor, tracker: Tracker) -> None:
        self._predictor = predictor
        self._tracker = tracker
        self._smooth: dict[int, tuple[float, np.ndarray]] = {}  # of each track its last time and probabilities

    def read(self, frame: Frame, *, explain: bool = False) -> Reading:
        """Read the next frame.

        Args:
            frame: its time is not before that of the last one.
            explain: whether its faces are explained even if the Predictor does not explain.

        Returns:
            Its faces, each with its number (`track`) and smoothed probabilities.

        Raises:
            ModelError: the net cannot be explained.
            RuntimeError: the Predictor was made with threads before this process was forked.
        """
        self._predictor.check_process()
        tracked = self._tracker.update(frame.image, frame.time)
        (reading,) = self._predictor.read_detections(
            [frame], [tracked.detections], "found", [tracked.ids], explain=explain
        )
        now = frame.index * FRAME_TIME if frame.time is None else frame.time
        faces = tuple(face if face.track is None else self._smoothed(face, face.track, now) for face in reading.faces)
        self._smooth = {track: seen for track, seen in self._smooth.items() if now - seen[0] < FORGET}
        return replace(reading, faces=faces)

    def _smoothed(self, face: FaceReading, track: int, now: float) -> FaceReading:
        """Exponential smoothing, whose weight of what was before falls with the time that has passed."""
        probabilities = np.array(list(face.probabilities.values()))
        if track in self._smooth:
            before, smooth = self._smooth[track]
            probabilities += (smooth - probabilities) * np.exp(-max(0, now - before) / SMOOTHING)
        self._smooth[track] = now, probabilities
        return self._predictor.with_probabilities(face, probabilities)


def _seen(classifier: Classifier) -> np.ndarray:
    """The corners (4, 2) of what a net sees of an aligned face: the edges of its outermost pixels."""
    side = classifier.preprocessing.crop_size or SIZE
    low = (SIZE - side) // 2 - 0.5
    return np.array([(low, low), (low + side, low), (low + side, low + side), (low, low + side)])


def _read_model(model: str | Path | ModelFolder) -> ModelFolder:
    """Raises ModelError when the model takes other faces than alignment makes."""
    folder = model if isinstance(model, ModelFolder) else model_folder.read(model_folder.find(model))
    wanted = (folder.preprocessing.channels, folder.preprocessing.height, folder.preprocessing.width)
    if wanted != (1, SIZE, SIZE):
        raise ModelError(
            f"{folder.path}: takes faces of shape {wanted} where alignment makes {(1, SIZE, SIZE)}; train on this "
            "pipeline's own databases"
        )
    return folder


def _face(
    box: np.ndarray,
    landmarks: np.ndarray,
    *,
    score: float | None,
    status: str,
    track: int | None,
    reasons: tuple[str, ...],
) -> FaceReading:
    """A face that the classifier has not yet read; landmarks may be NaN."""
    left, top, right, bottom = map(float, box)
    points = {name: (float(x), float(y)) for name, (x, y) in zip(LANDMARKS, landmarks, strict=True) if not np.isnan(x)}
    return FaceReading((left, top, right, bottom), score, points, {}, status, track, conditions=reasons)


def _given(frame: Frame, boxes: np.ndarray) -> Detections:
    """The caller's boxes, clipped to the frame."""
    boxes = np.asarray(boxes, np.float32)
    if boxes.shape == (0,):  # [] is a picture in which there is no face
        boxes = boxes.reshape(0, 4)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"{frame.name}: boxes of shape {boxes.shape} where (n, 4) was expected")
    height, width = frame.image.shape[:2]
    inside = boxes.clip(0, [width - 1, height - 1] * 2).astype(np.float32)
    if not np.isfinite(boxes).all() or (inside[:, 2:] <= inside[:, :2]).any():
        raise ValueError(
            f"{frame.name}: boxes left, top, right, bottom that meet its {width}x{height} pixels were expected, got "
            f"{boxes.tolist()}"
        )
    return Detections(inside, np.ones(len(boxes), np.float32), np.full((len(boxes), 5, 2), np.nan, np.float32))
