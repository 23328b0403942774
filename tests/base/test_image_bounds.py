"""Images from outside: what their size may be, and scaling them down without all of them in memory."""

import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from pipeline.base.errors import SourceError, TooManyPixelsError, TooNarrowError
from pipeline.base.image_files import ImageBounds, decode_image, decode_scaled

ROOT = Path(__file__).parents[2]


def file_of(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def smooth(width: int, height: int) -> np.ndarray:
    """(height, width, 3) uint8, in which neighbours are alike and no two sides."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 255 / width, y * 255 / height, (x + y) * 255 / (width + height)], axis=2).astype(np.uint8)


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "LA", "CMYK", "1"])
def test_a_scaled_image_is_the_mean_of_the_whole_one(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.base.image_files.BAND_PIXELS", 5000)
    image = Image.fromarray(smooth(400, 240)).convert(mode)
    if mode in ("RGBA", "LA"):
        image.putalpha(200)
    data = file_of(image, "TIFF" if mode == "CMYK" else "PNG")
    whole = decode_image(data, "whole").reshape(60, 4, 100, 4, 3).mean(axis=(1, 3))
    scaled = decode_scaled(data, "scaled", ImageBounds(scaled=6000))
    assert (scaled.width, scaled.height) == (400, 240)
    np.testing.assert_allclose(scaled.pixels, whole, atol=1)


def test_deep_grey_is_scaled_by_the_bits_of_the_whole_image() -> None:
    values = np.zeros((200, 100), np.uint16)
    values[:100] = 1000  # the lower half alone would be taken for 8 bits
    values[100:] = 40
    said: list[str] = []
    scaled = decode_scaled(file_of(Image.fromarray(values)), "scan", ImageBounds(scaled=200), remark=said.append)
    assert scaled.pixels.shape == (20, 10, 3)
    assert (scaled.pixels[:9] == 1000 >> 2).all()
    assert (scaled.pixels[11:] == 40 >> 2).all()
    assert len(said) == 1


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF"])
def test_a_scaled_image_is_upright(kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    data = file_of(Image.fromarray(smooth(400, 200)), kind, exif=exif)
    whole = decode_image(data, "whole")
    scaled = decode_scaled(data, "scaled", ImageBounds(scaled=5000))
    assert (scaled.width, scaled.height) == (200, 400)
    assert scaled.pixels.shape == (100, 50, 3)
    np.testing.assert_allclose(scaled.pixels, whole.reshape(100, 4, 50, 4, 3).mean(axis=(1, 3)), atol=4)


@given(st.integers(1, 50_000), st.integers(1, 50_000), st.integers(1, 5_000_000))
@example(243, 243, 1)
def test_no_size_is_more_than_the_bound_or_nothing(width: int, height: int, pixels: int) -> None:
    across, down = ImageBounds(scaled=pixels).size(width, height)
    assert 1 <= across <= width
    assert 1 <= down <= height
    assert across * down <= pixels


def test_sides_and_aspect_are_bounded_before_an_image_is_unpacked() -> None:
    looked: list[tuple[int, int]] = []
    data = file_of(Image.new("1", (10, 500)))[:-30]  # damaged, which is never noticed

    def read(bounds: ImageBounds) -> None:
        decode_scaled(data, "strip", bounds, look=lambda *size: looked.append(size))

    with pytest.raises(TooManyPixelsError, match="10x500 pixels where at most 134217728, 400 along a side, are read"):
        read(ImageBounds(side=400))
    with pytest.raises(TooNarrowError, match="at most 20 times the other"):
        read(ImageBounds(ratio=20))
    assert looked == []
    with pytest.raises(SourceError, match="cannot be read"):
        read(ImageBounds())
    assert looked == [(10, 500)]


def test_what_ends_the_look_is_what_the_caller_gets() -> None:
    def refuse(width: int, height: int) -> None:
        raise TooNarrowError(f"{width} {height}")

    without_end = file_of(Image.new("RGB", (64, 48)), "JPEG")[:-2]
    for data in (file_of(Image.new("RGB", (64, 48))), without_end):
        with pytest.raises(TooNarrowError, match="64 48"):
            decode_scaled(data, "image", ImageBounds(), look=refuse)


@pytest.mark.parametrize(("mode", "size", "mebibytes"), [("1", (6300, 6300), 120), ("L", (1, 39_000_000), 200)])
def test_a_bomb_takes_little_more_memory_than_it_unpacks_to(mode: str, size: tuple[int, int], mebibytes: int) -> None:
    """As RGB it would take 40 million pixels of four bytes in Pillow and of three here."""
    program = (
        "import resource, sys\n"
        "from pipeline.base.image_files import ImageBounds, decode_scaled\n"
        "data = sys.stdin.buffer.read()\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "image = decode_scaled(data, 'bomb', ImageBounds(40_000_000, scaled=4_000_000))\n"
        "assert image.pixels.size <= 12_000_000\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        input=file_of(Image.new(mode, size)),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        check=True,
        env={**os.environ, "MALLOC_ARENA_MAX": "1"},
    )
    assert int(done.stdout) < mebibytes
