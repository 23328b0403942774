"""The image and video files that a folder, a glob pattern or a list file stands for."""

import glob
import os
import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from pipeline.console import printable
from pipeline.errors import SourceError
from pipeline.image_files import is_image

IMAGES = (".avif", ".bmp", ".gif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".mpo", ".pbm", ".pgm", ".png", ".pnm",
          ".ppm", ".tif", ".tiff", ".webp")  # fmt: skip
VIDEOS = (".3gp", ".asf", ".avi", ".flv", ".m2ts", ".m4v", ".mjpeg", ".mjpg", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg",
          ".mts", ".ogv", ".webm", ".wmv")  # fmt: skip
LISTS = (".lst", ".txt")
MAX_LIST_BYTES = 1 << 26  # a line each for a million files


@dataclass
class Found:
    """Files in the order in which they were found."""

    images: list[Path] = field(default_factory=list)
    videos: list[Path] = field(default_factory=list)

    def add(self, path: Path) -> Self:
        """Take a file for an image or a video: by its suffix, and by what it holds where that says nothing."""
        suffix = path.suffix.lower()
        if suffix in IMAGES or (suffix not in VIDEOS and is_image(path)):
            self.images.append(path)
        else:
            self.videos.append(path)
        return self

    def extend(self, paths: Iterable[Path]) -> Self:
        for path in paths:
            self.add(path)
        return self


def find(name: str) -> Found:
    """The files that a path, a folder (with all below it), a pattern or a list file stands for, one at least.

    A name that exists is that file, whatever characters of a pattern it has. Raises SourceError when there is none.
    """
    if not name:
        raise SourceError("an empty name where a file, folder or pattern was expected; is a variable unset?")
    path = Path(name)
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return _matching(name)
    if stat.S_ISDIR(mode):
        return _below(path)
    if path.suffix.lower() in LISTS:
        return Found().extend(read_list(path))
    return Found().add(path)


def _matching(pattern: str) -> Found:
    paths = sorted(match for match in glob.glob(pattern, recursive=True) if os.path.isfile(match))
    if not paths:
        raise SourceError(
            f"{printable(pattern)}: no such file or folder, and no file matches it as a pattern; check the path"
        )
    return Found().extend(map(Path, paths))


def _below(folder: Path) -> Found:
    unreadable: list[OSError] = []
    paths = sorted(
        Path(parent, file)
        for parent, _, files in os.walk(folder, onerror=unreadable.append)
        for file in files
        if Path(file).suffix.lower() in IMAGES + VIDEOS
    )
    for error in unreadable:
        raise SourceError(f"{printable(error.filename)}: cannot be listed: {error.strerror}; allow it, or name others")
    if not paths:
        raise SourceError(
            f"{printable(folder)}: no image or video in this folder or below it where at least one was expected "
            f"({' '.join(IMAGES)}; {' '.join(VIDEOS)})"
        )
    return Found().extend(paths)


def read_list(path: Path) -> list[Path]:
    """The files that a list names, one a line, relative to the list's folder; with Caffe's label behind or without.

    Names are bytes, as the file system has them; empty lines are passed over. Raises SourceError naming the first line
    whose file does not exist.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_LIST_BYTES + 1)
    except OSError as error:
        raise SourceError(f"{printable(path)}: cannot be read: {error.strerror}") from None
    if len(data) > MAX_LIST_BYTES or b"\0" in data:
        raise SourceError(f"{printable(path)}: no list of files, which is text of at most {MAX_LIST_BYTES >> 20} MiB")
    lines = [line.removesuffix(b"\r") for line in data.removeprefix(b"\xef\xbb\xbf").split(b"\n")]
    paths = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        name = os.fsdecode(line)
        candidates = [path.parent / name, *(path.parent / match[1] for match in [LABELLED.match(name)] if match)]
        existing = next((candidate for candidate in candidates if candidate.is_file()), None)
        if existing is None:
            raise SourceError(
                f"{printable(path)}:{number}: no such file: {printable(candidates[-1])}; "
                "a line is a path relative to the list, correct or remove it"
            )
        paths.append(existing)
    if not paths:
        raise SourceError(f"{printable(path)}: an empty list where a path on each line was expected")
    return paths


# Caffe's convert_imageset takes what stands behind the last space for the label (tools/convert_imageset.cpp).
LABELLED = re.compile(r"(.+) -?[0-9]+\s*$", re.DOTALL)
