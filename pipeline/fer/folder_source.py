"""Reads class folders: SPLIT/CLASS/*.png|jpg as Kaggle publishes FER2013 too, or CLASS/*.png|jpg without splits."""

from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path

import cv2
import numpy as np

from pipeline.fer.images import Batch, LabelledImage, SourceError
from pipeline.fer.labels import LABELS
from pipeline.pictures import decode

SUFFIXES = (".png", ".jpg", ".jpeg")
USAGE_OF_FOLDER = {
    "train": "Training", "training": "Training",
    "val": "PublicTest", "valid": "PublicTest", "validation": "PublicTest", "publictest": "PublicTest",
    "test": "PrivateTest", "privatetest": "PrivateTest",
}  # fmt: skip
SHARES = {"PublicTest": 0.1, "PrivateTest": 0.1}  # of each class, where the folders name no splits
IMAGES_PER_BATCH = 32


class FolderSource:
    """The images of class folders, in the order of their paths; grey, 8 bits, without alpha, of any size.

    Folder names count without regard to case. Folders named as in USAGE_OF_FOLDER hold splits; where there are
    none, each class is split by seed (0.8 Training, 0.1 PublicTest, 0.1 PrivateTest) with the permutation of
    numpy's RandomState, which NEP 19 freezes. The classes are the folders: FER2013's in its own order, then others
    in alphabetical order. Errors are SourceError naming the file, or OSError.
    """

    def __init__(self, path: Path, seed: int) -> None:
        folders = _folders(path)
        splits = [folder for folder in folders if folder.name.lower() in USAGE_OF_FOLDER]
        if splits and len(splits) < len(folders):
            other = next(folder for folder in folders if folder not in splits)
            raise SourceError(f"{other}: no split beside {splits[0].name}, where {', '.join(USAGE_OF_FOLDER)} were "
                              "expected; rename or remove it")
        class_folders = [folder for split in splits or [path] for folder in _folders(split)]
        if not class_folders:
            raise SourceError(f"{path}: no class folders, where SPLIT/CLASS/*.png or CLASS/*.png was expected; give "
                              "the folder above them")
        order = {label: index for index, label in enumerate(LABELS)}
        names = {folder.name.lower() for folder in class_folders}
        self.labels = tuple(sorted(names, key=lambda name: (order.get(name, len(LABELS)), name)))
        self.files = [
            (usage, self.labels.index(folder.name.lower()), file)
            for folder in class_folders
            for usage, file in _split(folder, USAGE_OF_FOLDER.get(folder.parent.name.lower()) if splits else None, seed)
        ]
        if not self.files:
            raise SourceError(f"{path}: no {' or '.join(SUFFIXES)} files in its class folders; give the folder above "
                              "the classes")

    def batches(self) -> Iterator[Batch]:
        for first in range(0, len(self.files), IMAGES_PER_BATCH):
            yield partial(_read, first, self.files[first : first + IMAGES_PER_BATCH])


def _folders(path: Path) -> list[Path]:
    return sorted(folder for folder in path.iterdir() if folder.is_dir() and not folder.name.startswith("."))


def _split(folder: Path, usage: str | None, seed: int) -> Iterator[tuple[str, Path]]:
    files = sorted(file for file in folder.iterdir() if not file.name.startswith("."))
    for file in files:
        if file.suffix.lower() not in SUFFIXES:
            raise SourceError(f"{file}: {' or '.join(SUFFIXES)} was expected; convert or remove it")
    usages = [usage or "Training"] * len(files)
    if usage is None:
        shuffled = iter(np.random.RandomState(seed).permutation(len(files)))
        for held_out, share in SHARES.items():
            for index in islice(shuffled, round(share * len(files))):
                usages[index] = held_out
    yield from zip(usages, files, strict=True)


def _read(first: int, files: list[tuple[str, int, Path]]) -> list[LabelledImage]:
    return [LabelledImage(row, usage, label, _pixels(file)) for row, (usage, label, file) in enumerate(files, first)]


def _pixels(file: Path) -> np.ndarray:
    data = file.read_bytes()
    pixels = decode(data, cv2.IMREAD_GRAYSCALE)
    if pixels is None:
        raise SourceError(f"{file}: no readable image ({len(data)} bytes), where PNG or JPEG was expected; mend or "
                          "remove it")
    return pixels
