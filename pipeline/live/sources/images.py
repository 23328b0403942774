"""Images: from files, from an address, from standard input."""

import binascii
import io
import os
import re
import struct
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Protocol, Self

import numpy as np
from PIL import Image, ImageOps

from pipeline.console import log
from pipeline.live.fetch import FetchError, fetch, without_credentials
from pipeline.live.frames import Frame, SourceError, TooManyPixelsError
from pipeline.live.sources.concatenated import split_images
from pipeline.live.sources.paths import printable

MAX_PIXELS = 1 << 27  # 134 megapixels, 400 MB as RGB: above any phone's picture, below what empties a machine
MAX_BYTES = 1 << 28  # of an image that is held in memory as it came
FETCH_SECONDS = 30.0
# Pillow's own formats; of the others some start a program (EPS: Ghostscript) or hold no picture that a face is in.
# In this order Pillow imports the rarer ones only where they are needed.
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "PPM", "WEBP", "TIFF", "AVIF", "JPEG2000")
UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, struct.error)  # all of them raised by Pillow's readers
HEIC = re.compile(rb"....ftyp(heic|heix|heim|heis|hevc|hevx|mif1|msf1)", re.DOTALL)
DATA_URL = re.compile(r"data:(?P<type>[^;,]*)(?:;[^;,]+)*?;base64,", re.IGNORECASE)

Load = Callable[[], np.ndarray]


class Entry(Protocol):
    """One of the inputs of ImageFiles: names of images, each with what reads it, raising SourceError or FetchError."""

    @property
    def name(self) -> str: ...

    @property
    def count(self) -> int | None: ...

    def images(self) -> Iterator[tuple[str, Load]]: ...


@dataclass(frozen=True)
class ImageFile:
    path: Path
    count: int | None = 1

    @property
    def name(self) -> str:
        return str(self.path)

    def images(self) -> Iterator[tuple[str, Load]]:
        yield self.name, partial(read_image, self.path)


@dataclass(frozen=True)
class ImageAddress:
    """An image behind an http(s) address; its name leaves out what may be secret in that."""

    url: str
    count: int | None = 1

    @property
    def name(self) -> str:
        return without_credentials(self.url)

    def images(self) -> Iterator[tuple[str, Load]]:
        yield self.name, self._read

    def _read(self) -> np.ndarray:
        return decode_image(fetch(self.url, private=True, max_bytes=MAX_BYTES, timeout=FETCH_SECONDS), self.name)


@dataclass(frozen=True)
class StandardInput:
    """The images that come on standard input one behind the other, called stdin-1, stdin-2, ..."""

    name: str = "stdin"
    count: int | None = None

    def images(self) -> Iterator[tuple[str, Load]]:
        number = 0
        for number, data in enumerate(split_images(_standard_input(), MAX_BYTES), 1):
            name = f"{self.name}-{number}"
            yield name, partial(decode_image, data, name)
        if not number:
            raise SourceError("-: nothing on standard input where the bytes of an image were expected")


def _standard_input() -> BinaryIO:
    if sys.stdin is None:
        raise SourceError("-: standard input is closed; pipe the bytes of an image into it")
    if sys.stdin.isatty():
        raise SourceError("-: standard input is the terminal; pipe the bytes of an image into it")
    return sys.stdin.buffer


class ImageFiles:
    """A source of images that have nothing to do with one another, each read when its turn comes.

    One that cannot be read is a line in the log and one more in `failed`; the others go on. root: the folder that all
    files among them lie under, the current one where there are others.
    """

    moving = False
    live = False
    dropped = 0

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.entries = entries
        counts = [entry.count for entry in entries]
        self.total = None if None in counts else sum(count or 0 for count in counts)
        self.name = entries[0].name if len(entries) == 1 else f"{len(entries)} images"
        self.failed = 0

    @property
    def paths(self) -> list[Path]:
        """Those of the images that are files."""
        return [entry.path for entry in self.entries if isinstance(entry, ImageFile)]

    @property
    def root(self) -> Path:
        paths = [entry.path if isinstance(entry, ImageFile) else Path("image") for entry in self.entries]
        return Path(os.path.commonpath([path.absolute().parent for path in paths]))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def __iter__(self) -> Iterator[Frame]:
        for index, (name, load) in enumerate(image for entry in self.entries for image in entry.images()):
            try:
                image = load()
            except (SourceError, FetchError) as error:
                self.failed += 1
                log.error("error: %s", error)
            else:
                yield Frame(name, image, index)


