"""Finding faces against the PyPI package mtcnn 1.0.0 in its batch mode, on two cores.

    python benchmarks/align.py fer2013.csv[.xz] [--images 2000] [--repeats 3] [--environment FOLDER]

The package needs TensorFlow, so it runs in an environment of its own, made in FOLDER the first time. Both sides find
the faces of the same images, held in memory, in a process of their own, by turns, after a warm-up; the best time of
each counts. Printed too: how far they agree, and the rate of the whole stage (files in, files out). The last line is
the package's time over ours. photo.py compares the two on one photo.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
from environments import CORES, keep_to_two_cores, make_environment, run_side
from photo import REQUIREMENTS

PEER_BATCH = 300  # its fastest
OUR_BATCH = 64  # the stage's
Detect = Callable[[list[np.ndarray]], list[np.ndarray]]


def ours() -> Detect:
    """A function from RGB images to boxes (n, 4) each, in batches as the stage's."""
    from pipeline.base.threads import map_ahead
    from pipeline.faces.mtcnn import Mtcnn

    detector = Mtcnn(threads=1)

    def detect(images: list[np.ndarray]) -> list[np.ndarray]:
        batches = (images[start : start + OUR_BATCH] for start in range(0, len(images), OUR_BATCH))
        return [found.boxes for batch in map_ahead(detector.detect, batches, CORES) for found in batch]

    return detect


def peers() -> Detect:
    """The same of the package."""
    from mtcnn import MTCNN

    detector = MTCNN()

    def detect(images: list[np.ndarray]) -> list[np.ndarray]:
        boxes: list[np.ndarray] = []
        for start in range(0, len(images), PEER_BATCH):
            batch = images[start : start + PEER_BATCH]
            rows = detector.detect_faces(batch, output_type="numpy", box_format="xyxy")
            boxes += [rows[rows[:, 0] == index, 1:5] for index in range(len(batch))]
        return boxes

    return detect


def measure(side: str, folder: Path) -> None:
    """Time one side on folder/images.npy; leave times and boxes in folder/SIDE.json."""
    images = [np.repeat(grey[:, :, None], 3, axis=2) for grey in np.load(folder / "images.npy")]
    detect = {"ours": ours, "peer": peers}[side]()
    detect(images[:PEER_BATCH])
    start, processor = time.perf_counter(), time.process_time()
    boxes = detect(images)
    seconds, processor = time.perf_counter() - start, time.process_time() - processor
    result = {"seconds": seconds, "processor": processor, "boxes": [box.tolist() for box in boxes]}
    (folder / f"{side}.json").write_text(json.dumps(result))


def largest_overlap(ours: list[list[float]], theirs: list[list[float]]) -> float:
    """Intersection over union of the two sides' largest boxes."""

    def area(box: list[float]) -> float:
        return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])

    mine, peers = max(ours, key=area), max(theirs, key=area)
    shared = area([*map(max, mine[:2], peers[:2]), *map(min, mine[2:], peers[2:])])
    return shared / (area(mine) + area(peers) - shared)


def write_images(csv: Path, count: int, folder: Path) -> None:
    """The first images of the CSV as one array, and as a CSV for the stage."""
    from pipeline.data.fer2013_csv import CsvSource

    images = (image for batch in CsvSource(csv).batches() for image in batch())
    chosen = list(islice(images, count))
    np.save(folder / "images.npy", np.stack([image.pixels for image in chosen]))
    with open(folder / "images.csv", "w") as file:
        file.write("emotion,pixels,Usage\n")
        for image in chosen:
            file.write(f"{image.label},{' '.join(map(str, image.pixels.ravel()))},{image.usage}\n")


def stage_rate(folder: Path) -> str:
    """The stage from files to files, its process's start and the contact sheet included."""
    pipeline = (sys.executable, "-m", "pipeline")
    subprocess.run([*pipeline, "extract", folder / "images.csv", folder / "images"], check=True, capture_output=True)
    start = time.perf_counter()
    subprocess.run(
        [*pipeline, "align", folder / "images/manifest.csv", folder / "aligned"], check=True, capture_output=True
    )
    seconds = time.perf_counter() - start
    found = json.loads((folder / "aligned" / "summary.json").read_text())
    return f"{seconds:.2f} s, {found['images'] / seconds:.0f} images/s"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("csv", type=Path, nargs="?")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--environment", type=Path, default=Path(tempfile.gettempdir()) / "benchmark-mtcnn-1.0.0")
    parser.add_argument("--measure", nargs=2, metavar=("SIDE", "FOLDER"), help="only run one side")
    args = parser.parse_args()
    if args.measure:
        measure(args.measure[0], Path(args.measure[1]))
        return
    if args.csv is None:
        parser.error("a CSV is needed")
    keep_to_two_cores()
    peer_python = make_environment(args.environment, REQUIREMENTS)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_images(args.csv, args.images, folder)
        results: dict[str, list[dict]] = {"peer": [], "ours": []}
        for _ in range(args.repeats):
            for side, python in (("peer", peer_python), ("ours", Path(sys.executable))):
                run_side(python, __file__, side, folder)
                result = json.loads((folder / f"{side}.json").read_text())
                results[side].append(result)
                print(
                    f"{side}: {args.images / result['seconds']:.0f} images/s, "
                    f"{result['processor'] / args.images * 1000:.2f} ms of processor an image",
                    flush=True,
                )
        print(f"the whole stage: {stage_rate(folder)}")
    mine, theirs = results["ours"][0]["boxes"], results["peer"][0]["boxes"]
    both = [(a, b) for a, b in zip(mine, theirs, strict=True) if a and b]
    same = np.mean([bool(a) == bool(b) for a, b in zip(mine, theirs, strict=True)])
    close = np.mean([largest_overlap(a, b) >= 0.9 for a, b in both])
    print(f"found or not found as the package: {same:.2%} of {len(mine)} images")
    print(f"largest box at IoU 0.9 or more: {close:.2%} of {len(both)} images in which both found a face")
    best = {side: min(run["seconds"] for run in runs) for side, runs in results.items()}
    print(f"ratio {best['peer'] / best['ours']:.2f}")


if __name__ == "__main__":
    main()
