"""extract against the plain loop: csv, a numpy array of each row's numbers, PIL's PNG.

    python benchmarks/extract.py [fer2013.csv[.xz]] [--repeats N]

Both read the same unpacked CSV in a process of their own, by turns; the best time of each counts. Without a CSV, one
of 10,000 rows of noise is written first. The last line is the plain loop's time over ours.
"""

import argparse
import csv
import lzma
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
from processes import run

LABELS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")


def plain(source: Path, output: Path) -> None:
    """What one would write first."""
    from PIL import Image

    with open(source, newline="") as file:
        for number, row in enumerate(csv.DictReader(file)):
            pixels = np.array(row["pixels"].split(), dtype=np.uint8).reshape(48, 48)
            folder = output / row["Usage"] / LABELS[int(row["emotion"])]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / f"{number:05d}.png")


def write_noise(path: Path, rows: int) -> None:
    random = np.random.default_rng(0)
    with open(path, "w") as file:
        file.write("emotion,pixels,Usage\n")
        for row in range(rows):
            file.write(f"{row % 7},{' '.join(map(str, random.integers(0, 256, 48 * 48).tolist()))},Training\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("csv", type=Path, nargs="?")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--plain", type=Path, metavar="OUTPUT", help="only run the plain loop")
    args = parser.parse_args()
    if args.plain:
        plain(args.csv, args.plain)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = folder / "fer2013.csv"
        if args.csv is None:
            write_noise(source, 10_000)
        else:
            opener = lzma.open if args.csv.suffix == ".xz" else open
            with opener(args.csv, "rb") as packed, open(source, "wb") as file:
                shutil.copyfileobj(packed, file)
        commands = {
            "plain loop": (sys.executable, __file__, source, "--plain", folder / "plain"),
            "extract": (sys.executable, "-m", "pipeline", "extract", source, folder / "extract"),
        }
        best: dict[str, float] = {}
        for _ in range(args.repeats):
            for side, command in commands.items():
                shutil.rmtree(command[-1], ignore_errors=True)
                usage = run(command)
                best[side] = min(usage.seconds, best.get(side, usage.seconds))
                images = sum(1 for _ in Path(command[-1]).rglob("*.png"))
                print(f"{side}: {usage}, {images / usage.seconds:.0f} images/s", flush=True)
    print(f"ratio {best['plain loop'] / best['extract']:.2f}")


if __name__ == "__main__":
    main()
