"""MTCNN and YuNet on the same 500 faces of all sizes: how many each finds, and how long it takes.

    python benchmarks/detectors.py fer2013.csv [--faces 500] [--seed 0]

Each face is one of FER2013's PublicTest, taken in a seeded order. It is laid on a photograph that shows no face, which
is scikit-learn's china.jpg or flower.jpg, 640x427, and its edges fade into it. Its side is 24 to 400 pixels, and as
likely in one octave as in another. A face is found when a box overlaps its square by 40% or more (intersection over
union). Every other box is a false one. The detectors look for faces from 20 pixels, as predict does in images, and from
40, as it does where faces are followed, with one thread. The last column is the median processor time of an image.
"""

import argparse
import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from sklearn.datasets import load_sample_image

from pipeline.data.fer2013_csv import CsvSource
from pipeline.faces.boxes import iou
from pipeline.faces.detector import Detector, build_detector

DETECTORS = ("mtcnn", "yunet")
MIN_FACES = (20, 40)
SIDES = (24, 400)  # pixels
BINS = (24, 40, 80, 160, 401)  # pixels: each column of the table holds the sides from one number to the next
MIN_OVERLAP = 0.4
PHOTOS = ("china.jpg", "flower.jpg")


@dataclass(frozen=True)
class Scene:
    """image: (427, 640, 3) uint8 RGB. box: (4,) left, top, right, bottom of its face in pixels."""

    image: np.ndarray
    box: np.ndarray

    @property
    def side(self) -> float:
        return float(self.box[2] - self.box[0] + 1)


def lay(face: np.ndarray, photo: np.ndarray, side: int, left: int, top: int) -> Scene:
    """Lay a grey face, (48, 48), on the photo; the outer tenth of it fades into the photo."""
    interpolation = cv2.INTER_AREA if side < len(face) else cv2.INTER_CUBIC
    large = cv2.cvtColor(cv2.resize(face, (side, side), interpolation=interpolation), cv2.COLOR_GRAY2RGB)
    ramp = np.clip(np.minimum(np.arange(side) + 0.5, side - 0.5 - np.arange(side)) / (0.1 * side), 0, 1)
    opacity = np.minimum.outer(ramp, ramp)[:, :, np.newaxis]
    image = photo.copy()
    under = image[top : top + side, left : left + side]
    under[:] = np.rint(opacity * large + (1 - opacity) * under)
    return Scene(image, np.array([left, top, left + side - 1, top + side - 1], np.float32))


def scenes(path: Path, count: int, seed: int) -> Iterator[Scene]:
    """As many scenes, each with one face, in an order that the seed gives."""
    random = np.random.default_rng(seed)
    source = CsvSource(path)
    faces = [image.pixels for batch in source.batches() for image in batch() if image.usage == "PublicTest"]
    photos = [np.array(load_sample_image(name)) for name in PHOTOS]
    for index in random.permutation(len(faces))[:count]:
        photo = photos[random.integers(len(photos))]
        side = round(np.exp(random.uniform(*np.log(SIDES))))
        top, left = (int(random.integers(0, length - side + 1)) for length in photo.shape[:2])
        yield lay(faces[index], photo, side, left, top)


def measure(detector: Detector, images: list[Scene]) -> tuple[np.ndarray, int, float]:
    """Which faces were found (N,), the false boxes, and the median processor milliseconds of an image."""
    found, false, times = [], 0, []
    for scene in images:
        start = time.process_time()
        boxes = detector.detect([scene.image])[0].boxes
        times.append(1000 * (time.process_time() - start))
        hits = iou(boxes, scene.box[np.newaxis])[:, 0] >= MIN_OVERLAP
        found.append(hits.any())
        false += int((~hits).sum())
    return np.array(found), false, float(np.median(times))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("csv", type=Path)
    parser.add_argument("--faces", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    cv2.setNumThreads(1)
    images = list(scenes(args.csv, args.faces, args.seed))
    places = np.digitize([scene.side for scene in images], BINS) - 1
    columns = [f"{first} to {last - 1}" for first, last in itertools.pairwise(BINS)]
    print(f"| detector | from | faces found | {' | '.join(columns)} pixels | false | ms |")
    print(f"| --- | ---: | ---: |{' ---: |' * (len(columns) + 2)}")
    for name in DETECTORS:
        for min_face in MIN_FACES:
            found, false, milliseconds = measure(build_detector(name, min_face=min_face, threads=1), images)
            shares = [f"{100 * found[places == place].mean():.0f}%" for place in range(len(columns))]
            row = [name, min_face, f"{100 * found.mean():.1f}%", *shares, false, f"{milliseconds:.1f}"]
            print(f"| {' | '.join(map(str, row))} |", flush=True)


if __name__ == "__main__":
    main()
