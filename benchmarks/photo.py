"""Finding the faces of one photo, MTCNN in full every time, against the PyPI package mtcnn 1.0.0, on two cores.

    python benchmarks/photo.py [--repeats 5] [--runs 20] [--environment FOLDER]

The photo is scikit-image's astronaut, 512x512; faces from 20 pixels, which is the package's own setting. The package
needs TensorFlow, so it runs in an environment of its own, made in FOLDER the first time. Both sides run by turns, each
time in a process of its own and so many times after a warm-up; the best process of each counts. Both must find the same
boxes: as many, of which each overlaps its fellow by 95% or more. The last line is the package's time over ours.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from environments import CORES, keep_to_two_cores, make_environment
from side_by_side import measure, overlap, photo_parser, take_turns

REQUIREMENTS = ("mtcnn==1.0.0", "tensorflow-cpu==2.21.0", "scikit-image==0.26.0")  # the last for its photo
MIN_FACE = 20
MIN_OVERLAP = 0.95


def ours() -> Callable[[np.ndarray], list[list[float]]]:
    """A function from an RGB photo to its faces' boxes, in the order of their places."""
    from pipeline.faces.mtcnn import Mtcnn

    detector = Mtcnn(min_face=MIN_FACE, threads=CORES)
    return lambda photo: in_order(detector.detect([photo])[0].boxes)


def peers() -> Callable[[np.ndarray], list[list[float]]]:
    """The same of the package."""
    from mtcnn import MTCNN

    detector = MTCNN()

    def detect(photo: np.ndarray) -> list[list[float]]:
        rows = detector.detect_faces([photo], output_type="numpy", box_format="xyxy", min_face_size=MIN_FACE)
        return in_order(rows[:, 1:5])

    return detect


def in_order(boxes: np.ndarray) -> list[list[float]]:
    ordered: list[list[float]] = boxes[np.lexsort(boxes.T)].tolist()
    return ordered


def main() -> None:
    args = photo_parser(__doc__, "benchmark-mtcnn-1.0.0").parse_args()
    if args.measure:
        side, folder = args.measure
        measure({"ours": ours, "peer": peers}[side](), side, Path(folder))
        return
    keep_to_two_cores()
    pythons = {"peer": make_environment(args.environment, REQUIREMENTS), "ours": Path(sys.executable)}
    seconds, boxes = take_turns(__file__, pythons, args.repeats, args.runs)
    if len(boxes["ours"]) != len(boxes["peer"]):
        raise SystemExit(f"{len(boxes['ours'])} faces where the package finds {len(boxes['peer'])}")
    overlaps = [overlap(mine, peers) for mine, peers in zip(boxes["ours"], boxes["peer"], strict=True)]
    print(f"faces: {len(overlaps)}, least overlap with the package's {min(overlaps):.4f}")
    if min(overlaps) < MIN_OVERLAP:
        raise SystemExit("the boxes are not the package's")
    print(f"ratio {min(seconds['peer']) / min(seconds['ours']):.2f}")


if __name__ == "__main__":
    main()
