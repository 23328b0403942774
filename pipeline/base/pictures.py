"""Pictures: read from files nobody vouches for, and written by the thousand."""

import io
import struct

import numpy as np

PNG_HEAD = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"  # before its width and height
PNG_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # of a pixel, by the head's colour type
DEFLATE = 1032  # bytes that a byte of deflate gives at most (zlib's technical details)
MAX_PIXELS = 1 << 26  # of a picture that is_huge lets through: 200 MB as colour


def decode(data: bytes, mode: int) -> np.ndarray | None:
    """Decode a PNG, JPEG or other picture: (H, W[, C]) in OpenCV's channel order, as `mode`, a cv2.IMREAD_ flag, says.

    None where `data` is empty, no picture that OpenCV reads, one of more than its limit of 2^30 pixels, or a PNG that
    declares more pixels than its bytes can hold, or a chunk longer than itself.
    """
    import cv2  # slow to import, and most readers of databases decode nothing

    if _png_bits(data) > 8 * DEFLATE * len(data) or _longest_chunk(data) > len(data):
        return None  # OpenCV would take the memory and the time for all of them
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), mode) if data else None
    except cv2.error:
        return None


def is_huge(data: bytes) -> bool:
    """Whether the head of a PNG, JPEG or other picture declares more than MAX_PIXELS; it is not decoded for that."""
    pixels = _png_pixels(data)
    if pixels is not None:  # PIL takes longer than decoding a small one
        return pixels > MAX_PIXELS
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(data)) as image:
            width, height = image.size
    except Image.DecompressionBombError:
        return True
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError):
        return False  # OpenCV may know better, and has a limit of its own
    return width * height > MAX_PIXELS


def _png_pixels(data: bytes) -> int | None:
    """How many pixels the head of a PNG declares; None where `data` does not begin with one."""
    if not data.startswith(PNG_HEAD) or len(data) < len(PNG_HEAD) + 8:
        return None
    width, height = struct.unpack_from(">II", data, len(PNG_HEAD))
    return int(width * height)


def _png_bits(data: bytes) -> int:
    """How many bits the pixels have that the head of a PNG declares; 0 where `data` does not begin with one."""
    pixels, after = _png_pixels(data), len(PNG_HEAD) + 8
    if pixels is None or len(data) < after + 2:
        return 0
    return pixels * data[after] * PNG_SAMPLES.get(data[after + 1], 1)


def _longest_chunk(data: bytes) -> int:
    """The bytes of the longest chunk that a PNG declares; 0 where `data` does not begin with one."""
    longest, place = 0, 8  # behind the signature
    while data.startswith(PNG_HEAD) and place + 8 <= len(data):
        (length,) = struct.unpack_from(">I", data, place)
        longest = max(longest, length)
        place += length + 12  # with its own length, its name and its sum
    return longest


def encode_png(image: np.ndarray) -> bytes:
    """A PNG of a (H, W) uint8 image, neither compressed nor filtered.

    That would save a 48x48 photograph a quarter, and no block on the disk, for several times the time.
    """
    import cv2

    options = [cv2.IMWRITE_PNG_COMPRESSION, 0, cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE]
    return cv2.imencode(".png", image, options)[1].tobytes()
