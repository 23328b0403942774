"""lmdb: write a manifest's images into train_lmdb, val_lmdb and test_lmdb as Caffe's convert_imageset does."""

import argparse
import shutil
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from pipeline.base.atomic import atomic_folder
from pipeline.base.console import log, progress
from pipeline.base.errors import InputError
from pipeline.base.hashing import sha256
from pipeline.base.pictures import decode
from pipeline.caffe.database import DatabaseReader, DatabaseWriter, datum_from_image, record_key
from pipeline.data import ferplus, manifest
from pipeline.data.folds import is_left_out, read_fold
from pipeline.data.manifest import USAGES, ManifestRow
from pipeline.data.shards import SHARD_FILE, Shard, in_order, read_shard, write_note
from pipeline.stages.shard_arguments import add_shard_arguments

STAGE = "lmdb"
# The Usages that stand in each database of a protocol.
PROTOCOLS: dict[str, dict[str, tuple[str, ...]]] = {
    "kaggle": {"train": ("Training",), "val": ("PublicTest",), "test": ("PrivateTest",)},
    "merged": {"train": ("Training", "PublicTest"), "val": (), "test": ("PrivateTest",)},
}
NEEDED_USAGES = {"kaggle": ("Training", "PublicTest"), "merged": ("Training", "PrivateTest")}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("manifest", type=Path, help="manifest.csv of extract or align")
    parser.add_argument("output", type=Path, help="folder to write the databases, their lists and labels.txt to")
    parser.add_argument(
        "--protocol",
        choices=PROTOCOLS,
        default="kaggle",
        help="kaggle: train on Training, select on PublicTest, test on PrivateTest where there is "
        "one; merged: train on Training and PublicTest, test on PrivateTest (default: kaggle)",
    )
    parser.add_argument("--seed", type=int, default=1, help="seed of the images' order (default: 1)")
    parser.add_argument(
        "--fold",
        metavar="I/N",
        help="train without the I-th of N folds of the Training images, for a "
        "teacher that answers on that fold (default: on all)",
    )
    add_shard_arguments(parser, "read")


def run(args: argparse.Namespace) -> None:
    if args.shard:
        lmdb_shard(args.manifest, args.output, args.protocol, args.seed, args.fold, shard=read_shard(args.shard))
    else:
        lmdb(args.manifest, args.output, args.protocol, args.seed, args.fold, shards=args.gather)


def lmdb(
    manifest_path: Path,
    output: Path,
    protocol: str,
    seed: int,
    fold: str | None = None,
    *,
    shards: Sequence[Path] = (),
) -> None:
    """Write {train,val,test}_lmdb, {train,val,test}.txt and labels.txt under `output`, grey, one channel.

    A list's lines are "path label" in the order of its database, paths relative to the manifest's folder ROOT:
    `convert_imageset --gray ROOT/ train.txt train_lmdb` writes the same database. Each database's images are in
    the order of the manifest permuted by numpy's RandomState(seed), which NEP 19 freezes. Where FER+'s votes.csv stands
    beside the manifest, {train,val,test}_votes.csv hold the votes on each database's images, in its order.
    fold: "2/5" leaves the second of five folds of the Training images out. shards: folders of all shards that
    lmdb_shard() made with the same arguments, whose records are written in place of images.

    `output` is replaced as a whole, and only if nothing but these and a mean file is in it. Raises InputError when a
    Usage that the protocol needs has no image, or naming an image that is unreadable or of another size than the first,
    and where a shard is missing, given twice or made with other arguments.
    """
    sidecar = manifest_path.with_name(ferplus.SIDECAR)
    rows = _Rows(manifest_path, protocol, seed, fold, sidecar)
    folders, _ = in_order(STAGE, shards, rows.made_by) if shards else ([], {})
    parts = [f"{part}{name}" for part in PROTOCOLS[protocol] for name in ("_lmdb", ".txt", f"_{ferplus.SIDECAR}")]
    with atomic_folder(output, own=(*parts, "labels.txt", "mean.binaryproto")) as folder:
        for part, usages in PROTOCOLS[protocol].items():
            chosen = rows.of(usages)
            if folders:
                _join_databases(folders, folder, part)
            else:
                _write_database(rows, chosen, range(len(chosen)), folder, part)
            if rows.votes is not None:
                ferplus.pick_from_sidecar(sidecar, rows.votes, chosen, folder / f"{part}_{ferplus.SIDECAR}")
            if not len(chosen):
                log.info("%s_lmdb is empty: %s", part, f"no {usages[0]} images" if usages else f"protocol {protocol}")
        manifest.write_labels(folder / "labels.txt", rows.labels)


def lmdb_shard(
    manifest_path: Path, output: Path, protocol: str, seed: int, fold: str | None = None, *, shard: Shard
) -> None:
    """Write one shard of each database and list, for lmdb() to put together. Raises InputError as lmdb() does."""
    rows = _Rows(manifest_path, protocol, seed, fold)
    parts = [f"{part}{end}" for part in PROTOCOLS[protocol] for end in ("_lmdb", ".txt")]
    with atomic_folder(output, own=(*parts, SHARD_FILE)) as folder:
        for part, usages in PROTOCOLS[protocol].items():
            chosen = rows.of(usages)
            _write_database(rows, chosen, shard.rows(len(chosen), 1), folder, part)
        write_note(folder, STAGE, shard, rows.made_by)


