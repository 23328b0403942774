"""Images: every kind read right, every unreadable one named, from files, bytes and data URLs alike."""

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.live.sources import SourceError, decode_data_url, decode_image, images, read_image, to_rgb

RED, GREEN, BLUE = (250, 10, 20), (10, 240, 30), (30, 20, 230)


def quarters() -> Image.Image:
    """Top left red, top right green, below blue; 40 wide, 20 high."""
    image = Image.new("RGB", (40, 20), BLUE)
    image.paste(RED, (0, 0, 20, 10))
    image.paste(GREEN, (20, 0, 40, 10))
    return image


def save(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


def near(pixel: np.ndarray, colour: tuple[int, ...], tolerance: int = 12) -> bool:
    return bool(np.abs(pixel.astype(int) - colour).max() <= tolerance)


@pytest.mark.parametrize("suffix", ["png", "bmp", "ppm", "tiff", "webp", "jpg"])
def test_channels_come_in_the_order_red_green_blue(tmp_path: Path, suffix: str) -> None:
    image = read_image(save(tmp_path / f"image.{suffix}", quarters(), **({"quality": 95} if suffix == "jpg" else {})))
    assert (image.shape, image.dtype) == ((20, 40, 3), np.uint8)
    assert near(image[4, 8], RED)
    assert near(image[4, 32], GREEN)
    assert near(image[15, 20], BLUE)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_undone(tmp_path: Path, orientation: int) -> None:
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Pillow's transpositions that a camera would have made
    stored = quarters() if orientation == 1 else quarters().transpose(Image.Transpose(undo[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = read_image(save(tmp_path / "image.png", stored, exif=exif))
    assert image.shape == (20, 40, 3)
    assert near(image[4, 8], RED)
    assert near(image[4, 32], GREEN)


def test_grey_of_one_eight_and_sixteen_bits(tmp_path: Path) -> None:
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    eight = read_image(save(tmp_path / "8.png", Image.fromarray(ramp)))
    sixteen = read_image(save(tmp_path / "16.png", Image.fromarray(ramp.astype(np.uint16) * 257)))
    tiff = read_image(save(tmp_path / "16.tiff", Image.fromarray(ramp.astype(np.uint16) * 257)))
    one = read_image(save(tmp_path / "1.png", Image.fromarray(ramp > 127)))
    for image in (eight, sixteen, tiff):
        np.testing.assert_array_equal(image, np.repeat(ramp[:, :, None], 3, axis=2))
    np.testing.assert_array_equal(one[..., 0], np.where(ramp > 127, 255, 0))


def test_transparent_pixels_are_white_whatever_colour_they_hide(tmp_path: Path) -> None:
    image = quarters().convert("RGBA")
    image.putalpha(Image.new("L", image.size, 255))
    image.paste((*RED, 0), (0, 0, 20, 10))
    image.paste((0, 0, 0, 128), (20, 0, 40, 10))
    grey = Image.merge("LA", (Image.new("L", (4, 4), 90), Image.new("L", (4, 4), 0)))
    palette = quarters().quantize(4)
    palette.info["transparency"] = palette.getpixel((0, 0))
    read = read_image(save(tmp_path / "alpha.png", image))
    assert near(read[4, 8], (255, 255, 255))
    assert near(read[4, 32], (127, 127, 127))
    assert near(read[15, 20], BLUE)
    assert near(read_image(save(tmp_path / "grey.png", grey))[0, 0], (255, 255, 255))
    assert near(
        read_image(save(tmp_path / "palette.png", palette, transparency=palette.getpixel((0, 0))))[4, 8], (255,) * 3
    )


def test_cmyk_comes_as_rgb(tmp_path: Path) -> None:
    image = read_image(save(tmp_path / "print.jpg", quarters().convert("CMYK"), quality=95))
    assert near(image[4, 8], RED, 40)
    assert near(image[15, 20], BLUE, 40)


def test_of_an_animation_the_first_frame(tmp_path: Path) -> None:
    first, second = quarters(), Image.new("RGB", (40, 20), GREEN)
    image = read_image(save(tmp_path / "moving.gif", first, save_all=True, append_images=[second]))
    assert near(image[4, 8], RED)


def jpeg() -> bytes:
    data = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(data, "JPEG")
    return data.getvalue()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "an empty file where an image was expected"),
        (b"It was a dark and stormy night", "no image of a known format"),
        (jpeg()[:1500], "truncated"),
        (jpeg()[:60], "image"),
    ],
)
def test_what_is_no_whole_image_is_named(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "broken.jpg"
    path.write_bytes(data)
    with pytest.raises(SourceError, match=message) as caught:
        read_image(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_floating_point_pixels_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "depth.tiff", Image.fromarray(np.zeros((4, 4), np.float32)))
    with pytest.raises(SourceError, match="floating-point pixels"):
        read_image(path)


def test_a_huge_image_is_refused_before_it_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "bomb.png", Image.new("1", (14_000, 10_000)))
    assert path.stat().st_size < 100_000
    with pytest.raises(SourceError, match="pixels"):
        read_image(path)
    monkeypatch.setattr(images, "MAX_PIXELS", 799)
    with pytest.raises(SourceError, match=r"40x20 pixels where at most 799"):
        read_image(save(tmp_path / "image.png", quarters()))


@settings(deadline=None, max_examples=150)
@given(
    kind=st.sampled_from(["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM"]),
    edits=st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 255)), max_size=8),
    cut=st.integers(0, 5000),
)
def test_damage_gives_an_image_or_a_source_error(
    tmp_path_factory: pytest.TempPathFactory, kind: str, edits: list[tuple[int, int]], cut: int
) -> None:
    buffer = io.BytesIO()
    quarters().save(buffer, kind)
    data = bytearray(buffer.getvalue()[: max(1, cut)])
    for place, value in edits:
        data[place % len(data)] = value
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(data)
    try:
        image = read_image(path)
    except SourceError:
        return
    assert image.ndim == 3
    assert image.dtype == np.uint8


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def test_bytes_are_read_as_the_file_of_them_is(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for kind, options in (("PNG", {}), ("JPEG", {"exif": exif}), ("WEBP", {"exif": exif, "lossless": True})):
        data = encoded(quarters(), kind, **options)
        path = tmp_path / "image"
        path.write_bytes(data)
        np.testing.assert_array_equal(decode_image(data, "image"), read_image(path))
    assert read_image(path).shape == (40, 20, 3)


def test_an_open_image_is_read_as_its_file_is(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 8
    path = save(tmp_path / "image.png", quarters().convert("RGBA"), exif=exif)
    with Image.open(path) as image:
        np.testing.assert_array_equal(to_rgb(image), read_image(path))


def test_the_limit_of_pixels_is_the_callers() -> None:
    data = encoded(quarters(), "PNG")
    assert decode_image(data, "upload", max_pixels=800).shape == (20, 40, 3)
    with pytest.raises(SourceError, match="upload: 40x20 pixels where at most 799 are read"):
        decode_image(data, "upload", max_pixels=799)


def test_pixels_are_counted_before_any_is_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM"):
        monkeypatch.undo()
        data = encoded(quarters(), kind)
        monkeypatch.setattr(Image.core, "new", lambda *_: pytest.fail("memory was taken"))
        with pytest.raises(SourceError, match="pixels where at most 799"):
            decode_image(data, "upload", max_pixels=799)


def test_a_name_of_several_lines_is_told_on_one(tmp_path: Path) -> None:
    path = tmp_path / "two\nlines\udce9.png"
    path.write_bytes(b"")
    with pytest.raises(SourceError, match="an empty file") as caught:
        read_image(path)
    assert str(caught.value).startswith(f"{tmp_path}/two\\nlines\\udce9.png: ")


def test_formats_that_start_programs_are_not_read(tmp_path: Path) -> None:
    """Pillow would hand PostScript to Ghostscript."""
    path = save(tmp_path / "drawing.eps", quarters())
    with pytest.raises(SourceError, match="no image of a known format"):
        read_image(path)


def test_photographs_of_iphones_are_called_by_their_name() -> None:
    with pytest.raises(SourceError, match="HEIC photograph, which is not read"):
        decode_image(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(40), "IMG_1.HEIC")


@settings(deadline=None, max_examples=100)
@given(kind=st.sampled_from(["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM"]), data=st.data())
def test_no_part_of_an_image_is_taken_for_the_whole(kind: str, data: st.DataObject) -> None:
    whole = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 11, 3), dtype=np.uint8)), kind)
    want = decode_image(whole, "whole")
    part = whole[: data.draw(st.integers(0, len(whole) - 1))]
    try:
        image = decode_image(part, "part")
    except SourceError:
        pass
    else:  # what is missing is no pixel: an end mark, or a directory behind them
        np.testing.assert_array_equal(image, want)


