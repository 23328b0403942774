"""The data stages hold no rows: memory grows by some bytes a row, where a row has some hundred."""

import gc
import hashlib
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline.data import ferplus, manifest
from pipeline.data.duplicates import Duplicates
from pipeline.data.manifest import ManifestRow
from pipeline.stages.combine import combine
from pipeline.stages.lmdb import lmdb
from pipeline.stages.targets import targets

SIZES = (2_000, 6_000)
VOTES = [1, *[0] * (len(ferplus.CHOICES) - 1)]


def write_manifest(folder: Path, count: int, status: str | None) -> Path:
    """Of one image of 4x4 pixels, again and again."""
    folder.mkdir(parents=True)
    pixels = np.zeros((4, 4), np.uint8)
    cv2.imwrite(str(folder / "a.png"), pixels)
    digest = hashlib.sha256(pixels.tobytes()).hexdigest()
    rows = (ManifestRow(row, manifest.USAGES[row % 2], row % 7, "a.png", digest, status) for row in range(count))
    manifest.write(folder / "manifest.csv", rows, manifest.COLUMNS if status else manifest.EXTRACT_COLUMNS)
    manifest.write_labels(folder / "labels.txt", [f"class {label}" for label in range(7)])
    return folder / "manifest.csv"


def run_lmdb(folder: Path, count: int) -> Callable[[], object]:
    path = write_manifest(folder / "images", count, None)
    ferplus.write_sidecar(path.with_name(ferplus.SIDECAR), (("a.png", VOTES) for _ in range(count)))
    return lambda: lmdb(path, folder / "databases", "kaggle", 1)


def run_combine(folder: Path, count: int) -> Callable[[], object]:
    images = write_manifest(folder / "images", count, None)
    aligned = write_manifest(folder / "aligned", count, "found")
    return lambda: combine(images, aligned, folder / "both")


def run_targets(folder: Path, count: int) -> Callable[[], object]:
    lmdb(write_manifest(folder / "images", count, None), folder / "databases", "kaggle", 1)
    return lambda: targets(folder / "databases", folder / "targets", {"labels": 1})


def run_duplicates(folder: Path, count: int) -> Callable[[], object]:
    found = Duplicates()
    for row in range(count):
        digest = hashlib.sha256(str(row).encode()).hexdigest()
        found.add(ManifestRow(row, "Training", 0, "a.png", digest))
    return found.count


@pytest.mark.parametrize(
    ("prepare", "bytes_a_row"), [(run_lmdb, 40), (run_combine, 100), (run_targets, 100), (run_duplicates, 20)]
)
def test_memory_does_not_grow_with_the_rows(
    prepare: Callable[[Path, int], Callable[[], object]], bytes_a_row: float, tmp_path: Path
) -> None:
    peaks = []
    prepare(tmp_path / "first", 10)()  # what is imported and kept does not count
    for count in SIZES:
        stage = prepare(tmp_path / str(count), count)
        gc.collect()
        tracemalloc.start()
        stage()
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert (peaks[1] - peaks[0]) / (SIZES[1] - SIZES[0]) < bytes_a_row, peaks