class _Rows:
    """A manifest's rows by their numbers, in 9 bytes of memory a row, and what is chosen of them: lmdb()'s arguments.

    labels: those of labels.txt; votes: where those on each row stand in a sidecar, in 8 bytes more, None without one;
    made_by: what decides the databases. Raises InputError for a row whose label labels.txt has not, votes on other
    images, a fold that is none, or a protocol whose images are not there.
    """

    def __init__(self, path: Path, protocol: str, seed: int, fold: str | None, sidecar: Path | None = None) -> None:
        self.path, self._seed, self._ends = path, seed, array("q")
        self.labels = manifest.read_labels(path.with_name("labels.txt"))
        self.made_by = {"manifest": sha256(path), "protocol": protocol, "seed": seed, "fold": fold}
        usages = bytearray()  # of each row the bit of its Usage, or none where it is left out
        rows = self._checked_rows(usages, read_fold(fold) if fold else None)
        self.votes = ferplus.find_in_sidecar(sidecar, (row.path for row in rows)) if sidecar else None
        for _ in rows:  # all of them where there are no votes
            pass
        self._usages = np.frombuffer(usages, np.uint8)
        for usage in NEEDED_USAGES[protocol]:
            if _bit(usage) not in usages:
                raise InputError(
                    f"{path}: no {usage} images, which protocol {protocol} needs; give the "
                    "whole set, or another protocol"
                )

    def _checked_rows(self, usages: bytearray, without: tuple[int, int] | None) -> Iterator[ManifestRow]:
        for row in manifest.stream(self.path, self._ends):
            if not 0 <= row.label < len(self.labels):
                raise InputError(
                    f"{self.path}: row {row.row} has label {row.label} where 0 to {len(self.labels) - 1} "
                    "as in labels.txt was expected; make both again with extract"
                )
            usages.append(0 if without is not None and is_left_out(row, *without) else _bit(row.usage))
            yield row

    def of(self, usages: Sequence[str]) -> np.ndarray:
        """Numbers of the rows of some Usages, in the seed's order, without the fold that is left out."""
        numbers = np.flatnonzero(self._usages & sum(map(_bit, usages)))
        np.random.RandomState(self._seed).shuffle(numbers)  # in place, to the order of permutation()
        return numbers

    def read(self, numbers: np.ndarray) -> Iterator[ManifestRow]:
        return manifest.read_at(self.path, self._ends, numbers)


def _bit(usage: str) -> int:
    return 1 << USAGES.index(usage)


def _write_database(rows: _Rows, numbers: np.ndarray, places: range, folder: Path, part: str) -> None:
    """Write the records at some places of a database, and their lines of its list."""
    with DatabaseWriter(folder / f"{part}_lmdb") as database, open(folder / f"{part}.txt", "w") as lines:
        found = _read_images(rows, numbers[places.start : places.stop])
        for place, (row, image) in zip(places, progress(found, len(places), "images", f"{part}_lmdb"), strict=True):
            database.put(record_key(place, row.path), datum_from_image(image, row.label))
            lines.write(f"{row.path} {row.label}\n")


def _join_databases(shards: Sequence[Path], folder: Path, part: str) -> None:
    """Write a database and its list from the shards of both. Raises InputError where images differ in size."""
    first = None
    with DatabaseWriter(folder / f"{part}_lmdb") as database, open(folder / f"{part}.txt", "wb") as lines:
        for shard in shards:
            with DatabaseReader(shard / f"{part}_lmdb") as records:
                for number, (key, value) in enumerate(records.records()):
                    if number == 0:
                        datum = records.datum(key, value)
                        first = first or datum
                        if (datum.height, datum.width) != (first.height, first.width):
                            raise InputError(
                                f"{records.name(key)}: {datum.height}x{datum.width} pixels where {first.height}x"
                                f"{first.width} as in {shards[0]} were expected; align the images"
                            )
                    database.put(key, value)
            with open(shard / f"{part}.txt", "rb") as more:
                shutil.copyfileobj(more, lines)


def _read_images(rows: _Rows, numbers: np.ndarray) -> Iterator[tuple[ManifestRow, np.ndarray]]:
    root = rows.path.parent
    shape = None
    # No other thread reads ahead: it would wait for the interpreter's lock as long as it saves.
    for row in rows.read(numbers):
        path = f"{root}/{row.path}"
        image = _read_image(path)
        shape = shape or image.shape
        if image.shape != shape:
            raise InputError(
                f"{path}: {image.shape[0]}x{image.shape[1]} pixels where {shape[0]}x{shape[1]} as "
                "in the first image were expected; align the images"
            )
        manifest.check_pixels(row, image, path)
        yield row, image


def _read_image(path: str) -> np.ndarray:
    with open(path, "rb", buffering=0) as file:
        image = decode(file.read(), cv2.IMREAD_GRAYSCALE)
    if image is None:
        raise InputError(f"{path}: not a readable image; make it again with extract or align")
    return image
