"""Image files: one way of decoding them, for training and serving alike."""

import importlib.util
import io
import math
import re
import struct
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps
from PIL.TiffImagePlugin import TiffImageFile

from pipeline.base.console import log, printable
from pipeline.base.errors import SourceError, TooManyPixelsError, TooNarrowError
from pipeline.base.file_kinds import HEAD, is_video, kind_of

MAX_PIXELS = 1 << 27  # 134 megapixels, 400 MB as RGB: above any phone's picture, below what empties a machine
MAX_BYTES = 1 << 28  # of an image that is held in memory as it came
# Pillow's own formats; of the others some start a program (EPS: Ghostscript) or hold no picture that a face is in.
# In this order Pillow imports the rarer ones only where they are needed.
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "PPM", "WEBP", "TIFF", "AVIF", "JPEG2000")
HEIC = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}  # brands, ISO/IEC 23008-12
AVIF = {b"avif", b"avis"}
# How files of images begin, those included that Pillow no longer recognises when they are cut (TIFF, AVIF).
IMAGE_HEAD = re.compile(
    rb"\xff\xd8\xff[\xc0-\xfe]|\x89PNG\r\n\x1a\n|GIF8[79]a|RIFF....WEBP|BM....\0\0\0\0|II\*\0|MM\0\*"
    rb"|....ftyp(" + b"|".join(sorted(HEIC | AVIF)) + rb")|\0\0\0\x0cjP {2}",
    re.DOTALL,
)
DEPTHS = (8, 10, 12, 14, 16, 24, 32)  # bits that cameras and scanners measure, whatever their files have room for
ORIENTATION = 0x0112  # EXIF's tag
SUBFILE, SUB_IFDS = 0x00FE, 0x014A  # a TIFF's tags: bit 0 of the first marks a preview; the second leads to more images
PHOTOMETRIC, WHITE_IS_ZERO = 0x0106, 0  # a TIFF's tag, and the value of it that Pillow obeys up to 8 bits
TRANSPOSED = (5, 6, 7, 8)  # of its values, those that exchange width and height
PNG = b"\x89PNG\r\n\x1a\n"
END_OF_JPEG = b"\xff\xd9"
# What a JPEG's decoder would take for more of the picture, if the picture were not complete.
MORE_OF_JPEG = (b"", b"\x55" * 64, b"\xaa\x33" * 64)
BAND_PIXELS = 1 << 20  # of an image that is scaled down: as many are RGB at a time

Remark = Callable[[str], None]  # takes what there is to be said of a file that is read all the same


