"""Pictures of every kind that a Python program has become the same frame; what is none is named."""

import base64
import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.base.errors import SourceError
from pipeline.drawing.overlay import Overlay, Parts
from pipeline.media.pictures import draw, split_pictures, to_frame
from pipeline.readings import FaceReading, Reading

PIXELS = np.random.RandomState(1).randint(0, 256, (6, 5, 3), np.uint8)


def encoded(kind: str, pixels: np.ndarray = PIXELS) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


PNG = encoded("PNG")


class Tensor:
    """What is used of a torch.Tensor; bfloat16, which numpy has not, is stood in for by float()."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def detach(self) -> "Tensor":
        return self

    cpu = detach

    def is_floating_point(self) -> bool:
        return np.issubdtype(self.array.dtype, np.floating)

    def float(self) -> "Tensor":
        return Tensor(self.array.astype(np.float32))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self.array


Tensor.__module__ = "torch"


def test_an_image_file_is_read_as_bytes_file_object_and_base64(tmp_path: Path) -> None:
    path = tmp_path / "it.png"
    path.write_bytes(PNG)
    text = base64.b64encode(PNG).decode()
    in_lines = base64.encodebytes(PNG).decode()
    with path.open("rb") as file:
        pictures = [
            *(PNG, bytearray(PNG), memoryview(PNG), io.BytesIO(PNG), file),
            *(text, in_lines, "data:image/png;base64," + text),
        ]
        for picture in pictures:
            np.testing.assert_array_equal(to_frame(picture, 3, "RGB").image, PIXELS, err_msg=repr(picture)[:60])
    with path.open("rb") as file:
        assert to_frame(file, 3, "RGB").name == str(path)
    assert to_frame(PNG, 3, "RGB").name == to_frame(io.BytesIO(PNG), 3, "RGB").name == "picture 3"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "AVIF", "JPEG2000"])
def test_base64_is_recognised_by_how_images_begin(kind: str) -> None:
    """Of each format that is read but PPM, whose beginning is a letter and a digit."""
    assert to_frame(base64.b64encode(encoded(kind)).decode(), 0, "RGB").image.shape == PIXELS.shape


def test_a_path_is_not_taken_for_base64(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("photo", "Qk12", "9j/4AAQ", "R0lGODph"):
        path = Path(name)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(PNG)
        np.testing.assert_array_equal(to_frame(name, 0, "RGB").image, PIXELS)


def test_arrays_of_every_form_and_range() -> None:
    grey = PIXELS[:, :, 0]
    spread = np.repeat(grey[:, :, None], 3, axis=2)
    for array, expected in (
        (PIXELS, PIXELS),
        (grey, spread),
        (grey[:, :, None], spread),
        (PIXELS / 255, PIXELS),
        ((PIXELS / 255).astype(np.float16), PIXELS),
        (PIXELS.astype(np.float32), PIXELS),
        (PIXELS.astype(np.float32) - 0.4 * (PIXELS > 0), PIXELS),
        (np.zeros((4, 4, 3)), np.zeros((4, 4, 3))),
        (np.ones((4, 4, 3)), np.full((4, 4, 3), 255)),
        (np.full((4, 4, 3), 2.0), np.full((4, 4, 3), 2)),
    ):
        found = to_frame(array, 0, "RGB").image
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(to_frame(PIXELS[:, :, ::-1], 0, "BGR").image, PIXELS)


def test_opacity_is_laid_on_white_in_either_order_of_colours() -> None:
    opacity = np.zeros((6, 5, 1), np.uint8)
    opacity[:3] = 255
    expected = np.where(opacity, PIXELS, 255)
    np.testing.assert_array_equal(to_frame(np.dstack([PIXELS, opacity]), 0, "RGB").image, expected)
    np.testing.assert_array_equal(to_frame(np.dstack([PIXELS[:, :, ::-1], opacity]), 0, "BGR").image, expected)
    np.testing.assert_array_equal(to_frame(np.dstack([PIXELS, opacity]) / 255, 0, "RGB").image, expected)


def test_tensors_have_their_channels_first() -> None:
    channels_first = PIXELS.transpose(2, 0, 1)
    for tensor in (Tensor(channels_first), Tensor(channels_first / 255), Tensor(channels_first.astype(np.float16))):
        np.testing.assert_array_equal(to_frame(tensor, 0, "RGB").image, PIXELS)
    np.testing.assert_array_equal(to_frame(Tensor(PIXELS[:, :, 0]), 0, "RGB").image[:, :, 1], PIXELS[:, :, 0])
    batch = split_pictures(Tensor(np.stack([channels_first] * 2) / 255))
    assert batch is not None
    for picture in batch:
        np.testing.assert_array_equal(to_frame(picture, 0, "RGB").image, PIXELS)
    with pytest.raises(ValueError, match=r"picture 0: a tensor \(6, 5, 3\) where \(C, H, W\).*permute"):
        to_frame(Tensor(PIXELS), 0, "RGB")


def test_a_real_tensor_is_read() -> None:
    torch = pytest.importorskip("torch")
    tensor = torch.tensor(PIXELS.transpose(2, 0, 1).astype(np.float32) / 255, requires_grad=True)
    np.testing.assert_array_equal(to_frame(tensor, 0, "RGB").image, PIXELS)
    bfloat16 = torch.ones(1, 2, 2, dtype=torch.bfloat16)
    np.testing.assert_array_equal(to_frame(bfloat16, 0, "RGB").image, np.full((2, 2, 3), 255))


def test_several_are_told_from_one() -> None:
    for one in (PNG, io.BytesIO(PNG), "photo.jpg", Path("photo.jpg"), PIXELS, Image.fromarray(PIXELS), 7):
        assert split_pictures(one) is None
    for several in ([PIXELS], (PIXELS,), iter([PIXELS]), (each for each in [PIXELS]), PIXELS[None]):
        found = split_pictures(several)
        assert found is not None
        (picture,) = found
        np.testing.assert_array_equal(picture, PIXELS)


def test_a_batch_of_floats_has_one_range() -> None:
    """Its darkest picture alone would be taken for one in 0..1."""
    batch = np.stack([np.ones((2, 2, 3)), np.full((2, 2, 3), 200.0)])
    found = split_pictures(batch)
    assert found is not None
    assert [to_frame(picture, 0, "RGB").image.max() for picture in found] == [1, 200]


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (np.zeros((4, 4, 2), np.uint8), r"picture 2: uint8 \(4, 4, 2\) where \(H, W\), \(H, W, 3\) or \(H, W, 4\)"),
        (np.zeros((3, 8, 8), np.uint8), r"\(3, 8, 8\) where .*; put the channels last with transpose"),
        (np.zeros((2, 4, 4, 3), np.uint8), r"\(2, 4, 4, 3\) where"),
        (np.zeros((0, 4, 3), np.uint8), "picture 2"),
        (np.zeros((4, 4, 3), np.int64), "int64 .* where uint8 or floating-point"),
        (np.full((4, 4, 3), -0.5), r"values from -0\.5 to -0\.5 where 0 to 1, or 0 to 255"),
        (np.full((4, 4, 3), 256.0), "values from 256 to 256"),
        (np.full((4, 4, 3), np.nan), "values from nan to nan"),
        (np.full((4, 4, 3), 1.004), r"a greatest value of 1\.004"),
        (7, "picture 2: int where a path, URL, base64"),
        ([[1, 2]], "picture 2: list where"),
        (b"", "picture 2: an empty file where an image"),
        (b"some text", "picture 2: no image of a known format"),
        (PNG[:60], "picture 2: cannot be read"),
        (io.StringIO("text"), "picture 2: opened as text where bytes.*'rb'"),
        (io.BytesIO(), r"picture 2: nothing left to read; rewind the file object with seek\(0\)"),
        (SimpleNamespace(read=lambda size: 7), r"picture 2: its read\(\) did not give"),
        (base64.b64encode(PNG).decode()[:-1], "picture 2: .*base64"),
        ("a text of some length " * 1000, "picture 2: a text of 22000 characters"),
        ("A" + " " * 1_000_000 + "?", "picture 2: a text of 1000002 characters"),
        (Image.fromarray(np.zeros((4, 4), np.float32)), "picture 2: cannot be read as an image: floating-point"),
    ],
)
def test_what_is_no_picture_is_named(picture: object, message: str) -> None:
    with pytest.raises((ValueError, SourceError), match=message) as caught:
        to_frame(picture, 2, "RGB")
    assert len(str(caught.value)) < 250


def test_a_reading_is_drawn_over_any_kind_of_picture() -> None:
    pixels = np.full((200, 160, 3), (200, 60, 20), np.uint8)
    face = FaceReading((40.0, 50.0, 120.0, 150.0), 1.0, {}, {"happy": 0.9, "sad": 0.1}, "found")
    reading = Reading("it", 160, 200, (face,))
    drawn = draw(pixels, reading)
    assert drawn.dtype == np.uint8
    assert (drawn == Overlay(own_size=True).draw(pixels, reading)).all()
    assert (drawn == draw(encoded("PNG", pixels), reading)).all()
    assert (drawn == draw(pixels[:, :, ::-1], reading, channels="BGR")).all()
    nothing = Parts(boxes=False, landmarks=False, labels=False, bars=False, emoji=False)
    np.testing.assert_array_equal(draw(pixels, reading, nothing), pixels)