@given(
    st.binary(max_size=300), st.sampled_from(["image/png", "image/jpeg", "IMAGE/WEBP", "", "image/png;name=a b.png"])
)
def test_a_data_url_gives_back_its_bytes(data: bytes, media_type: str) -> None:
    url = f"data:{media_type};base64,{base64.b64encode(data).decode()}"
    assert decode_data_url(url, max_bytes=len(data)) == data
    if data:
        with pytest.raises(SourceError, match="bytes"):
            decode_data_url(url, max_bytes=len(data) - 1)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("data:image/png,abc", "data:image/...;base64"),
        ("data:text/html;base64,AAAA", "text/html where an image was expected"),
        ("image/png;base64,AAAA", "data:image/...;base64"),
        ("data:image/png;base64,AAA", "is not base64"),
        ("data:image/png;base64,AA AA", "is not base64"),
        ("data:image/png;base64,AA\nAA", "is not base64"),
        ("data:image/png;base64,AA-_", "is not base64"),
        ("data:image/png;base64,ÄÄÄÄ", "is not base64"),
        ("data:image/png;base64,AAAA=", "is not base64"),
        ("data:image/png;base64,AAAA====", "is not base64"),
    ],
)
def test_data_urls_of_another_form_are_refused(url: str, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        decode_data_url(url)


@given(st.text() | st.text().map("data:image/png;base64,".__add__) | st.text().map("data:".__add__))
def test_any_text_is_bytes_or_a_source_error(text: str) -> None:
    try:
        data = decode_data_url(text)
    except SourceError:
        pass
    else:
        assert base64.b64encode(data).decode() == text.partition(",")[2]
