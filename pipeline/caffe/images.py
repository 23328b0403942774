"""Pictures in files, and the lists that name them, as Caffe's layers and tools read them (caffe/util/io.cpp)."""

import os
from array import array
from pathlib import Path

import numpy as np

from pipeline.base.errors import InputError
from pipeline.base.pictures import MAX_PIXELS, decode, is_huge

# cv2's flags, which is imported only where a picture is decoded. Both turn a photo upright as its EXIF says.
IMREAD_GRAYSCALE = 0
IMREAD_COLOR = 1

MAX_FILE_BYTES = 1 << 30


class ImageFileError(InputError):
    """A picture that cannot be read, or a list that names none."""


def decode_with_opencv(data: bytes, name: str, *, color: bool, height: int = 0, width: int = 0) -> np.ndarray:
    """Decode a picture: (H, W, 3) blue, green, red with `color`, else (H, W) gray; uint8.

    It is resized bilinearly to height and width, unless they are 0. Raises ImageFileError, speaking of it as `name`.
    """
    import cv2

    if is_huge(data):
        raise ImageFileError(f"{name}: more than the {MAX_PIXELS} pixels that are read; make it smaller")
    image = decode(data, IMREAD_COLOR if color else IMREAD_GRAYSCALE)
    if image is None:
        raise ImageFileError(f"{name}: no picture that OpenCV can read; is the file damaged?")
    return cv2.resize(image, (width, height)) if height and width else image


def read_image_file(path: str, name: str) -> bytes:
    """The bytes of the picture at `path`. Raises ImageFileError, speaking of it as `name`."""
    try:
        file = Path(path)
        if not file.is_file():
            raise ImageFileError(f"{name}: no such file; is the root folder right?")
        if file.stat().st_size > MAX_FILE_BYTES:
            raise ImageFileError(
                f"{name}: {file.stat().st_size} bytes where a picture of at most {MAX_FILE_BYTES} was expected"
            )
        return file.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a zero byte within the path
        raise ImageFileError(f"{name}: cannot be read: {getattr(error, 'strerror', None) or error}") from None


class ImageList:
    """The lines "path label" of a list: what is behind the last space is the label, an integer.

    paths, labels: those of every line. Raises ImageFileError naming the first line that is none.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.paths: list[str] = []
        self.labels = array("i")
        try:
            with path.open("rb") as file:
                for number, line in enumerate(file, 1):
                    self._read(number, line)
        except OSError as error:
            raise ImageFileError(f"{path}: cannot be read: {error.strerror}") from None
        if not self.paths:
            raise ImageFileError(f"{path}: no lines, where 'path label' was expected on each")

    def _read(self, number: int, line: bytes) -> None:
        name, _, label = line.strip(b"\r\n").rpartition(b" ")
        try:
            self.labels.append(int(label))
        except (ValueError, OverflowError):
            name = b""
        if not name:
            raise ImageFileError(
                f"{self.path}:{number}: {os.fsdecode(line.strip()[:200])!r} where 'path label' was "
                "expected, the label an integer"
            )
        self.paths.append(os.fsdecode(name))

    def __len__(self) -> int:
        return len(self.paths)

    def name(self, index: int) -> str:
        """What to call a line's picture in an error: the list, the line and the file."""
        return f"{self.path}:{index + 1}: {self.paths[index]}"
