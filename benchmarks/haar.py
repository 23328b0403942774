"""Faces by OpenCV's Haar cascade and their expressions, of one photo, against the PyPI package fer 25.10.3.

    python benchmarks/haar.py [--repeats 5] [--runs 20] [--environment FOLDER]

The photo is scikit-image's astronaut, 512x512; faces from 50 pixels, which is the package's own setting, and its own
quantised net in TensorFlow Lite, which it calls its fastest. The package needs TensorFlow and pkg_resources, so it runs
in an environment of its own, made in FOLDER the first time. Both sides run by turns on two cores, each time in a
process of its own and so many times after a warm-up; the best process of each counts. Both must find the one face in
the same place. The last line is the package's time over ours.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from environments import CORES, keep_to_two_cores, make_environment
from side_by_side import measure, overlap, photo_parser, take_turns

PACKAGES = (
    "tensorflow-cpu==2.21.0",
    "opencv-contrib-python-headless<5",
    "setuptools<81",
    "pandas",
    "requests",
    "tqdm",
    "scikit-image==0.26.0",
)
WITHOUT_TORCH = ("--no-deps", "fer==25.10.3")  # which it asks for, and needs for another detector only
MIN_FACE = 50
MIN_OVERLAP = 0.8  # of two cascades that count on other windows
Read = Callable[[np.ndarray], list[tuple[list[float], dict[str, float]]]]


def ours() -> Read:
    """A function from an RGB photo to its faces' boxes and probabilities."""
    from pipeline.predictor import Predictor

    predictor = Predictor(detector="haar", min_face=MIN_FACE, threads=CORES)
    return lambda photo: [(list(face.box), face.probabilities) for face in predictor(photo).faces]


def peers() -> Read:
    """The same of the package."""
    from fer.fer import FER

    detector = FER(min_face_size=MIN_FACE)

    def corners(box: Any) -> list[float]:
        left, top, width, height = map(float, box)
        return [left, top, left + width - 1, top + height - 1]

    def read(photo: np.ndarray) -> list[tuple[list[float], dict[str, float]]]:
        found = detector.detect_emotions(photo[:, :, ::-1])  # it takes BGR
        return [
            (corners(face["box"]), {name: float(value) for name, value in face["emotions"].items()}) for face in found
        ]

    return read


def main() -> None:
    args = photo_parser(__doc__, "benchmark-fer-25.10.3").parse_args()
    if args.measure:
        side, folder = args.measure
        measure({"ours": ours, "peer": peers}[side](), side, Path(folder))
        return
    keep_to_two_cores()
    pythons = {"peer": make_environment(args.environment, PACKAGES, WITHOUT_TORCH), "ours": Path(sys.executable)}
    seconds, faces = take_turns(__file__, pythons, args.repeats, args.runs)
    for side, found in faces.items():
        print(f"{side}:", "; ".join(f"{max(p, key=p.get)} at {[round(value) for value in box]}" for box, p in found))
    if [len(found) for found in faces.values()] != [1, 1]:
        raise SystemExit("one face was expected of each")
    if overlap(faces["ours"][0][0], faces["peer"][0][0]) < MIN_OVERLAP:
        raise SystemExit("the two did not find the same face")
    print(f"ratio {min(seconds['peer']) / min(seconds['ours']):.2f}")


if __name__ == "__main__":
    main()
