"""Image files: one way of decoding them, for training and serving alike."""

import importlib.util
import io
import re
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps

from pipeline.base.console import log, printable
from pipeline.base.errors import SourceError, TooManyPixelsError

MAX_PIXELS = 1 << 27  # 134 megapixels, 400 MB as RGB: above any phone's picture, below what empties a machine
MAX_BYTES = 1 << 28  # of an image that is held in memory as it came
# Pillow's own formats; of the others some start a program (EPS: Ghostscript) or hold no picture that a face is in.
# In this order Pillow imports the rarer ones only where they are needed.
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "PPM", "WEBP", "TIFF", "AVIF", "JPEG2000")
HEIC = re.compile(rb"....ftyp(heic|heix|heim|heis|hevc|hevx|mif1|msf1)", re.DOTALL)
DEPTHS = (8, 10, 12, 14, 16, 24, 32)  # bits that cameras and scanners measure, whatever their files have room for
ORIENTATION = 0x0112  # EXIF's tag
PNG = b"\x89PNG\r\n\x1a\n"
END_OF_JPEG = b"\xff\xd9"
# What a JPEG's decoder would take for more of the picture, if the picture were not complete.
MORE_OF_JPEG = (b"", b"\x55" * 64, b"\xaa\x33" * 64)

Remark = Callable[[str], None]  # takes what there is to be said of a file that is read all the same


def read_image(path: Path) -> np.ndarray:
    """Read an image file to (H, W, 3) uint8 RGB.

    Turned upright as its EXIF orientation says; grey and palette spread to RGB; more than 8 bits cut to the upper 8 of
    those that are used; transparency laid on white; CMYK converted; of an animation the first frame. A PNG with a wrong
    checksum in a chunk that is no part of the picture, and a JPEG that lacks nothing but its end marker, are read; that
    and the use of fewer bits are said in the log. Raises SourceError naming the file when it is no image, is damaged or
    truncated, or has more than MAX_PIXELS pixels, which is known before it is unpacked.
    """
    try:
        with path.open("rb") as file:
            return _decode(file, printable(path), MAX_PIXELS, log.warning)
    except (OSError, ValueError) as error:
        raise SourceError(f"{printable(path)}: cannot be read as an image: {_reason(error)}") from None


def decode_image(data: bytes, name: str, *, max_pixels: int = MAX_PIXELS, remark: Remark = log.warning) -> np.ndarray:
    """Read the bytes of an image file as read_image does; `name` is what errors and remarks call them."""
    return _decode(io.BytesIO(data), printable(name), max_pixels, remark)


def is_image(path: Path) -> bool:
    """Whether a file is an image by what it holds, a damaged one, an empty one or one that is not read included."""
    try:
        with path.open("rb") as file:
            if HEIC.match(file.read(16)):
                return True
            file.seek(0)
            with Image.open(file, formats=FORMATS):
                return True
    except Image.UnidentifiedImageError:
        return path.stat().st_size == 0
    except Exception:  # whatever Pillow raises when the header of what it knows is damaged
        return True


def reads_heic() -> bool:
    """Whether what reads HEIC is installed."""
    return importlib.util.find_spec("pillow_heif") is not None


def _decode(file: BinaryIO, name: str, max_pixels: int, remark: Remark) -> np.ndarray:
    def say(what: str) -> None:
        remark(f"{name}: {what}")

    try:
        return _unpack(file, name, max_pixels, say)
    except SourceError:
        raise
    except Image.DecompressionBombError:
        raise TooManyPixelsError(f"{name}: more than {max_pixels} pixels; scale the image down") from None
    except MemoryError:
        raise SourceError(f"{name}: takes more memory than there is; scale the image down") from None
    except Exception as error:  # decoders raise what they like; none of it may end more than this image
        file.seek(0)
        data = file.read(MAX_BYTES)
        mended = _without_bad_checksums(data, name, max_pixels, say) if data.startswith(PNG) else None
        if mended is None and data.startswith(b"\xff\xd8"):
            mended = _without_end(data, name, max_pixels, say)
        if mended is not None:
            return mended
        if isinstance(error, Image.UnidentifiedImageError):
            raise SourceError(f"{name}: {_unidentified(data[:16])} where an image was expected") from None
        raise SourceError(f"{name}: cannot be read as an image: {_reason(error)}") from None


