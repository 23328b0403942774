"""Pictures as Python programs have them: each kind becomes a Frame."""

import binascii
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from pipeline.base.errors import SourceError
from pipeline.base.image_files import IMAGE_HEAD, MAX_BYTES, decode_image, read_image, to_rgb
from pipeline.drawing.overlay import Overlay, Parts
from pipeline.media.frames import Frame
from pipeline.media.sources import decode_base64, decode_data_url
from pipeline.readings import Reading

DOWNLOAD_BYTES, DOWNLOAD_SECONDS = 32 << 20, 20
ORDERS = {"RGB": 1, "BGR": -1}  # step through an array's colours
CHANNELS = (1, 3, 4)  # grey, colours, colours and opacity
MAX_PATH = 4096  # characters: Linux's own; a longer text is no path
BASE64 = re.compile(r"[A-Za-z0-9+/\s]++={0,2}+\s*+")
HEAD = 32  # digits of base64 that hold any of these


class ImageData(Protocol):
    """A file object opened for reading bytes."""

    def read(self, size: int, /) -> bytes: ...


class Tensor(Protocol):
    """A torch.Tensor, which is recognised without importing torch."""

    def detach(self) -> Any: ...


Picture = str | Path | bytes | bytearray | memoryview | ImageData | Image.Image


def split_pictures(pictures: Any) -> Iterator[Any] | None:
    """Several pictures one by one: those of a list, tuple, generator or other iterator, or of a batch.

    A batch is an array (N, H, W, channels) or a torch tensor (N, channels, H, W). Returns None for a lone picture.
    Raises ValueError for a batch that is none.
    """
    if hasattr(pictures, "read"):  # file objects are iterators, too
        return None
    if isinstance(pictures, list | tuple | Iterator):
        return iter(pictures)
    array = _as_array(pictures, "pictures")
    return None if array is None or array.ndim != 4 else iter(_as_uint8(array, "pictures"))


def to_frame(picture: Any, number: int, channels: str) -> Frame:
    """A picture of any kind that Predictor takes as a Frame of this number.

    Raises:
        SourceError: there is no such file, or it is no image that can be read.
        FetchError: a URL gives nothing.
        ValueError: an array of another shape, type or range, or an object that is no picture.
    """
    name = f"picture {number}"
    if isinstance(picture, Path):
        return Frame(str(picture), read_image(picture), number)
    if isinstance(picture, str):
        return _from_text(picture, number)
    if isinstance(picture, bytes | bytearray | memoryview):
        return Frame(name, decode_image(bytes(picture), name), number)
    if isinstance(picture, Image.Image):
        return Frame(name, _from_pillow(picture, name), number)
    if hasattr(picture, "read"):
        return _from_file(picture, number)
    array = _as_array(picture, name)
    if array is None:
        raise ValueError(
            f"{name}: {type(picture).__name__} where a path, URL, base64 text, bytes, file object, array, tensor or "
            "PIL image was expected"
        )
    return Frame(name, _from_array(array, name, channels), number)


def draw(picture: Any, reading: Reading, parts: Parts | None = None, *, channels: str = "RGB") -> np.ndarray:
    """Draw a reading over the picture it was read from.

    Args:
        picture: any that Predictor takes.
        reading: what Predictor gave for it.
        parts: what is drawn; None for all.
        channels: the order of an array's or tensor's colours, RGB or BGR. The result is RGB in either case.

    Returns:
        A new image, (H', W', 3) uint8 RGB: the picture with a strip for bars beside it where parts have any.

    Raises:
        SourceError, FetchError, ValueError: as Predictor.
    """
    return Overlay(parts or Parts(), own_size=True).draw(to_frame(picture, 0, channels).image, reading)


def _from_text(text: str, number: int) -> Frame:
    """A URL, a data URL, an image file in base64, or a path."""
    if text.startswith(("http://", "https://")):
        from pipeline.media.fetch import fetch, without_credentials

        data = fetch(text, private=True, max_bytes=DOWNLOAD_BYTES, timeout=DOWNLOAD_SECONDS)
        name = without_credentials(text)
    elif text.startswith("data:"):
        name = f"data URL {number}"
        data = decode_data_url(text, name)
    elif _is_base64(text):
        name = f"picture {number}"
        data = decode_base64("".join(text.split()), name)
    elif len(text) > MAX_PATH:
        raise SourceError(
            f"picture {number}: a text of {len(text)} characters where a path, a URL or an image file in base64 was "
            "expected; encode the whole file in base64 (RFC 4648), not its pixels"
        )
    else:
        return Frame(text, read_image(Path(text)), number)
    return Frame(name, decode_image(data, name), number)


