"""Memory of `predict` over a video of half an hour, and over 10,000 images: neither may make it grow.

    python benchmarks/memory.py [--minutes 30] [--images 10000]

The video, 320x180 in H.264 with two faces, and the images, with one face each and of hundreds of sizes up to 256x300,
are made from the portrait that comes with matplotlib; they are small so that the whole takes minutes, while what could
pile up (frames, readings, tracks, plans for sizes of images) comes in the same numbers. The process's resident memory
is read whenever another twentieth of its lines of JSON has come. Growth is that of the last quarter's mean over the
second quarter's, by when all is loaded; 5% is allowed. The last line is the memory allowed over the memory used, of the
worse of the two.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from environments import keep_to_two_cores
from pictures import RATE, make_photos, make_video, repeat_video

POINTS = 20
ALLOWED = 1.05
PHOTOS = 500  # different ones
MIB = 1 << 20


def resident(process: int) -> float:
    """MiB of memory that a process holds."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / MIB


def measure(name: str, source: Path, lines: int) -> float:
    """Read `source`, which gives so many lines. Returns the memory allowed over the memory used."""
    command = [sys.executable, "-m", "pipeline", "predict", source]
    points: list[float] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        for number, _ in enumerate(process.stdout, 1):
            if number == lines * (len(points) + 1) // POINTS:
                points.append(resident(process.pid))
                print(f"{name}: {points[-1]:.0f} MiB after {number} of {lines}", flush=True)
    if process.returncode or len(points) != POINTS:
        raise SystemExit(f"{name}: status {process.returncode} after {len(points)} of {POINTS} points")
    quarter = POINTS // 4
    early, late = statistics.mean(points[quarter : 2 * quarter]), statistics.mean(points[-quarter:])
    print(f"{name}: {early:.0f} MiB in the second quarter, {late:.0f} in the last, {(late / early - 1):+.1%}")
    return ALLOWED * early / late


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=int, default=30)
    parser.add_argument("--images", type=int, default=10_000)
    args = parser.parse_args()
    keep_to_two_cores()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        photos = sorted(make_photos(folder / "photos", (256, 300), PHOTOS, vary=40).iterdir())
        images = folder / "images"
        images.mkdir()
        for number in range(args.images):
            os.link(photos[number % PHOTOS], images / f"{number:06d}.jpg")
        minute = make_video(folder / "minute.mp4", (320, 180), 60)
        video = repeat_video(minute, folder / "video.mp4", args.minutes)
        ratios = [
            measure(f"{args.minutes} minutes of video", video, args.minutes * 60 * RATE),
            measure(f"{args.images} images", images, args.images),
        ]
    print(f"ratio {min(ratios):.2f}")


if __name__ == "__main__":
    main()
