"""Pictures are told to be huge by their heads."""

import io

import pytest
from PIL import Image

from pipeline.base.pictures import MAX_PIXELS, PNG_HEAD, is_huge


@pytest.mark.parametrize("form", ["png", "bmp", "jpeg"])
@pytest.mark.parametrize(("width", "huge"), [(MAX_PIXELS // 8192, False), (MAX_PIXELS // 8192 + 1, True)])
def test_a_picture_is_huge_by_its_pixels(form: str, width: int, huge: bool) -> None:
    file = io.BytesIO()
    Image.new("1" if form != "jpeg" else "L", (width, 8192)).save(file, form)
    assert is_huge(file.getvalue()[:100_000]) == huge


@pytest.mark.parametrize("data", [b"", PNG_HEAD, PNG_HEAD + bytes(7), b"\x89PNG\r\n\x1a\n", b"text"])
def test_what_has_no_head_is_not_huge(data: bytes) -> None:
    assert not is_huge(data)