@dataclass(frozen=True)
class ImageBounds:
    """What an image may be, which its header tells before it is unpacked, and to what it is scaled down.

    pixels: at most; side: of the longer side, in pixels; ratio: of the longer side to the shorter one. scaled: pixels
    beyond which the image is scaled down to as many while it is unpacked, None for never.
    """

    pixels: int = MAX_PIXELS
    side: int = MAX_PIXELS
    ratio: float = math.inf
    scaled: int | None = None

    def check(self, name: str, width: int, height: int) -> None:
        """Raise TooManyPixelsError, or TooNarrowError."""
        if width * height > self.pixels or max(width, height) > self.side:
            sides = "" if self.side >= self.pixels else f", {self.side} along a side,"
            raise TooManyPixelsError(
                f"{name}: {width}x{height} pixels where at most {self.pixels}{sides} are read; scale the image down"
            )
        if max(width, height) > self.ratio * min(width, height):
            raise TooNarrowError(
                f"{name}: {width}x{height} pixels where a side of at most {self.ratio:g} times the other was expected; "
                "cut the image into pieces"
            )

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Width and height of an image as it is read."""
        if self.scaled is None or width * height <= self.scaled:
            return width, height
        shorter, longer = sorted((width, height))
        # In whole numbers: a quotient that is rounded down a bit gives a side less, even none.
        least = max(1, math.isqrt(self.scaled * shorter // longer))
        most = min(math.isqrt(self.scaled * longer // shorter), self.scaled // least)
        return (most, least) if width > height else (least, most)


@dataclass(frozen=True, eq=False)
class ScaledImage:
    """pixels: (H, W, 3) uint8 RGB, upright. width, height: of the image before it was scaled down."""

    pixels: np.ndarray
    width: int
    height: int


Look = Callable[[int, int], None]  # takes width and height before an image is unpacked; a SourceError ends it there


def read_image(path: Path) -> np.ndarray:
    """Read an image file to (H, W, 3) uint8 RGB.

    Turned upright as its EXIF orientation says; grey and palette spread to RGB; more than 8 bits cut to the upper 8 of
    those that are used; transparency laid on white; CMYK converted; of an animation the first frame. A PNG with a wrong
    checksum in a chunk that is no part of the picture, and a JPEG that lacks nothing but its end marker, are read; that
    and the use of fewer bits are said in the log. Raises SourceError naming the file when it is no image, is damaged or
    truncated, or has more than MAX_PIXELS pixels, which is known before it is unpacked.
    """
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):  # opening it may take for ever
            raise SourceError(f"{printable(path)}: a pipe or device where an image file was expected")
        with path.open("rb") as file:
            return _decode(file, printable(path), ImageBounds(MAX_PIXELS), log.warning).pixels
    except (OSError, ValueError) as error:
        raise SourceError(f"{printable(path)}: cannot be read as an image: {_reason(error)}") from None


def decode_image(data: bytes, name: str, *, max_pixels: int = MAX_PIXELS, remark: Remark = log.warning) -> np.ndarray:
    """Read the bytes of an image file as read_image does; `name` is what errors and remarks call them."""
    return _decode(io.BytesIO(data), printable(name), ImageBounds(max_pixels), remark).pixels


def decode_scaled(
    data: bytes, name: str, bounds: ImageBounds, *, remark: Remark = log.warning, look: Look | None = None
) -> ScaledImage:
    """Read the bytes of an image file as decode_image does, scaled down to `bounds.scaled` pixels.

    What is larger is never whole in memory as RGB. look: called with the size before the image is unpacked. Raises
    SourceError, also those of `look`.
    """
    return _decode(io.BytesIO(data), printable(name), bounds, remark, look)


def is_image(path: Path) -> bool:
    """Whether a file is an image by what it holds, a damaged one, an empty one or one that is not read included."""
    try:
        with path.open("rb") as file:
            head = file.read(HEAD)
            if _has_heic(head) or IMAGE_HEAD.match(head):
                return True
            file.seek(0)
            with Image.open(file, formats=FORMATS):
                return True
    except Image.UnidentifiedImageError:
        return path.stat().st_size == 0
    except Exception:  # whatever Pillow raises when the header of what it knows is damaged
        return True


def is_heic(path: Path) -> bool:
    """Whether a file is a HEIC by what it holds; not one that cannot be opened."""
    try:
        with path.open("rb") as file:
            return _has_heic(file.read(HEAD))
    except OSError:
        return False


def _has_heic(start: bytes) -> bool:
    """Whether these are the first bytes of a HEIC. All of its brands count: a camera may put one of its own first."""
    if start[4:8] != b"ftyp":
        return False
    end = min(int.from_bytes(start[:4]), len(start))
    brands = {start[8:12], *(start[at : at + 4] for at in range(16, end, 4))}
    return bool(brands & HEIC) and not brands & AVIF


def reads_heic() -> bool:
    """Whether what reads HEIC is installed."""
    return importlib.util.find_spec("pillow_heif") is not None


def _decode(file: BinaryIO, name: str, bounds: ImageBounds, remark: Remark, look: Look | None = None) -> ScaledImage:
    def say(what: str) -> None:
        remark(f"{name}: {what}")

    def check(width: int, height: int) -> None:
        bounds.check(name, width, height)
        if look is not None:
            look(width, height)

    def unpack(file: BinaryIO) -> ScaledImage:
        return _unpack(file, bounds, check, say)

    try:
        return unpack(file)
    except SourceError:
        raise
    except Image.DecompressionBombError:
        raise TooManyPixelsError(f"{name}: more than {bounds.pixels} pixels; scale the image down") from None
    except MemoryError:
        raise SourceError(f"{name}: takes more memory than there is; scale the image down") from None
    except Exception as error:  # decoders raise what they like; none of it may end more than this image
        file.seek(0)
        data = file.read(MAX_BYTES)
        mended = _without_bad_checksums(data, unpack, say) if data.startswith(PNG) else None
        if mended is None and data.startswith(b"\xff\xd8"):
            mended = _without_end(data, unpack, say)
        if mended is not None:
            return mended
        if isinstance(error, Image.UnidentifiedImageError):
            raise SourceError(f"{name}: {_unidentified(data[:HEAD])} where an image was expected") from None
        raise SourceError(f"{name}: cannot be read as an image: {_reason(error)}") from None


def _unpack(file: BinaryIO, bounds: ImageBounds, check: Look, say: Remark) -> ScaledImage:
    formats: tuple[str, ...] = FORMATS
    if _has_heic(file.read(HEAD)) and reads_heic():
        import pillow_heif

        pillow_heif.register_heif_opener()
        formats = ("HEIF",)
    file.seek(0)
    # Pillow warns of metadata that does not matter here.
    with warnings.catch_warnings(action="ignore"), Image.open(file, formats=formats) as image:
        if isinstance(image, TiffImageFile) and image.tag_v2.get(SUBFILE, 0) & 1 and SUB_IFDS in image.tag_v2:
            raise ValueError("a camera's raw photograph, which begins with a small preview; save it as JPEG")
        width, height = image.size
        check(width, height)
        size = bounds.size(width, height)
        image.draft(image.mode, size)  # a JPEG is unpacked at a half, a quarter or an eighth of its size
        deep = _is_deep(image, file)
        if deep:
            image.load()  # of what is damaged, Pillow's error is an error, and OpenCV's some lines on the terminal
        orientation = _orientation(image)
        pixels = to_rgb(_deep(file, orientation, say), say, size=size) if deep else to_rgb(image, say, size=size)
    if orientation in TRANSPOSED:
        width, height = height, width
    return ScaledImage(pixels, width, height)


def _orientation(image: Image.Image) -> int:
    """EXIF's; a TIFF's decoders, Pillow's and OpenCV's, turn it upright by themselves. This unpacks a PNG."""
    return 1 if isinstance(image, TiffImageFile) else image.getexif().get(ORIENTATION, 1)


def _is_deep(image: Image.Image, file: BinaryIO) -> bool:
    """Whether an image has colours of 16 bits. Pillow would keep only their upper 8.

    Those of print (CMYK) use all 16, and OpenCV takes them for something else.
    """
    if image.mode.startswith("I") or image.mode == "CMYK":
        return False
    if image.format == "JPEG2000":
        file.seek(0)
        size = file.read(4096).partition(b"\xff\x4f\xff\x51")[2]  # ISO/IEC 15444-1, A.5.1
        return len(size) > 38 and (size[38] & 0x7F) + 1 == 16
    decoding = str(getattr(image, "tile", ""))  # of a file, what Pillow's decoders take
    return ";16" in decoding or (image.format == "PPM" and "65535" in decoding)


def _deep(file: BinaryIO, orientation: int, say: Remark) -> Image.Image:
    """A colour image of 16 bits, by OpenCV."""
    import cv2

    file.seek(0)
    pixels = cv2.imdecode(np.frombuffer(file.read(), np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise ValueError("damaged or truncated; is it whole?")
    if pixels.ndim == 3:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_BGRA2RGBA if pixels.shape[2] == 4 else cv2.COLOR_BGR2RGB)
    colour = _eight_bits(pixels[..., :3] if pixels.ndim == 3 else pixels, say)
    if pixels.ndim == 3 and pixels.dtype == np.uint16 and pixels.shape[2] == 4:
        bits = _bits_used(pixels[..., :3])
        opacity = pixels[..., 3:]  # has as many, unless it shows that it has all
        colour = np.dstack([colour, _cut(opacity, bits if opacity.max(initial=0) < 1 << bits else 16)])
    image = Image.fromarray(colour)
    image.getexif()[ORIENTATION] = orientation
    return image


def to_rgb(image: Image.Image, remark: Remark = log.warning, *, size: tuple[int, int] | None = None) -> np.ndarray:
    """A Pillow image, open or made, as read_image gives it.

    size: width and height, before it is turned upright, to which it is scaled down; None for its own. Raises what
    Pillow raises, and ValueError for floating-point pixels.
    """
    orientation = _orientation(image)
    if image.mode.startswith("I"):  # grey of more than 8 bits
        values = np.asarray(image)
        grey = _eight_bits(values, remark)
        clear = image.info.get("transparency")
        if isinstance(clear, int):
            grey[values == clear] = 255
        if isinstance(image, TiffImageFile) and image.tag_v2.get(PHOTOMETRIC) == WHITE_IS_ZERO:
            grey = 255 - grey
        image = Image.fromarray(grey)
    if image.mode == "F":
        raise ValueError("floating-point pixels where 8 or 16 bits were expected")
    pixels = np.asarray(_flat(image)) if size in (None, image.size) else _in_bands(image, *size)
    if orientation == 1:
        return pixels
    turned = Image.fromarray(pixels)
    turned.getexif()[ORIENTATION] = orientation
    return np.asarray(ImageOps.exif_transpose(turned))


def _flat(image: Image.Image) -> Image.Image:
    """An image as RGB, its transparency on white."""
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _in_bands(image: Image.Image, width: int, height: int) -> np.ndarray:
    """The image scaled down, (height, width, 3) uint8 RGB: each pixel the mean of those it stands for.

    It becomes RGB band by band, since all of it would take three times the memory of what most bombs unpack to.
    """
    pixels = np.empty((height, width, 3), np.uint8)
    step = image.height / height
    rows = max(1, int(BAND_PIXELS / (image.width * step)))
    for first in range(0, height, rows):
        last = min(first + rows, height)
        top, bottom = first * step, min(last * step, image.height)
        band = _flat(image.crop((0, int(top), image.width, math.ceil(bottom))))
        part = (0, top - int(top), image.width, bottom - int(top))
        pixels[first:last] = np.asarray(band.resize((width, last - first), Image.Resampling.BOX, part))
    return pixels


def _eight_bits(values: np.ndarray, say: Remark) -> np.ndarray:
    """The upper 8 of the bits that are used, which are fewer than a file of 16 has room for when a camera wrote it."""
    if values.dtype == np.uint8:
        return values
    bits, greatest = _bits_used(values), int(values.max(initial=0))
    if bits != 16 and greatest > 0:
        say(f"its values reach {greatest}: taken for {bits} bits, 0 to {(1 << bits) - 1}, and scaled to 8")
    return _cut(values, bits)


def _bits_used(values: np.ndarray) -> int:
    greatest = int(values.max(initial=0))
    return next(bits for bits in DEPTHS if greatest < 1 << bits)


def _cut(values: np.ndarray, bits: int) -> np.ndarray:
    """The upper 8 of so many bits."""
    eight = np.empty(values.shape, np.uint8)
    for row, wide in zip(eight, values, strict=True):  # not all at once: it would be in memory another two times
        row[:] = wide.clip(0, None) >> (bits - 8)
    return eight


def _without_bad_checksums(data: bytes, unpack: Callable[[BinaryIO], ScaledImage], say: Remark) -> ScaledImage | None:
    """A PNG read without those of its chunks whose checksum is wrong and which are no part of the picture, or None.

    A chunk is length, type, data and checksum; a small letter first in its type says that decoders may do without it
    (PNG specification, 5.3 and 5.4). Transparency is one of these, and is needed here.
    """
    kept, bad, place = [data[: len(PNG)]], [], len(PNG)
    while place + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        chunk = data[place : place + 12 + length]
        right = len(chunk) == 12 + length and zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:])
        if not right and kind[:1].islower() and kind != b"tRNS":
            bad.append(kind.decode("ascii", "replace"))
        else:
            kept.append(chunk)
        place += len(chunk)
    if not bad:
        return None
    try:
        image = unpack(io.BytesIO(b"".join(kept)))
    except SourceError:
        raise
    except Exception:  # what is wrong is not this alone
        return None
    say(f"wrong checksum in {', '.join(sorted(set(bad)))}, which is no part of the picture; read without it")
    return image


def _without_end(data: bytes, unpack: Callable[[BinaryIO], ScaledImage], say: Remark) -> ScaledImage | None:
    """A JPEG that lacks its end marker and nothing else, or None.

    Nothing else: whatever stands in the place of more of the picture, the pixels are the same. Of a progressive one
    that is not known, since its scans each refine the whole picture.
    """
    images = []
    for more in MORE_OF_JPEG:
        whole = io.BytesIO(data.rstrip(b"\xff") + more + END_OF_JPEG)
        try:
            with Image.open(whole, formats=("JPEG",)) as image:
                if image.info.get("progressive"):
                    return None
            whole.seek(0)
            images.append(unpack(whole))
        except SourceError:
            raise
        except Exception:  # what is wrong is not this alone
            return None
    if any(not np.array_equal(images[0].pixels, other.pixels) for other in images[1:]):
        return None
    say("lacks its end marker, and no pixel; is it whole?")
    return images[0]


def _unidentified(start: bytes) -> str:
    if not start:
        return "an empty file"
    if _has_heic(start):
        return "a HEIC photograph, which needs `pip install 'caffe-expressions[heic]'` (or save it as JPEG),"
    if IMAGE_HEAD.match(start):
        return "the beginning of an image that is damaged or cut,"
    if is_video(start):
        return "a video, to be given a video's name,"
    return kind_of(start) or "no image of a known format"


def _reason(error: Exception) -> str:
    return str((isinstance(error, OSError) and error.strerror) or error or type(error).__name__)