def _is_base64(text: str) -> bool:
    """Whether a text has base64's digits alone and begins as the files of images do, which no path is likely to."""
    if not BASE64.fullmatch(text):
        return False
    digits = "".join(text[: 2 * HEAD].split())[:HEAD]
    return IMAGE_HEAD.match(binascii.a2b_base64(digits[: len(digits) // 4 * 4])) is not None


def _from_file(file: Any, number: int) -> Frame:
    name = file.name if isinstance(getattr(file, "name", None), str) else f"picture {number}"
    if isinstance(file, io.TextIOBase):
        raise ValueError(f"{name}: opened as text where bytes were expected; open it with mode 'rb'")
    data = file.read(MAX_BYTES + 1)
    if not isinstance(data, bytes) or len(data) > MAX_BYTES:
        raise ValueError(f"{name}: its read() did not give at most {MAX_BYTES} bytes, the most that an image may have")
    if not data:
        raise SourceError(f"{name}: nothing left to read; rewind the file object with seek(0)")
    return Frame(name, decode_image(data, name), number)


def _from_pillow(image: Image.Image, name: str) -> np.ndarray:
    try:
        return to_rgb(image)
    except (OSError, SyntaxError, ValueError) as error:  # Pillow unpacks a file only now
        raise SourceError(f"{name}: cannot be read as an image: {error}") from None


def _as_array(picture: Any, name: str) -> np.ndarray | None:
    """An array as it is; a torch tensor as an array with its channels last; None for anything else."""
    if isinstance(picture, np.ndarray):
        return picture
    if not any((kind.__module__, kind.__name__) == ("torch", "Tensor") for kind in type(picture).__mro__):
        return None
    tensor = picture.detach().cpu()
    array = np.asarray(tensor.float() if tensor.is_floating_point() else tensor)  # numpy has no bfloat16
    if array.ndim not in (3, 4):
        return array
    if array.shape[-3] not in CHANNELS:
        raise ValueError(
            f"{name}: a tensor {array.shape} where (C, H, W) or (N, C, H, W) with 1, 3 or 4 channels was expected; put "
            "the channels first with permute"
        )
    return np.moveaxis(array, -3, -1)


def _from_array(array: np.ndarray, name: str, channels: str) -> np.ndarray:
    """(H, W, 3) uint8 RGB of an array (H, W) or (H, W, 1, 3 or 4) whose colours are in the order of `channels`."""
    if not array.size or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in CHANNELS):
        hint = (
            "; put the channels last with transpose(1, 2, 0)" if array.ndim == 3 and array.shape[0] in CHANNELS else ""
        )
        raise ValueError(f"{name}: {array.dtype} {array.shape} where (H, W), (H, W, 3) or (H, W, 4) was expected{hint}")
    pixels = _as_uint8(array if array.ndim == 3 else array[:, :, None], name)
    if pixels.shape[2] == 1:
        return np.repeat(pixels, 3, axis=2)
    colours = np.ascontiguousarray(pixels[:, :, :3][:, :, :: ORDERS[channels]])
    if pixels.shape[2] == 3:
        return colours
    return to_rgb(Image.fromarray(np.dstack([colours, pixels[:, :, 3]])))


def _as_uint8(array: np.ndarray, name: str) -> np.ndarray:
    """An array of pixels in 0..255.

    Floating-point values of which none is above 1 are in 0..1, those of which one is 2 or more in 0..255. A greatest
    value between could be either: 0..1 that interpolation exceeded, or a picture that is all but black.
    """
    if array.dtype == np.uint8 or not array.size:
        return array
    if not np.issubdtype(array.dtype, np.floating):
        raise ValueError(f"{name}: {array.dtype} {array.shape} where uint8 or floating-point values were expected")
    least, greatest = float(array.min()), float(array.max())
    if not (least >= 0 and greatest <= 255):  # NaN is neither
        raise ValueError(
            f"{name}: values from {least:g} to {greatest:g} where 0 to 1, or 0 to 255, was expected; undo the "
            "normalisation, or clip"
        )
    if 1 < greatest < 2:
        raise ValueError(
            f"{name}: a greatest value of {greatest:g}, too much for 0..1 and hardly meant as 0..255; clip to 0..1, or "
            "give uint8"
        )
    return np.rint(array * (255 if greatest <= 1 else 1)).astype(np.uint8)
