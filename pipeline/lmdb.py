"""lmdb: write a manifest's images into train_lmdb, val_lmdb and test_lmdb as Caffe's convert_imageset does."""

import argparse
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np

from pipeline import manifest
from pipeline.atomic import atomic_folder
from pipeline.caffe.database import DatabaseWriter, datum_from_image, record_key
from pipeline.console import log, progress
from pipeline.errors import InputError
from pipeline.manifest import ManifestRow

# The Usages that each database holds. A protocol's train and its last Usage must have images; other parts may be empty.
PROTOCOLS = {
    "kaggle": {"train": ("Training",), "val": ("PublicTest",), "test": ("PrivateTest",)},
    "merged": {"train": ("Training", "PublicTest"), "val": (), "test": ("PrivateTest",)},
}
NEEDED = {"kaggle": ("Training", "PublicTest"), "merged": ("Training", "PrivateTest")}
THREADS = 2
IMAGES_AHEAD = 256


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("manifest", type=Path, help="manifest.csv of extract or align")
    parser.add_argument("output", type=Path, help="folder to write the databases, their lists and labels.txt to")
    parser.add_argument("--protocol", choices=PROTOCOLS, default="kaggle",
                        help="kaggle: train on Training, select on PublicTest, test on PrivateTest; merged: train on "
                             "Training and PublicTest, test on PrivateTest (default kaggle)")
    parser.add_argument("--seed", type=int, default=1, help="of the order of the images (default 1)")


def run(args: argparse.Namespace) -> None:
    lmdb(args.manifest, args.output, args.protocol, args.seed)


def lmdb(manifest_path: Path, output: Path, protocol: str, seed: int) -> None:
    """Write {train,val,test}_lmdb, {train,val,test}.txt and labels.txt under `output`.

    A list's lines are "path label" in the order of the database, with paths relative to the manifest's folder ROOT:
    `convert_imageset --gray ROOT/ train.txt train_lmdb` gives the same database. The order is the permutation of the
    manifest's rows that numpy's RandomState(seed), frozen by NEP 19, draws for each database. `output` is replaced
    as a whole, and only if it was made by this stage. Raises InputError when a Usage that the protocol needs has no
    image, or naming the image that is unreadable or of another size.
    """
    if output.exists() and not (output / "train_lmdb").exists() and any(output.iterdir()):
        raise InputError(f"{output}: holds other files than lmdb's; give a new folder")
    rows = manifest.read(manifest_path)
    labels = manifest.read_labels(manifest_path.with_name("labels.txt"))
    for row in rows:
        if not 0 <= row.label < len(labels):
            raise InputError(f"{manifest_path}: row {row.row} has label {row.label}, where labels.txt names "
                             f"{len(labels)} classes; make it again with extract")
    for usage in NEEDED[protocol]:
        if not any(row.usage == usage for row in rows):
            raise InputError(f"{manifest_path}: no {usage} images, which protocol {protocol} needs; give the whole "
                             "set, or the other protocol")
    with atomic_folder(output) as folder:
        for part, usages in PROTOCOLS[protocol].items():
            chosen = [row for row in rows if row.usage in usages]
            chosen = [chosen[index] for index in np.random.RandomState(seed).permutation(len(chosen))]
            _write_database(manifest_path.parent, chosen, folder, part)
            log.info("%s_lmdb: %d images%s", part, len(chosen), "" if chosen else f" (no {'/'.join(usages) or 'Usage'})")
        manifest.write_labels(folder / "labels.txt", labels)


def _write_database(root: Path, rows: Sequence[ManifestRow], folder: Path, part: str) -> None:
    with DatabaseWriter(folder / f"{part}_lmdb") as database, open(folder / f"{part}.txt", "w") as lines:
        images = progress(_read_images(root, rows), len(rows), "images", f"{part}_lmdb")
        for number, (row, image) in enumerate(zip(rows, images, strict=True)):
            database.put(record_key(number, row.path), datum_from_image(image, row.label))
            lines.write(f"{row.path} {row.label}\n")


def _read_images(root: Path, rows: Sequence[ManifestRow]) -> Iterator[np.ndarray]:
    """The images in order, read ahead by threads: most of the time goes by outside the interpreter's lock."""
    shape = None
    with ThreadPoolExecutor(THREADS) as pool:
        for first in range(0, len(rows), IMAGES_AHEAD):
            paths = [root / row.path for row in rows[first : first + IMAGES_AHEAD]]
            for path, image in zip(paths, pool.map(_read_image, paths), strict=True):
                shape = shape or image.shape
                if image.shape != shape:
                    raise InputError(f"{path}: {image.shape[0]}x{image.shape[1]} pixels where {shape[0]}x{shape[1]} as "
                                     "in the first image were expected; align the images first")
                yield image


def _read_image(path: Path) -> np.ndarray:
    data = np.frombuffer(path.read_bytes(), dtype=np.uint8)
    image = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE) if len(data) else None
    if image is None:
        raise InputError(f"{path}: no readable image ({len(data)} bytes); make it again with extract or align")
    return image
