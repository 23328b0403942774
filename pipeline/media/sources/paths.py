"""The image and video files that a folder, a glob pattern or a list file stands for."""

import codecs
import glob
import os
import re
import stat
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from pipeline.base.console import printable
from pipeline.base.errors import SourceError
from pipeline.base.file_kinds import HEAD, kind_of
from pipeline.base.image_files import is_heic, is_image, reads_heic
from pipeline.base.text_files import encoding_of

IMAGES = (
    ".avif",
    ".bmp",
    ".gif",
    ".heic",
    ".heif",
    ".hif",
    ".jfif",
    ".jp2",
    ".jpe",
    ".jpeg",
    ".jpg",
    ".mpo",
    ".pbm",
    ".pgm",
    ".png",
    ".pnm",
    ".ppm",
    ".tif",
    ".tiff",
    ".webp",
)
VIDEOS = (
    ".3gp",
    ".asf",
    ".avi",
    ".flv",
    ".m2ts",
    ".m4v",
    ".mjpeg",
    ".mjpg",
    ".mkv",
    ".mov",
    ".mp4",
    ".mpeg",
    ".mpg",
    ".mts",
    ".ogv",
    ".webm",
    ".wmv",
)
LISTS = (".lst", ".txt")
HEICS = (".heic", ".heif", ".hif")
NAMED = 5  # of the files that are passed over
MAX_LIST_BYTES = 1 << 26  # a line each for a million files


@dataclass
class Found:
    """Files in the order in which they were found; `passed` over: those that are neither an image nor a video."""

    images: list[Path] = field(default_factory=list)
    videos: list[Path] = field(default_factory=list)
    passed: list[Path] = field(default_factory=list)

    def add(self, path: Path) -> Self:
        """Take a file for an image or a video: by its suffix, and by what it holds where that says nothing.

        A HEIC is no video, whatever its name: FFmpeg would make one of its first tile.
        """
        suffix = path.suffix.lower()
        if suffix in IMAGES or (is_heic(path) if suffix in VIDEOS else is_image(path)):
            self.images.append(path)
        else:
            self.videos.append(path)
        return self

    def take(self, path: Path) -> Self:
        """Take one file of many that nobody named: what is neither an image nor a video is passed over."""
        return self.add(path) if _is_wanted(path) else self._pass(path)

    def _pass(self, path: Path) -> Self:
        self.passed.append(path)
        return self

    def extend(self, other: "Found") -> Self:
        self.images += other.images
        self.videos += other.videos
        self.passed += other.passed
        return self

    def __bool__(self) -> bool:
        return bool(self.images or self.videos)


def find(name: str, *, alone: bool = True, leave_out: Collection[Path] = ()) -> Found:
    """The files that a path, a folder (with all below it), a pattern or a list file stands for.

    A name that exists is that file, whatever characters of a pattern it has. alone: it is the only word, so that it
    must stand for one file at least; of several, such as a shell makes of a pattern, a file that is neither an image
    nor a video is passed over, and so is a folder without any. leave_out: folders and files that a folder or a pattern
    does not stand for. Raises SourceError when there is none.
    """
    if not name:
        raise SourceError("an empty name where a file, folder or pattern was expected; is a variable unset?")
    path = Path(name)
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        # Of a link to nothing among many files, as of a file that cannot be read, its turn tells.
        return Found().add(path) if not alone and path.is_symlink() else _matching(name, leave_out)
    if stat.S_ISDIR(mode):
        return _below(path, leave_out, alone=alone)
    if not stat.S_ISREG(mode):
        raise SourceError(
            f"{printable(name)}: {_special(mode)} where a file or folder was expected; images that are piped in are "
            f"read with - ({printable(name)} as its standard input)"
        )
    if path.suffix.lower() in LISTS and (alone or _is_list(path)):
        return read_list(path, leave_out)
    return Found().add(path) if alone else Found().take(path)


def _special(mode: int) -> str:
    kinds = {stat.S_IFIFO: "a pipe (FIFO)", stat.S_IFSOCK: "a socket", stat.S_IFBLK: "a disk"}
    return kinds.get(stat.S_IFMT(mode), "a device")


def _matching(pattern: str, leave_out: Collection[Path]) -> Found:
    paths = sorted(match for match in glob.glob(pattern, recursive=True) if os.path.isfile(match))
    if not paths:
        raise SourceError(
            f"{printable(pattern)}: no such file or folder, and no file matches it as a pattern; check the path"
        )
    found = Found()
    left = [path.resolve() for path in leave_out]
    for path in map(Path, paths):
        if any(path.resolve().is_relative_to(folder) for folder in left):
            continue
        if path.suffix.lower() in LISTS and _is_list(path):
            found.extend(read_list(path, leave_out))
        else:
            found.take(path)
    if not found:
        raise _nothing(f"{printable(pattern)}: no image or video matches this pattern", found)
    return found


def _below(folder: Path, leave_out: Collection[Path], *, alone: bool) -> Found:
    """Folders behind symbolic links are walked after the others, each once."""
    left = {path.resolve() for path in leave_out}
    if not alone and folder.resolve() in left:
        return Found(passed=[folder])
    unreadable: list[OSError] = []
    paths: list[Path] = []
    seen: set[Path] = set()
    waiting = [folder]
    while waiting:
        top = waiting.pop(0)
        if top.resolve() in seen:
            continue
        for parent, folders, files in os.walk(top, onerror=unreadable.append):
            real = Path(parent).resolve()
            seen.add(real)
            linked = [name for name in sorted(folders) if Path(parent, name).is_symlink()]
            waiting += [Path(parent, name) for name in linked if (real / name).resolve() not in left]
            folders[:] = sorted(name for name in folders if name not in linked and real / name not in left)
            paths += [Path(parent, name) for name in files if real / name not in left]
    for error in unreadable:
        raise SourceError(f"{printable(error.filename)}: cannot be listed: {error.strerror}; allow it, or name others")
    found = Found()
    for path in sorted(paths):
        if path.suffix.lower() in IMAGES + VIDEOS:
            found.take(path)
        else:
            found.passed.append(path)
    if not found and alone:
        raise _nothing(f"{printable(folder)}: no image or video in this folder or below it", found)
    if not found and not found.passed:
        found.passed.append(folder)
    return found


