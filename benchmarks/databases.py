"""lmdb and mean against Caffe's convert_imageset and compute_image_mean, whole processes from start to end.

    CAFFE_ROOT=DIR python benchmarks/databases.py [manifest.csv] [--copies N] [--repeats N]

CAFFE_ROOT is a root with real Caffe (docker/caffe-root.sh). Both sides read the same images, which lie inside it, by
turns, and must write the same bytes; the best time of each counts. Without a manifest, 10,000 images of noise are
made first; --copies lists every image N times. The last line is Caffe's time for all databases and the mean over ours.
"""

import argparse
import hashlib
import os
import shutil
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np
from processes import run

from pipeline.data import manifest

PARTS = ("train", "val", "test")


def write_noise(folder: Path, count: int) -> list[manifest.ManifestRow]:
    random = np.random.default_rng(0)
    usages = (*["Training"] * 8, "PublicTest", "PrivateTest")
    rows = []
    for number in range(count):
        pixels = random.integers(0, 256, (48, 48)).astype(np.uint8)
        name = f"{number:05d}.png"
        cv2.imwrite(str(folder / name), pixels, [cv2.IMWRITE_PNG_COMPRESSION, 0])
        digest = hashlib.sha256(pixels.tobytes()).hexdigest()
        rows.append(manifest.ManifestRow(number, usages[number % 10], number % 7, name, digest))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path, nargs="?")
    parser.add_argument("--copies", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    root = os.environ.get("CAFFE_ROOT")
    if root is None:
        raise SystemExit("CAFFE_ROOT is not set; docker/caffe-root.sh makes a root with real Caffe")
    with tempfile.TemporaryDirectory(dir=Path(root) / "tmp") as name:
        folder = Path(name)
        images = folder / "images"
        if args.manifest is None:
            images.mkdir()
            rows = write_noise(images, 10_000)
        else:
            shutil.copytree(args.manifest.parent, images)
            rows = manifest.read(args.manifest)
        copies = rows * args.copies
        manifest.write(
            images / manifest.NAME,
            (row._replace(row=n) for n, row in enumerate(copies)),
            manifest.EXTRACT_COLUMNS if rows[0].status is None else manifest.COLUMNS,
        )
        manifest.write_labels(images / "labels.txt", [f"class {label}" for label in range(7)])
        compare(Path(root), folder, args.repeats)


def compare(root: Path, folder: Path, repeats: int) -> None:
    ours, caffes = folder / "ours", folder / "caffes"
    stage = [sys.executable, "-m", "pipeline"]
    inside = Path("/", folder.relative_to(root))
    tool = ["chroot", root]
    sides = {
        "lmdb": [[*stage, "lmdb", folder / "images" / manifest.NAME, ours]],
        "mean": [[*stage, "mean", ours / "train_lmdb", ours / "mean.binaryproto"]],
        "convert_imageset": [
            [
                *tool,
                "convert_imageset",
                "--gray",
                f"{inside}/images/",
                inside / f"ours/{part}.txt",
                inside / f"caffes/{part}_lmdb",
            ]
            for part in PARTS
        ],
        "compute_image_mean": [
            [*tool, "compute_image_mean", inside / "caffes/train_lmdb", inside / "caffes/mean.binaryproto"]
        ],
    }
    best: dict[str, float] = {}
    for _ in range(repeats):
        shutil.rmtree(ours, ignore_errors=True)
        shutil.rmtree(caffes, ignore_errors=True)
        caffes.mkdir()
        for side, commands in sides.items():
            usages = [run(command) for command in commands]
            seconds, cpu_seconds = (sum(values) for values in list(zip(*usages, strict=True))[:2])
            best[side] = min(seconds, best.get(side, seconds))
            print(f"{side}: {seconds:.2f} s ({cpu_seconds:.2f} s of processor)", flush=True)
    for file in (*(f"{part}_lmdb/data.mdb" for part in PARTS), "mean.binaryproto"):
        if (ours / file).read_bytes() != (caffes / file).read_bytes():
            raise SystemExit(f"{file} differs from Caffe's")
    print("all files equal Caffe's byte for byte")
    print(f"lmdb alone: {best['convert_imageset'] / best['lmdb']:.2f} times as fast as convert_imageset")
    print(f"mean alone: {best['compute_image_mean'] / best['mean']:.2f} times as fast as compute_image_mean")
    ratio = (best["convert_imageset"] + best["compute_image_mean"]) / (best["lmdb"] + best["mean"])
    print(f"ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
