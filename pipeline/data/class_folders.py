"""Reads class folders: SPLIT/CLASS/*.png|jpg as Kaggle publishes FER2013 too, or CLASS/*.png|jpg without splits."""

import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from pipeline.base.console import log
from pipeline.base.errors import SourceError
from pipeline.base.image_files import read_image
from pipeline.data.labelled_images import Batch, LabelledImage
from pipeline.data.labels import LABELS
from pipeline.data.manifest import USAGES
from pipeline.data.split import HoldOut, check_parts, group_names, hold_out

SUFFIXES = (".png", ".jpg", ".jpeg")
USAGE_OF_FOLDER = {
    "train": "Training",
    "training": "Training",
    "val": "PublicTest",
    "valid": "PublicTest",
    "validation": "PublicTest",
    "publictest": "PublicTest",
    "test": "PrivateTest",
    "privatetest": "PrivateTest",
}
# What file managers leave; names that begin with a dot are passed over, too.
SIDECARS = ("thumbs.db", "desktop.ini", "__macosx")
SPLIT_NAMES = {"PublicTest": "validation", "PrivateTest": "test"}
IMAGES_PER_BATCH = 32


@dataclass(frozen=True)
class ClassFolder:
    """A folder of pictures of one class. usage: of its split; None where the folders name no splits."""

    path: Path
    usage: str | None

    @property
    def name(self) -> str:
        """Of the class: without regard to case, and to how a file system writes accents."""
        return unicodedata.normalize("NFC", self.path.name).lower()


class ClassFolders:
    """The class folders under a folder, and their classes: FER2013's in its own order, then others by name.

    Folders named as in USAGE_OF_FOLDER hold splits. Raises SourceError where there are no class folders.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        folders = _folders(path)
        splits = [folder for folder in folders if folder.name.lower() in USAGE_OF_FOLDER]
        if splits and len(splits) < len(folders):
            other = next(folder for folder in folders if folder not in splits)
            raise SourceError(
                f"{other}: no split beside {splits[0].name}, where {', '.join(USAGE_OF_FOLDER)} were "
                "expected; rename it, or move it elsewhere"
            )
        self.folders = [
            ClassFolder(folder, USAGE_OF_FOLDER[split.name.lower()] if splits else None)
            for split in splits or [path]
            for folder in _folders(split)
        ]
        for folder in self.folders:
            inner = _folders(folder.path)
            if inner:
                raise SourceError(
                    f"{folder.path}: holds folders ({inner[0].name}) where pictures of one class were "
                    f"expected; if those are its classes or splits, give {folder.path}"
                )
        if not self.folders:
            raise SourceError(
                f"{path}: no class folders, where SPLIT/CLASS/*.png or CLASS/*.png was expected; give "
                "the folder above them"
            )
        order = {label: index for index, label in enumerate(LABELS)}
        names = {folder.name for folder in self.folders}
        self.labels = tuple(sorted(names, key=lambda name: (order.get(name, len(LABELS)), name)))


class FolderSource:
    """The images of class folders, in the order of their paths; grey, 8 bits, read as predict reads them, of any size.

    kept: indices of the classes that are used. Where no folder names a validation split, hold_out() takes it from the
    training images; where none names any split, the test split as well. Errors are SourceError naming the file or the
    class, or OSError.
    """

    def __init__(self, folders: ClassFolders, kept: Sequence[int], rule: HoldOut) -> None:
        self.labels = folders.labels
        self._path = folders.path
        pictures = [
            (folder.usage, index, file)
            for folder in folders.folders
            if (index := self.labels.index(folder.name)) in kept
            for file in _pictures(folder.path)
        ]
        training = [place for place, (usage, _, _) in enumerate(pictures) if usage in (None, "Training")]
        numbers = Counter(pictures[place][1] for place in training)
        for label in kept:
            if not numbers[label]:
                raise SourceError(
                    f"{self._path}: class {self.labels[label]} has no {' or '.join(SUFFIXES)} file to "
                    "train on; add some, or leave the class out with classes"
                )
        parts = self._hold_out([pictures[place][1:] for place in training], {usage for usage, _, _ in pictures}, rule)
        held_out = dict(zip(training, parts, strict=True))
        self.files = [
            (held_out.get(place, usage or ""), label, file) for place, (usage, label, file) in enumerate(pictures)
        ]

    def _hold_out(self, training: list[tuple[int, Path]], given: set[str | None], rule: HoldOut) -> list[str]:
        """The Usage of each training image, once the splits that are not given are taken from them."""
        shares = dict.fromkeys(USAGES[1:] if given == {None} else set(USAGES[1:2]) - given, rule.share)
        if not shares:
            return ["Training"] * len(training)
        labels = np.array([label for label, _ in training])
        people = group_names([file for _, file in training], rule.groups)
        parts = hold_out(labels, people, shares, rule.seed)
        check_parts(self._path, labels, parts, self.labels, ("Training", *shares), people=people)
        found = Counter(parts)
        for usage in shares:
            log.info(
                "%s: no folder of a %s split, so %d of the %d training images are held out as %s: about %g of "
                "each class, seed %d",
                self._path,
                SPLIT_NAMES[usage],
                found[usage],
                len(training),
                usage,
                rule.share,
                rule.seed,
            )
        if any(people):
            log.info(
                "%s: the pictures of each of %d people, as the files' names tell them, are in one part",
                self._path,
                len(set(filter(None, people))),
            )
        return parts

    def batches(self) -> Iterator[Batch]:
        for first in range(0, len(self.files), IMAGES_PER_BATCH):
            yield partial(_read, first, self.files[first : first + IMAGES_PER_BATCH])


def _folders(path: Path) -> list[Path]:
    return sorted(folder for folder in path.iterdir() if folder.is_dir() and not _is_sidecar(folder))


def _is_sidecar(path: Path) -> bool:
    return path.name.startswith(".") or path.name.lower() in SIDECARS


def _pictures(folder: Path) -> list[Path]:
    files = sorted(file for file in folder.iterdir() if not _is_sidecar(file))
    for file in files:
        if file.suffix.lower() not in SUFFIXES:
            raise SourceError(f"{file}: {' or '.join(SUFFIXES)} was expected; convert it, or move it elsewhere")
    return files


def _read(first: int, files: list[tuple[str, int, Path]]) -> list[LabelledImage]:
    return [LabelledImage(row, usage, label, _pixels(file)) for row, (usage, label, file) in enumerate(files, first)]


def _pixels(file: Path) -> np.ndarray:
    return cv2.cvtColor(read_image(file), cv2.COLOR_RGB2GRAY)
