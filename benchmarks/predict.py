"""predict: from the start of the process to its first line of JSON, and images a second after that.

    python benchmarks/predict.py [--images FOLDER] [--model NAME] [--runs 5]

Without --images it reads 200 photos of 512x600 with a face each, made from the one that comes with matplotlib, and
2,000 of 48x48, FER2013's size, made from the same. Every run is a process of its own with its output read through a
pipe, as a user's would be; one run before them all warms the disk's cache. The last line is 1.5 s, the time a person is
willing to wait, over the median time to the first line.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from pictures import make_photos

PATIENCE = 1.5  # seconds
PHOTOS, SMALL = 200, 2000


class Run(NamedTuple):
    """Seconds to the first line and to the last, and the numbers of lines and of faces."""

    first: float
    last: float
    images: int
    faces: int

    @property
    def rate(self) -> float:
        return (self.images - 1) / (self.last - self.first) if self.images > 1 else float("nan")


def predict(folder: Path, model: str) -> Run:
    """Run the command once over a folder. Raises CalledProcessError when it fails."""
    command = [sys.executable, "-m", "pipeline", "predict", str(folder), "--model", str(model)]
    start = time.perf_counter()
    first = images = faces = 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            first = first or time.perf_counter() - start
            images += 1
            faces += len(json.loads(line)["faces"])
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return Run(first, time.perf_counter() - start, images, faces)


def measure(name: str, folder: Path, model: str, runs: int) -> list[Run]:
    """Run so many times and print what came of it."""
    measured = [predict(folder, model) for _ in range(runs)]
    first = sorted(run.first for run in measured)
    print(
        f"{name}: {measured[0].images} images, {measured[0].faces} faces; first line after {first[0]:.2f} s at best, "
        f"{statistics.median(first):.2f} s in the median, {first[-1]:.2f} s at worst; then "
        f"{statistics.median(run.rate for run in measured):.1f} images/s in the median",
        flush=True,
    )
    return measured


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, help="a folder of images (default: those described above)")
    parser.add_argument("--model", default="accurate", help="a model's name or folder (default accurate)")
    parser.add_argument("--runs", type=int, default=5)
    args = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        if args.images:
            sets = {str(args.images): args.images}
        else:
            sets = {
                "photos of 512x600": make_photos(Path(temporary, "photos"), (512, 600), PHOTOS),
                "faces of 48x48": make_photos(Path(temporary, "small"), (48, 48), SMALL),
            }
        predict(make_photos(Path(temporary, "warm-up"), (512, 600), 1), args.model)
        measured = [run for name, folder in sets.items() for run in measure(name, folder, args.model, args.runs)]
    print(f"ratio {PATIENCE / statistics.median(run.first for run in measured):.2f}")


if __name__ == "__main__":
    main()
