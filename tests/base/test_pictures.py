"""Pictures are told to be huge by their heads."""

import io
import struct

import pytest
from PIL import Image

from pipeline.base.pictures import DEFLATE, MAX_PIXELS, PNG_HEAD, decode, is_huge


@pytest.mark.parametrize("form", ["png", "bmp", "jpeg"])
@pytest.mark.parametrize(("width", "huge"), [(MAX_PIXELS // 8192, False), (MAX_PIXELS // 8192 + 1, True)])
def test_a_picture_is_huge_by_its_pixels(form: str, width: int, huge: bool) -> None:
    file = io.BytesIO()
    Image.new("1" if form != "jpeg" else "L", (width, 8192)).save(file, form)
    assert is_huge(file.getvalue()[:100_000]) == huge


@pytest.mark.parametrize("data", [b"", PNG_HEAD, PNG_HEAD + bytes(7), b"\x89PNG\r\n\x1a\n", b"text"])
def test_what_has_no_head_is_not_huge(data: bytes) -> None:
    assert not is_huge(data)


def test_a_png_that_declares_more_than_its_bytes_can_hold_is_no_picture() -> None:
    """The densest PNG, a black one of one bit a pixel, is read; one whose head declares more is not decoded at all."""
    file = io.BytesIO()
    Image.new("1", (4000, 4000)).save(file, "PNG", optimize=True)
    black = file.getvalue()
    image = decode(black, -1)
    assert image is not None
    assert image.shape[:2] == (4000, 4000)
    side = int((8 * DEFLATE * len(black)) ** 0.5) + 1
    head = len(PNG_HEAD)
    assert decode(black[:head] + struct.pack(">II", side, side) + black[head + 8 :], -1) is None


def test_a_png_of_a_chunk_longer_than_itself_is_no_picture() -> None:
    """OpenCV would take the memory that the chunk declares, and a second to fill it."""
    file = io.BytesIO()
    Image.new("RGB", (30, 20)).save(file, "PNG")
    data = file.getvalue()
    at = data.index(b"IDAT") - 4
    assert decode(data, -1) is not None
    assert decode(data[:at] + struct.pack(">I", 0x7FFFFFFF) + data[at + 4 :], -1) is None