def _nothing(what: str, found: Found) -> SourceError:
    instead = f", only {passed_over(found.passed)}" if found.passed else ""
    return SourceError(f"{what}{instead}, where at least one was expected ({' '.join(IMAGES)}; {' '.join(VIDEOS)})")


def passed_over(paths: Sequence[Path]) -> str:
    """Files that are neither an image nor a video, counted and the first of them named."""
    names = ", ".join(printable(path.name) for path in paths[:NAMED]) + (", …" if len(paths) > NAMED else "")
    heic = any(path.suffix.lower() in HEICS for path in paths)
    hint = "; HEIC needs `pip install 'caffe-expressions[heic]'`" if heic else ""
    return f"{len(paths)} other {'file' if len(paths) == 1 else 'files'} ({names}{hint})"


def _is_wanted(path: Path) -> bool:
    """Whether a file that nobody named may be an image or a video."""
    if path.name.startswith("._") or (path.suffix.lower() in HEICS and not reads_heic()):
        return False
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return False
        if path.suffix.lower() in IMAGES + VIDEOS:
            return True
        return path.stat().st_size > 0 and (is_image(path) or not _is_beside(path))
    except OSError:
        return True  # what cannot be read is told when its turn comes


def _is_beside(path: Path) -> bool:
    """Whether a file is text, an archive or another thing that lies beside pictures."""
    with path.open("rb") as file:
        start = file.read(HEAD)
    return b"\0" not in start or kind_of(start) is not None


def _is_list(path: Path) -> bool:
    """Whether the first line of a text is a file or a folder."""
    try:
        line = next(iter(_lines(path)), None)
    except SourceError:
        return False
    return line is not None and _listed(path.parent, line[1]) is not None


def read_list(path: Path, leave_out: Collection[Path] = ()) -> Found:
    """The files and folders that a list names, one a line, relative to the list's folder; with Caffe's label behind or
    without.

    Names are bytes, as the file system has them, or UTF-16; empty lines are passed over. Raises SourceError naming the
    first line whose file does not exist.
    """
    return named_in(_lines(path), path.parent, printable(path), leave_out)


def named_in(lines: Iterable[tuple[int, str]], folder: Path, name: str, leave_out: Collection[Path] = ()) -> Found:
    """The files and folders that numbered lines name, relative to `folder`; name: of the list, - for standard input.

    What standard input names may be all of a folder, as `ls` does: what is neither an image nor a video is passed over.
    Raises SourceError as read_list does.
    """
    found = Found()
    for number, line in lines:
        path = _listed(folder, line)
        if path is None:
            place = folder / (_label_off(line) or line)
            fault = "no file that can be read" if place.exists() and not place.is_dir() else "no such file"
            base = "the current folder" if name == "-" else "the list"
            raise SourceError(
                f"{name}:{number}: {fault}: {printable(place)}; a line is a path relative to {base}, correct or "
                "remove it"
            )
        if path.is_dir():
            found.extend(_below(path, leave_out, alone=False))
        elif name == "-":
            found.take(path)
        else:
            found.add(path)
    if not found and found.passed:
        raise _nothing(f"{name}: no image or video", found)
    if not found:
        raise SourceError(f"{name}: an empty list where a path on each line was expected")
    return found


def _lines(path: Path) -> list[tuple[int, str]]:
    try:
        with path.open("rb") as file:
            return lines_of(file.read(MAX_LIST_BYTES + 1), printable(path))
    except OSError as error:
        raise SourceError(f"{printable(path)}: cannot be read: {error.strerror}") from None


def lines_of(data: bytes, name: str) -> list[tuple[int, str]]:
    """The lines of a list that are not empty, each with its number. Raises SourceError for what is no text."""
    encoding = encoding_of(data[:HEAD])
    if encoding != "utf-8-sig":
        try:
            data = os.fsencode(data.decode(encoding).removeprefix("\ufeff"))
        except UnicodeError:
            what = encoding.upper()
            raise SourceError(f"{name}: no list of files: it begins as {what}, and is not; save it as UTF-8") from None
    if len(data) > MAX_LIST_BYTES or b"\0" in data:
        raise SourceError(f"{name}: no list of files, which is text of at most {MAX_LIST_BYTES >> 20} MiB")
    end = b"\n" if b"\n" in data else b"\r"  # the second of old programs alone; a file's name may have it, too
    lines = [line.removesuffix(b"\r") for line in data.removeprefix(codecs.BOM_UTF8).split(end)]
    return [(number, os.fsdecode(line)) for number, line in enumerate(lines, 1) if line.strip()]


def _listed(folder: Path, line: str) -> Path | None:
    """The file or folder that a line names, with a label behind it or without."""
    for name in (line, _label_off(line)):
        if name and name != ".." and ((path := folder / name).is_file() or path.is_dir()):
            return path
    return None


def _label_off(line: str) -> str | None:
    match = LABELLED.match(line)
    return match[1] if match else None


# Caffe's convert_imageset takes what stands behind the last space for the label (tools/convert_imageset.cpp).
LABELLED = re.compile(r"(.+) -?[0-9]+\s*$", re.DOTALL)
