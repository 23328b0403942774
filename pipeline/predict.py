"""predict: find the faces in images and read their expressions with a model folder; one line of JSON an image."""

import argparse
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np

from pipeline import model_folder
from pipeline.console import log
from pipeline.errors import InputError
from pipeline.faces.alignment import SIZE, align_face, whole_image
from pipeline.faces.detector import DETECTORS, LANDMARKS, Detector, build_detector
from pipeline.live.frames import Frame
from pipeline.live.readings import FaceReading, Reading
from pipeline.live.sinks import AnnotatedImages, Csv, JsonLines, Sink
from pipeline.live.sources import ImageFiles
from pipeline.model_folder import Classifier, ModelError, ModelFolder
from pipeline.threads import map_ahead

SHIPPED_MODEL = Path(__file__).resolve().parents[1] / "models" / "face_emotion_net"
# Frames read at once: many small ones, or a single large photo, so that memory stays small.
BATCH_FRAMES = 64
BATCH_PIXELS = 1 << 21
NO_FACE = ("none", "whole")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help="an image, a folder of images or a glob pattern")
    parser.add_argument("--model", type=Path, default=SHIPPED_MODEL, help="model folder (default: the one that ships)")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write the lines of JSON here, not to standard output"
    )
    parser.add_argument("--csv", type=Path, metavar="FILE", help="also write a table, a row a face")
    parser.add_argument(
        "--annotated", type=Path, metavar="FOLDER", help="also write the images with the readings drawn"
    )
    parser.add_argument("--detector", choices=sorted(DETECTORS), default="mtcnn",
                        help="none takes every image for one face (default mtcnn)")  # fmt: skip
    parser.add_argument(
        "--no-face",
        choices=NO_FACE,
        default=NO_FACE[0],
        help="an image without a face: has no reading (none), or is read as a whole (whole; default none)",
    )
    parser.add_argument("--threads", type=int, default=2, help="of the processor, to be used (default 2)")


def run(args: argparse.Namespace) -> None:
    predict(args.inputs, args.model, args.json, args.csv, args.annotated, detector=args.detector, no_face=args.no_face,
            threads=args.threads)  # fmt: skip


class Predictor:
    """A model folder's classifier behind a face detector, both loaded once; several threads may call it at once.

    no_face: what an image without a face gives, no faces (`none`) or itself as the only one (`whole`). Raises
    ModelError when the model takes other faces than alignment makes.
    """

    def __init__(self, folder: ModelFolder, detector: Detector, *, no_face: str = "none") -> None:
        wanted = (folder.preprocessing.channels, folder.preprocessing.height, folder.preprocessing.width)
        if wanted != (1, SIZE, SIZE):
            raise ModelError(
                f"{folder.path}: takes faces of shape {wanted} where alignment makes {(1, SIZE, SIZE)}; "
                "train on this pipeline's own databases"
            )
        self.classifier = Classifier(folder)
        self.detector = detector
        self.no_face = no_face
        self.straighten = folder.preprocessing.faces == "aligned"

    def read(self, frames: Sequence[Frame]) -> list[Reading]:
        """Read frames together; what is read in one does not depend on the others."""
        crops: list[np.ndarray] = []
        found: list[list[FaceReading]] = []
        for frame, detections in zip(frames, self.detector.detect([frame.image for frame in frames]), strict=True):
            faces: list[FaceReading] = []
            for index in detections.by_size():
                box, landmarks = detections.boxes[index], detections.landmarks[index]
                given = landmarks if self.straighten else np.full_like(landmarks, np.nan)
                crops.append(align_face(frame.image, box, given))
                faces.append(_face(box, float(detections.scores[index]), landmarks, "found"))
            if not faces and self.no_face == "whole":
                height, width = frame.image.shape[:2]
                crops.append(whole_image(frame.image))
                faces.append(_face(np.array([0, 0, width - 1, height - 1]), None, np.empty((0, 2)), "whole"))
            found.append(faces)
        rows = iter(self.classifier(np.stack(crops)[:, None]) if crops else ())
        labels = self.classifier.labels
        readings = []
        for frame, faces in zip(frames, found, strict=True):
            read = tuple(
                replace(face, probabilities=dict(zip(labels, map(float, next(rows)), strict=True))) for face in faces
            )
            readings.append(Reading(frame.name, frame.image.shape[1], frame.image.shape[0], read))
        return readings


def _face(box: np.ndarray, score: float | None, landmarks: np.ndarray, status: str) -> FaceReading:
    """A face that the classifier has not yet read; landmarks may be NaN, or none at all."""
    left, top, right, bottom = map(float, box)
    points = {name: (float(x), float(y)) for name, (x, y) in zip(LANDMARKS, landmarks, strict=False) if not np.isnan(x)}
    return FaceReading((left, top, right, bottom), score, points, {}, status)


def predict(
    inputs: Sequence[str],
    model: Path,
    json: Path | None = None,
    table: Path | None = None,
    annotated: Path | None = None,
    *,
    detector: str = "mtcnn",
    no_face: str = "none",
    threads: int = 2,
) -> None:
    """Read every image that `inputs` stand for and write the readings out, in the inputs' order.

    json: JSON Lines, None for standard output; table: CSV; annotated: folder of images. Images that cannot be read are
    named and counted, and the rest go on; InputError at the end then says how many they were.
    """
    source = ImageFiles(inputs)
    folder = model_folder.read(model)
    sinks: list[Sink] = [JsonLines(json)]
    if table:
        sinks.append(Csv(table, folder.labels))
    if annotated:
        sinks.append(AnnotatedImages(annotated, source.root))
    predictor = Predictor(folder, build_detector(detector, threads=1), no_face=no_face)
    frames = faces = without = 0
    start = time.perf_counter()
    with ExitStack() as stack:
        for sink in sinks:
            stack.enter_context(sink)
        for frame, reading in _read_all(predictor, source, threads):
            for sink in sinks:
                sink.write(frame, reading)
            frames += 1
            faces += len(reading.faces)
            without += not any(face.status == "found" for face in reading.faces)
    seconds = time.perf_counter() - start
    log.info("%d images, %d faces, %d images without a face, %.2f s, %.1f images/s",
             frames, faces, without, seconds, frames / seconds)  # fmt: skip
    if source.failed:
        raise InputError(f"{source.failed} of {len(source)} images could not be read; they are named above")


def _read_all(predictor: Predictor, frames: Iterable[Frame], threads: int) -> Iterator[tuple[Frame, Reading]]:
    """Every frame with its reading, in order; batches are read by several threads, a core each."""
    frames = iter(frames)
    first = list(islice(frames, 1))  # by itself, so that its line comes soon
    yield from zip(first, predictor.read(first), strict=True)
    for batch, readings in map_ahead(lambda batch: (batch, predictor.read(batch)), _batches(frames), threads):
        yield from zip(batch, readings, strict=True)


def _batches(frames: Iterable[Frame]) -> Iterator[list[Frame]]:
    """Frames in their order, so many at a time as BATCH_FRAMES and BATCH_PIXELS allow, one at least."""
    batch: list[Frame] = []
    pixels = 0
    for frame in frames:
        size = frame.image.shape[0] * frame.image.shape[1]
        if batch and (len(batch) == BATCH_FRAMES or pixels + size > BATCH_PIXELS):
            yield batch
            batch, pixels = [], 0
        batch.append(frame)
        pixels += size
    if batch:
        yield batch
