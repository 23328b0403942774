"""Images on standard input: taken apart where one ends, whatever way the bytes come."""

import io
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.base.errors import SourceError
from pipeline.media.sources.image_pipe import split_images


def encoded(kind: str, seed: int = 0, **options: object) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (13, 17, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


ENCODED = [
    encoded("PNG"),
    encoded("JPEG", 1),
    encoded("JPEG", 2, progressive=True, comment=b"\xff\xd9 no end"),
    encoded("JPEG", 3, restart_marker_blocks=1),
    encoded("BMP", 4),
    encoded("WEBP", 5),
    encoded("WEBP", 6, lossless=True),
]


class Trickle(io.RawIOBase):
    """Gives its bytes in pieces, as a pipe does."""

    def __init__(self, data: bytes, sizes: list[int]) -> None:
        self.rest = data
        self.sizes = sizes
        self.reads = 0

    def read1(self, size: int) -> bytes:
        size = min(size, self.sizes[self.reads % len(self.sizes)])
        self.reads += 1
        part, self.rest = self.rest[:size], self.rest[size:]
        return part


def split(data: bytes, sizes: list[int] | None = None, max_bytes: int = 1 << 20) -> list[bytes]:
    return list(split_images(Trickle(data, sizes or [1 << 16]), max_bytes))  # type: ignore[arg-type]


@settings(deadline=None)
@given(st.lists(st.sampled_from(ENCODED), max_size=5), st.lists(st.integers(1, 700), min_size=1, max_size=5))
def test_images_come_as_they_were_put_together(images: list[bytes], sizes: list[int]) -> None:
    assert split(b"".join(images), sizes) == images


def test_an_image_is_given_as_soon_as_it_is_there() -> None:
    png, jpeg = ENCODED[:2]
    pipe = Trickle(png + jpeg + jpeg, [len(png), len(jpeg)])
    images = split_images(pipe, 1 << 20)  # type: ignore[arg-type]
    assert next(images) == png
    assert pipe.reads == 1
    assert next(images) == jpeg
    assert pipe.reads == 2


@settings(deadline=None)
@given(st.sampled_from(ENCODED), st.data())
def test_what_is_cut_off_is_given_as_it_is(image: bytes, data: st.DataObject) -> None:
    part = image[: data.draw(st.integers(1, len(image) - 1))]
    assert b"".join(split(part)) == part
    assert split(ENCODED[0] + part)[0] == ENCODED[0]


@settings(deadline=None)
@given(
    st.binary(max_size=200), st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM", b"RIFF\0\0\0\0WEBP"])
)
def test_any_bytes_end(data: bytes, start: bytes) -> None:
    try:
        images = split(start + data)
    except SourceError:  # of a size that the header states
        return
    assert (start + data).startswith(b"".join(images))


def test_another_format_is_all_there_is() -> None:
    tiff = encoded("TIFF")
    assert split(tiff + ENCODED[0]) == [tiff + ENCODED[0]]


def test_what_phones_put_behind_a_photo_is_no_further_image(caplog: pytest.LogCaptureFixture) -> None:
    jpeg = ENCODED[1]
    assert split(jpeg + b"\0\0\0\x18ftypmp42 a motion photo") == [jpeg]
    assert "follows image 1" in caplog.text
    index = b"\xff\xe2" + struct.pack(">H", 10) + b"MPF\0abcd"
    several = jpeg[:2] + index + jpeg[2:] + ENCODED[2]
    assert split(several) == [several]


def test_an_image_beyond_the_limit_is_refused() -> None:
    for image in ENCODED:
        assert split(image, max_bytes=len(image)) == [image]
        with pytest.raises(SourceError, match=f"more than the {len(image) - 1} bytes"):
            split(image, max_bytes=len(image) - 1)
