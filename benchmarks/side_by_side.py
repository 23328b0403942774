"""One photograph read by two sides, each in a process of its own, by turns."""

import argparse
import json
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from environments import run_side

WARM_UP = 3
SAVE_PHOTO = "import sys, numpy, skimage.data; numpy.save(sys.argv[1], skimage.data.astronaut())"  # 512x512


def photo_parser(description: str | None, environment: str) -> argparse.ArgumentParser:
    """The arguments of a benchmark whose peer lives in the folder `environment` of the machine's temporary files."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--environment", type=Path, default=Path(tempfile.gettempdir()) / environment)
    parser.add_argument("--measure", nargs=2, metavar=("SIDE", "FOLDER"), help="only run one side")
    return parser


def measure(read: Callable[[np.ndarray], Any], side: str, folder: Path) -> None:
    """Time `read` on folder/photo.npy as often as folder/runs.json says; leave seconds and finds in SIDE.json."""
    photo = np.load(folder / "photo.npy")
    runs = json.loads((folder / "runs.json").read_text())
    for _ in range(WARM_UP):
        found = read(photo)
    start = time.perf_counter()
    for _ in range(runs):
        read(photo)
    seconds = (time.perf_counter() - start) / runs
    (folder / f"{side}.json").write_text(json.dumps({"seconds": seconds, "found": found}))


def take_turns(
    script: str, pythons: Mapping[str, Path], repeats: int, runs: int
) -> tuple[dict[str, list[float]], dict[str, list[Any]]]:
    """Run every side of `script`, `peer` among them, so many times: the seconds a photo, and what each found."""
    seconds: dict[str, list[float]] = {side: [] for side in pythons}
    found: dict[str, list[Any]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        subprocess.run([pythons["peer"], "-c", SAVE_PHOTO, folder / "photo.npy"], check=True)
        (folder / "runs.json").write_text(json.dumps(runs))
        for _ in range(repeats):
            for side, python in pythons.items():
                run_side(python, script, side, folder)
                result = json.loads((folder / f"{side}.json").read_text())
                seconds[side].append(result["seconds"])
                found[side] = result["found"]
                print(
                    f"{side}: {1 / result['seconds']:.1f} photos/s, {result['seconds'] * 1000:.1f} ms each", flush=True
                )
    return seconds, found


def overlap(a: list[float], b: list[float]) -> float:
    """Intersection over union of two boxes."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)