def read_image(path: Path) -> np.ndarray:
    """Read an image file to (H, W, 3) uint8 RGB.

    Turned upright as its EXIF orientation says; grey and palette spread to RGB; 16 bits cut to the upper 8;
    transparency laid on white; CMYK converted; of an animation the first frame. Raises SourceError naming the file
    when it is no image, is damaged or truncated, or has more than MAX_PIXELS pixels, which is known before it is
    unpacked.
    """
    try:
        with path.open("rb") as file:
            return _decode(file, printable(path), MAX_PIXELS)
    except (OSError, ValueError) as error:
        raise SourceError(f"{printable(path)}: cannot be read as an image: {_reason(error)}") from None


def decode_image(data: bytes, name: str, *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Read the bytes of an image file as read_image does; `name` is what errors call them."""
    return _decode(io.BytesIO(data), printable(name), max_pixels)


def decode_data_url(text: str, name: str = "data URL", *, max_bytes: int = MAX_BYTES) -> bytes:
    """The image file within data:image/...;base64,... (RFC 2397), of at most `max_bytes`.

    Raises SourceError for another form, another type than an image's, and anything among the base64 that does not
    belong there.
    """
    start = DATA_URL.match(text[:1024])
    if not start:
        raise SourceError(f"{name}: data:image/...;base64,... was expected, an image's bytes in base64")
    media_type = start["type"].lower()
    if media_type and not media_type.startswith("image/"):
        raise SourceError(f"{name}: {printable(media_type[:80])} where an image was expected")
    if (len(text) - start.end()) // 4 * 3 > max_bytes + 2:
        raise SourceError(f"{name}: more than the {max_bytes} bytes that are read; give a smaller image")
    try:
        if (len(text) - start.end()) % 4 or text.endswith("==="):
            raise ValueError("digits come in fours, the last padded")  # Python lets too many = pass
        data = binascii.a2b_base64(text[start.end() :], strict_mode=True)
    except ValueError:  # binascii's, and that of characters beyond ASCII
        raise SourceError(f"{name}: what follows base64, is not base64 (RFC 4648); was it cut or re-coded?") from None
    if len(data) > max_bytes:
        raise SourceError(f"{name}: {len(data)} bytes where at most {max_bytes} are read; give a smaller image")
    return data


def _decode(file: BinaryIO, name: str, max_pixels: int) -> np.ndarray:
    try:
        # Pillow warns of metadata that does not matter here.
        with warnings.catch_warnings(action="ignore"), Image.open(file, formats=FORMATS) as image:
            if image.width * image.height > max_pixels:
                raise TooManyPixelsError(
                    f"{name}: {image.width}x{image.height} pixels where at most {max_pixels} are read; "
                    "scale the image down"
                )
            return to_rgb(image)
    except Image.DecompressionBombError:
        raise TooManyPixelsError(f"{name}: more than {max_pixels} pixels; scale the image down") from None
    except Image.UnidentifiedImageError:
        raise SourceError(f"{name}: {_unidentified(file)} where an image was expected") from None
    except MemoryError:
        raise SourceError(f"{name}: takes more memory than there is; scale the image down") from None
    except UNREADABLE as error:
        raise SourceError(f"{name}: cannot be read as an image: {_reason(error)}") from None


def _unidentified(file: BinaryIO) -> str:
    file.seek(0)
    start = file.read(16)
    if not start:
        return "an empty file"
    if HEIC.match(start):
        return "a HEIC photograph, which is not read (save it as JPEG),"
    return "no image of a known format"


def _reason(error: Exception) -> str:
    return error.strerror if isinstance(error, OSError) and error.strerror else str(error)


def to_rgb(image: Image.Image) -> np.ndarray:
    """A Pillow image, open or made, as read_image gives it. Raises what Pillow raises, and ValueError for
    floating-point pixels."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # 16-bit grey; "I" is 32 bits wide but holds 16 where files have them
        grey = (np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.mode == "F":
        raise ValueError("floating-point pixels where 8 or 16 bits were expected")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.asarray(image.convert("RGB"))
