"""Sources: every kind of image read right, every unreadable one named, the rest going on."""

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.errors import InputError
from pipeline.live.sources import images
from pipeline.live.sources import ImageFiles, SourceError, open_sources, read_image

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


def test_a_folder_gives_the_images_below_it_in_order_each_once(tmp_path: Path) -> None:
    for name in ("b.png", "a.JPG", "deep/down/c.png", "with space é\nline.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        save(tmp_path / name, quarters(), format="PNG")
    (tmp_path / "notes.txt").write_text("no image")
    (source,) = open_sources([str(tmp_path), str(tmp_path / "b.png"), str(tmp_path / "*.png")])
    assert isinstance(source, ImageFiles)
    assert [frame.name for frame in source] == [
        str(tmp_path / name) for name in ("a.JPG", "b.png", "deep/down/c.png", "with space é\nline.png")
    ]
    assert source.total == 4
    assert source.root == tmp_path
    assert source.failed == 0


def test_a_name_with_brackets_is_a_file_before_it_is_a_pattern(tmp_path: Path) -> None:
    save(tmp_path / "face[1].png", quarters())
    save(tmp_path / "face1.png", quarters())
    (source,) = open_sources([str(tmp_path / "face[1].png")])
    assert [frame.name for frame in source] == [str(tmp_path / "face[1].png")]


def test_unreadable_files_are_counted_and_the_rest_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save(tmp_path / "1.png", quarters())
    (tmp_path / "2.png").write_bytes(b"")
    save(tmp_path / "3.png", quarters())
    (source,) = open_sources([str(tmp_path)])
    with caplog.at_level("ERROR", logger="pipeline"):
        names = [Path(frame.name).name for frame in source]
    assert names == ["1.png", "3.png"]
    assert source.failed == 1
    assert [record.getMessage() for record in caplog.records] == [
        f"error: {tmp_path / '2.png'}: an empty file where an image was expected"
    ]


def test_inputs_that_stand_for_nothing_are_errors(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name, message in (
        ("empty", "no image or video in this folder"),
        ("absent.png", "no such file"),
        ("*.png", "no such"),
    ):
        with pytest.raises(InputError, match=message):
            open_sources([str(tmp_path / name)])
