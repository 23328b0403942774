"""What tests of several stages share: a small data set, the same on every machine, and a folder that is read-only."""

import csv
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from pipeline.data.labels import IMAGE_SHAPE, LABELS
from pipeline.data.manifest import USAGES


def noise(count: int) -> np.ndarray:
    """(count, 48, 48) uint8 noise, from a generator that numpy keeps as it is (NEP 19)."""
    return np.random.RandomState(0).randint(0, 256, (count, *IMAGE_SHAPE)).astype(np.uint8)


def pixels_text(image: np.ndarray) -> str:
    """An image as the CSV's pixels column has it."""
    return " ".join(map(str, image.ravel().tolist()))


def write_csv(path: Path, images: np.ndarray, usages: tuple[str, ...] = USAGES) -> None:
    """fer2013.csv of (N, 48, 48) images; labels count up and around, of every 5 rows 3 are of the first Usage."""
    with open(path, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("emotion", "pixels", "Usage"))
        for row, image in enumerate(images):
            usage = usages[max(0, row % 5 - 2) % len(usages)]
            writer.writerow((row % len(LABELS), pixels_text(image), usage))


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Nobody may write to the folder meanwhile: root, whom no permission stops, becomes nobody."""
    folder.chmod(0o555)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)
        folder.chmod(0o755)
