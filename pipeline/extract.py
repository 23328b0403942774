"""extract: turn fer2013.csv, or class folders, into PNGs by Usage and label with a manifest."""

import argparse
import hashlib
import json
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2

from pipeline import manifest
from pipeline.atomic import atomic_file, atomic_folder
from pipeline.console import log, progress_bar
from pipeline.errors import InputError
from pipeline.fer import ferplus
from pipeline.fer.csv_source import CsvSource
from pipeline.fer.duplicates import count_duplicates
from pipeline.fer.folder_source import FolderSource
from pipeline.fer.images import Batch, LabelledImage, Source
from pipeline.fer.labels import KNOWN_COUNTS, LABELS
from pipeline.manifest import USAGES, ManifestRow

SUMMARY = "summary.json"
THREADS = 2
# Uncompressed: a 48x48 photograph shrinks by a quarter, which fills the same 4 kB block of a disk, at twice the time.
PNG_OPTIONS = [cv2.IMWRITE_PNG_COMPRESSION, 0]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", type=Path, help="fer2013.csv (.xz, .gz or .zip too), or a folder of class folders")
    parser.add_argument("output", type=Path, help="folder to write the images, manifest.csv and summary.json to")
    parser.add_argument("--ferplus", type=Path, metavar="CSV", help="label by the majority of these FER+ votes")
    parser.add_argument("--seed", type=int, default=1, help="of the split of class folders that have none (default 1)")


def run(args: argparse.Namespace) -> None:
    extract(args.source, args.output, args.ferplus, args.seed)


def extract(source: Path, output: Path, votes: Path | None = None, seed: int = 1) -> dict[str, Any]:
    """Write every image as USAGE/LABEL/ROW.png under `output`, with manifest.csv, labels.txt and summary.json.

    `output` is replaced as a whole, and only if it was made by this stage. Returns the summary: images per Usage and
    label, beside FER2013's known counts, and duplicates. Raises SourceError naming the file and line that is wrong.
    """
    if output.exists() and not (output / manifest.NAME).exists() and any(output.iterdir()):
        raise InputError(f"{output}: holds other files than extract's; give a new folder")
    try:
        ballot = ferplus.Votes(votes) if votes else None
        images = FolderSource(source, seed) if source.is_dir() else CsvSource(source)
        labels = ferplus.LABELS if ballot else images.labels
        with atomic_folder(output) as folder:
            for usage in USAGES:
                for label in labels:
                    (folder / usage / label).mkdir(parents=True)
            rows = _write_images(images, labels, ballot, folder)
            manifest.write(folder / manifest.NAME, rows)
            manifest.write_labels(folder / "labels.txt", labels)
            summary = _summary(rows, labels, ballot)
            with atomic_file(folder / SUMMARY, "w", encoding="utf-8") as file:
                json.dump(summary, file, indent=1)
    except InputError as error:
        raise type(error)(f"{error}; nothing was written") from None
    _report(summary)
    return summary


def _write_images(source: Source, labels: tuple[str, ...], ballot: ferplus.Votes | None, folder: Path
                  ) -> list[ManifestRow]:
    def write_batch(batch: Batch) -> list[ManifestRow]:
        rows = []
        for image in batch():
            label = ballot.relabel(image) if ballot else image.label
            if label is not None:
                rows.append(_write(image, label, f"{image.usage}/{labels[label]}/{image.row:05d}.png", folder))
        return rows

    rows: list[ManifestRow] = []
    # Parsing, encoding and writing spend their time outside the interpreter's lock, so threads do run at once.
    with ThreadPoolExecutor(THREADS) as pool, progress_bar(None, "images", "extract") as bar:
        for written in _in_order(pool.submit(write_batch, batch) for batch in source.batches()):
            rows += written
            bar.update(len(written))
    return rows


def _in_order(futures: Iterator[Future[list[ManifestRow]]]) -> Iterator[list[ManifestRow]]:
    """Results in order of submission, reading no more than a few batches ahead."""
    ahead: deque[Future[list[ManifestRow]]] = deque()
    for future in futures:
        ahead.append(future)
        if len(ahead) > 4 * THREADS:
            yield ahead.popleft().result()
    for future in ahead:
        yield future.result()


def _write(image: LabelledImage, label: int, path: str, folder: Path) -> ManifestRow:
    with open(folder / path, "wb") as file:
        file.write(cv2.imencode(".png", image.pixels, PNG_OPTIONS)[1])
    return ManifestRow(image.row, image.usage, label, path, hashlib.sha256(image.pixels).hexdigest())


def _summary(rows: list[ManifestRow], labels: tuple[str, ...], ballot: ferplus.Votes | None) -> dict[str, Any]:
    counted = Counter((row.usage, row.label) for row in rows)
    return {
        "images": len(rows),
        "counts": {
            usage: {label: counted[usage, index] for index, label in enumerate(labels)} for usage in USAGES
        },
        "duplicates": count_duplicates(rows),
        "dropped_by_votes": dict(ballot.dropped) if ballot else None,
    }


def _report(summary: dict[str, Any]) -> None:
    log.info("%d images", summary["images"])
    for usage, counts in summary["counts"].items():
        log.info("%s: %d images (%s)", usage, sum(counts.values()),
                 ", ".join(f"{label} {count}" for label, count in counts.items()))
        known = dict(zip(LABELS, KNOWN_COUNTS[usage], strict=True))
        if counts == known:
            log.info("%s: as in the published FER2013", usage)
        elif tuple(counts) == LABELS:
            differences = (f"{label} {counts[label] - known[label]:+d}" for label in LABELS if counts[label] != known[label])
            log.info("%s: differs from the published FER2013: %s", usage, ", ".join(differences))
    duplicates = summary["duplicates"]
    for where in ("within", "across"):
        log.info("byte-equal duplicates %s Usages: %s", where,
                 ", ".join(f"{name} {count}" for name, count in duplicates[where].items()))
    log.info("%d distinct images (%d copies) stand under more than one label",
             duplicates["distinct_with_disagreeing_labels"], duplicates["images_with_disagreeing_labels"])
    if summary["dropped_by_votes"] is not None:
        log.info("dropped for want of a majority that names an expression: %s",
                 ", ".join(f"{reason} {count}" for reason, count in sorted(summary["dropped_by_votes"].items())))
