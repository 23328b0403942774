"""Finding the faces of one photo, MTCNN in full every time, against the PyPI package mtcnn 1.0.0, on two cores.

    python benchmarks/photo.py [--repeats 5] [--runs 20] [--environment FOLDER]

The photo is scikit-image's astronaut, 512x512; faces from 20 pixels, which is the package's own setting. The package
needs TensorFlow, so it runs in an environment of its own, made in FOLDER the first time. Both sides run by turns, each
time in a process of its own and so many times after a warm-up; the best process of each counts. Both must find the same
boxes: as many, of which each overlaps its fellow by 95% or more. The last line is the package's time over ours.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from environments import CORES, keep_to_two_cores, make_environment, run_side

REQUIREMENTS = ("mtcnn==1.0.0", "tensorflow-cpu==2.21.0", "scikit-image==0.26.0")  # the last for its photo
WARM_UP = 3
MIN_FACE = 20
SAME = 0.95


def ours() -> Callable[[np.ndarray], np.ndarray]:
    """A function from an RGB photo to boxes (n, 4)."""
    from pipeline.faces.mtcnn import Mtcnn

    detector = Mtcnn(min_face=MIN_FACE, threads=CORES)
    return lambda photo: detector.detect([photo])[0].boxes


def peers() -> Callable[[np.ndarray], np.ndarray]:
    """The same of the package."""
    from mtcnn import MTCNN

    detector = MTCNN()

    def detect(photo: np.ndarray) -> np.ndarray:
        rows = detector.detect_faces([photo], output_type="numpy", box_format="xyxy", min_face_size=MIN_FACE)
        return rows[:, 1:5]

    return detect


def measure(side: str, folder: Path) -> None:
    """Time one side on folder/photo.npy as often as folder/runs.json says; leave seconds and boxes in SIDE.json."""
    photo = np.load(folder / "photo.npy")
    runs = json.loads((folder / "runs.json").read_text())
    detect = {"ours": ours, "peer": peers}[side]()
    for _ in range(WARM_UP):
        boxes = detect(photo)
    start = time.perf_counter()
    for _ in range(runs):
        detect(photo)
    seconds = (time.perf_counter() - start) / runs
    boxes = boxes[np.lexsort(boxes.T)]
    (folder / f"{side}.json").write_text(json.dumps({"seconds": seconds, "boxes": boxes.tolist()}))


def overlap(a: list[float], b: list[float]) -> float:
    """Intersection over union of two boxes."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--environment", type=Path, default=Path(tempfile.gettempdir()) / "benchmark-mtcnn-1.0.0")
    parser.add_argument("--measure", nargs=2, metavar=("SIDE", "FOLDER"), help="only run one side")
    args = parser.parse_args()
    if args.measure:
        measure(args.measure[0], Path(args.measure[1]))
        return
    keep_to_two_cores()
    sides = {"peer": make_environment(args.environment, REQUIREMENTS), "ours": Path(sys.executable)}
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    boxes: dict[str, list[list[float]]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save = "import sys, numpy, skimage.data; numpy.save(sys.argv[1], skimage.data.astronaut())"
        subprocess.run([sides["peer"], "-c", save, folder / "photo.npy"], check=True)
        (folder / "runs.json").write_text(json.dumps(args.runs))
        for _ in range(args.repeats):
            for side, python in sides.items():
                run_side(python, __file__, side, folder)
                result = json.loads((folder / f"{side}.json").read_text())
                seconds[side].append(result["seconds"])
                boxes[side] = result["boxes"]
                print(f"{side}: {1 / result['seconds']:.1f} photos/s, {result['seconds'] * 1000:.1f} ms each",
                      flush=True)
    if len(boxes["ours"]) != len(boxes["peer"]):
        raise SystemExit(f"{len(boxes['ours'])} faces where the package finds {len(boxes['peer'])}")
    overlaps = [overlap(mine, peers) for mine, peers in zip(boxes["ours"], boxes["peer"], strict=True)]
    print(f"faces: {len(overlaps)}, least overlap with the package's {min(overlaps):.4f}")
    if min(overlaps) < SAME:
        raise SystemExit("the boxes are not the package's")
    print(f"ratio {min(seconds['peer']) / min(seconds['ours']):.2f}")


if __name__ == "__main__":
    main()