def _unpack(file: BinaryIO, name: str, max_pixels: int, say: Remark) -> np.ndarray:
    formats: tuple[str, ...] = FORMATS
    if HEIC.match(file.read(16)) and reads_heic():
        import pillow_heif

        pillow_heif.register_heif_opener()
        formats = ("HEIF",)
    file.seek(0)
    # Pillow warns of metadata that does not matter here.
    with warnings.catch_warnings(action="ignore"), Image.open(file, formats=formats) as image:
        if image.width * image.height > max_pixels:
            raise TooManyPixelsError(
                f"{name}: {image.width}x{image.height} pixels where at most {max_pixels} are read; scale the image down"
            )
        if not image.mode.startswith("I") and ";16" in str(image.tile):  # Pillow would keep the upper 8 bits
            return to_rgb(_deep(file, image.getexif().get(ORIENTATION, 1), say))
        return to_rgb(image, say)


def _deep(file: BinaryIO, orientation: int, say: Remark) -> Image.Image:
    """A colour image of 16 bits, by OpenCV."""
    import cv2

    file.seek(0)
    pixels = cv2.imdecode(np.frombuffer(file.read(), np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise ValueError("damaged or truncated; is it whole?")
    if pixels.ndim == 3:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_BGRA2RGBA if pixels.shape[2] == 4 else cv2.COLOR_BGR2RGB)
    alpha = pixels[..., 3:] // 256 if pixels.ndim == 3 and pixels.dtype == np.uint16 else pixels[..., :0]
    colour = _eight_bits(pixels[..., :3] if pixels.ndim == 3 else pixels, say)
    image = Image.fromarray(np.concatenate([colour, alpha.astype(np.uint8)], axis=2) if colour.ndim == 3 else colour)
    image.getexif()[ORIENTATION] = orientation
    return image


def to_rgb(image: Image.Image, remark: Remark = log.warning) -> np.ndarray:
    """A Pillow image, open or made, as read_image gives it.

    Raises what Pillow raises, and ValueError for floating-point pixels.
    """
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # grey of more than 8 bits
        values = np.asarray(image)
        grey = _eight_bits(values, remark)
        clear = image.info.get("transparency")
        if isinstance(clear, int):
            grey[values == clear] = 255
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.mode == "F":
        raise ValueError("floating-point pixels where 8 or 16 bits were expected")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.asarray(image.convert("RGB"))


def _eight_bits(values: np.ndarray, say: Remark) -> np.ndarray:
    """The upper 8 of the bits that are used, which are fewer than a file of 16 has room for when a camera wrote it."""
    if values.dtype == np.uint8:
        return values
    values = values.astype(np.int64).clip(0, None)
    greatest = int(values.max(initial=0))
    bits = next(bits for bits in DEPTHS if greatest < 1 << bits)
    if bits != 16 and greatest:
        say(f"its values reach {greatest}: taken for {bits} bits, 0 to {(1 << bits) - 1}, and scaled to 8")
    return (values >> (bits - 8)).astype(np.uint8)


def _without_bad_checksums(data: bytes, name: str, max_pixels: int, say: Remark) -> np.ndarray | None:
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
        image = _unpack(io.BytesIO(b"".join(kept)), name, max_pixels, say)
    except Exception:  # what is wrong is not this alone
        return None
    say(f"wrong checksum in {', '.join(sorted(set(bad)))}, which is no part of the picture; read without it")
    return image


def _without_end(data: bytes, name: str, max_pixels: int, say: Remark) -> np.ndarray | None:
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
            images.append(_unpack(whole, name, max_pixels, say))
        except Exception:  # what is wrong is not this alone
            return None
    if any(not np.array_equal(images[0], other) for other in images[1:]):
        return None
    say("lacks its end marker, and no pixel; is it whole?")
    return images[0]


def _unidentified(start: bytes) -> str:
    if not start:
        return "an empty file"
    if HEIC.match(start):
        return "a HEIC photograph, which needs `pip install 'caffe-expressions[heic]'` (or save it as JPEG),"
    return "no image of a known format"


def _reason(error: Exception) -> str:
    return str((isinstance(error, OSError) and error.strerror) or error or type(error).__name__)
