"""Images: every kind read right, every unreadable one named, from files, bytes and data URLs alike."""

import base64
import io
import os
import struct
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import BmpImagePlugin, Image, TiffImagePlugin, TiffTags

from pipeline.base import image_files
from pipeline.base.errors import SourceError
from pipeline.base.image_files import decode_image, read_image, to_rgb
from pipeline.data.class_folders import ClassFolders, FolderSource
from pipeline.data.split import HOLD_OUT
from pipeline.media.sources import ImageFiles, decode_data_url, open_sources

RED, GREEN, BLUE = (250, 10, 20), (10, 240, 30), (30, 20, 230)


def quarters() -> Image.Image:
    """Top left red, top right green, below blue; 40 wide, 20 high."""
    image = Image.new("RGB", (40, 20), BLUE)
    image.paste(RED, (0, 0, 20, 10))
    image.paste(GREEN, (20, 0, 40, 10))
    return image


def save(path: Path, image: Image.Image, **options: Any) -> Path:
    image.save(path, **options)
    return path


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def deep_tiff(path: Path, values: np.ndarray, photometric: int, orientation: int = 1) -> Path:
    """A TIFF of 16 bits, not compressed, as the specification (TIFF 6.0) lays it out: pixels, then the directory."""
    height, width, channels = values.shape
    data = values.astype("<u2").tobytes()
    bits = struct.pack(f"<{channels}H", *[16] * channels)
    entries = [
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, channels, 16 if channels == 1 else 8 + len(data)),
        (259, 3, 1, 1),
        (262, 3, 1, photometric),
        (273, 4, 1, 8),
        (274, 3, 1, orientation),
        (277, 3, 1, channels),
        (278, 4, 1, height),
        (279, 4, 1, len(data)),
    ]
    head = struct.pack("<2sHI", b"II", 42, 8 + len(data) + len(bits))
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries)
    path.write_bytes(head + data + bits + directory + bytes(4))
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


@pytest.mark.parametrize("kind", ["png", "webp", "tif", "deep.tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_undone(tmp_path: Path, orientation: int, kind: str) -> None:
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Pillow's transpositions that a camera would have made
    stored = quarters() if orientation == 1 else quarters().transpose(Image.Transpose(undo[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    if kind == "deep.tif":
        image = read_image(deep_tiff(tmp_path / kind, np.asarray(stored).astype(np.uint16) * 257, 2, orientation))
    else:
        image = read_image(
            save(tmp_path / f"image.{kind}", stored, exif=exif, **{"lossless": True} if kind == "webp" else {})
        )
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


def with_chunk(png: bytes, kind: bytes, *, crc: int) -> bytes:
    """The PNG with one more chunk behind its header."""
    return png[:33] + (4).to_bytes(4) + kind + b"abcd" + crc.to_bytes(4) + png[33:]


def test_a_wrong_checksum_beside_the_picture_is_said_and_the_picture_read(caplog: pytest.LogCaptureFixture) -> None:
    png = encoded(quarters(), "PNG")
    image = decode_image(with_chunk(png, b"tEXt", crc=1), "photo.png")
    np.testing.assert_array_equal(image, np.asarray(quarters()))
    assert "photo.png: wrong checksum in tEXt" in caplog.text
    damaged = bytearray(png)
    damaged[png.index(b"IDAT") + 12] ^= 1
    for bad in (with_chunk(png, b"tRNS", crc=1), with_chunk(png, b"ABCD", crc=1), bytes(damaged)):
        with pytest.raises(SourceError):
            decode_image(bad, "photo.png")


def test_a_jpeg_without_its_end_marker_alone_is_said_and_read(
    caplog: pytest.LogCaptureFixture, portrait: np.ndarray
) -> None:
    for picture in (Image.fromarray(portrait[:61, :45]), Image.fromarray(portrait[:64, :64, 0])):
        whole = encoded(picture, "JPEG", quality=85)
        np.testing.assert_array_equal(decode_image(whole[:-2], "photo.jpg"), decode_image(whole, "photo.jpg"))
        assert "photo.jpg: lacks its end marker" in caplog.text
        for missing in (3, 4, 6, 12, 100):
            with pytest.raises(SourceError, match="truncated"):
                decode_image(whole[:-missing] if missing > 4 else whole[: -2 - 4 * missing], "photo.jpg")
    progressive = encoded(Image.fromarray(portrait), "JPEG", progressive=True)
    with pytest.raises(SourceError, match="truncated"):
        decode_image(progressive[:-2], "photo.jpg")  # nobody knows whether another scan was to come


@pytest.mark.parametrize(
    ("kind", "channels"),
    [(kind, n) for kind in ("PNG", "TIFF") for n in (1, 3, 4)] + [("PPM", 3)],
)
@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_deep_pixels_are_scaled_by_the_bits_that_they_use(
    kind: str, channels: int, bits: int, caplog: pytest.LogCaptureFixture
) -> None:
    ramp = (np.arange(256).reshape(16, 16, 1) * ((1 << bits) - 1) // 255).astype(np.uint16)
    values = np.repeat(ramp, channels, axis=2)
    if channels == 3:
        values[..., 1] //= 2
    if channels == 4:
        values[..., 3] = 65535
    bgr = values if channels == 1 else values[..., [2, 1, 0, 3][:channels]]
    data = cv2.imencode(f".{kind.lower()}", bgr)[1].tobytes()
    image = decode_image(data, "scan")
    np.testing.assert_allclose(image[..., 0], np.arange(256).reshape(16, 16), atol=1)
    if channels == 3:
        np.testing.assert_allclose(image[..., 1], np.arange(256).reshape(16, 16) // 2, atol=1)
    assert (f"scan: its values reach {ramp.max()}: taken for {bits} bits" in caplog.text) == (bits < 16)


def test_transparent_sixteen_bits_are_white() -> None:
    values = np.zeros((8, 8, 4), np.uint16)
    values[4:, :, 2], values[4:, :, 3] = 65535, 65535  # below red, above clear; OpenCV writes BGRA
    image = decode_image(cv2.imencode(".png", values)[1].tobytes(), "scan")
    assert image[2, 2].tolist() == [255, 255, 255]
    assert image[6, 6].tolist() == [255, 0, 0]


def test_deep_colours_of_a_jpeg_2000_are_scaled_as_those_of_a_png() -> None:
    values = np.repeat(np.mgrid[0:64, 0:64][1][:, :, None] * 64, 3, axis=2).astype(np.uint16)
    values[..., 0] = 0
    data = cv2.imencode(".jp2", values, [cv2.IMWRITE_JPEG2000_COMPRESSION_X1000, 1000])[1].tobytes()
    np.testing.assert_allclose(decode_image(data, "scan"), values[..., ::-1] // 16, atol=2)


def test_opacity_may_use_as_few_bits_as_the_colours_do() -> None:
    values = np.full((8, 8, 4), 4095, np.uint16)
    values[..., :2] = 0
    values[:4, :, 3] = 0
    image = decode_image(cv2.imencode(".png", values)[1].tobytes(), "scan")
    assert image[2, 2].tolist() == [255, 255, 255]
    assert image[6, 6].tolist() == [255, 0, 0]


def test_inks_of_sixteen_bits_are_read_as_those_of_eight(tmp_path: Path) -> None:
    inks = np.asarray(quarters().convert("CMYK"))
    image = read_image(deep_tiff(tmp_path / "print.tif", inks.astype(np.uint16) * 257, 5))
    np.testing.assert_array_equal(image, np.asarray(quarters()))


def test_grey_of_sixteen_bits_whose_zero_is_white(tmp_path: Path) -> None:
    grey = np.arange(256, dtype=np.uint16).reshape(16, 16, 1) * 257
    image = read_image(deep_tiff(tmp_path / "scan.tif", 65535 - grey, 0))
    np.testing.assert_array_equal(image[..., :1], grey // 257)


def test_training_reads_what_serving_reads(tmp_path: Path, portrait: np.ndarray) -> None:
    (tmp_path / "train/happy").mkdir(parents=True)
    (tmp_path / "validation/happy").mkdir(parents=True)
    save(tmp_path / "validation/happy/other.png", quarters())
    cut_out = Image.fromarray(portrait).resize((64, 72)).convert("RGBA")
    cut_out.putalpha(Image.linear_gradient("L").resize(cut_out.size))
    exif = Image.Exif()
    exif[0x0112] = 6
    kinds = [cut_out, cut_out.convert("LA"), cut_out.convert("P"), cut_out.convert("L"), cut_out.convert("1")]
    kinds.append(Image.fromarray(portrait[:64, :64, 0].astype(np.uint16) * 16))
    for number, picture in enumerate(kinds):
        save(tmp_path / "train/happy" / f"{number}.png", picture, exif=exif)
    save(tmp_path / "train/happy/print.jpg", quarters().convert("CMYK"))
    source = FolderSource(ClassFolders(tmp_path), [0], HOLD_OUT)
    images = [image for batch in source.batches() for image in batch()]
    assert len(images) == 8
    for (_, _, path), image in zip(source.files, images, strict=True):
        np.testing.assert_array_equal(image.pixels, cv2.cvtColor(read_image(path), cv2.COLOR_RGB2GRAY))


def test_whatever_a_decoder_raises_costs_its_own_image_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    good = [save(tmp_path / name, quarters()) for name in ("a.png", "c.png")]
    bad = save(tmp_path / "b.bmp", quarters())

    def fail(*_: object) -> None:
        raise RuntimeError("Failed to decode frame 0: Decoding of color planes failed")  # as of Pillow's AVIF

    monkeypatch.setattr(BmpImagePlugin.BmpImageFile, "load", fail)
    (source,) = open_sources([str(tmp_path)])
    assert [frame.name for frame in source] == [str(path) for path in good]
    assert source.failed == 1
    assert f"{bad}: cannot be read as an image: Failed to decode frame 0" in caplog.text


def test_a_damaged_avif_is_a_source_error(portrait: np.ndarray) -> None:
    data = bytearray(encoded(Image.fromarray(portrait), "AVIF", quality=40))
    middle = data.index(b"mdat") + (len(data) - data.index(b"mdat")) // 3
    data[middle : middle + 400] = b"\xff" * 400
    with pytest.raises(SourceError, match="photo"):
        decode_image(bytes(data), "photo")


def test_a_heic_of_tiles_is_read_whole() -> None:
    heif = pytest.importorskip("pillow_heif", reason="pillow-heif, which reads HEIC, is not installed")
    buffer = io.BytesIO()
    heif.from_pillow(quarters().resize((400, 200))).save(buffer, format="HEIF", quality=95)
    image = decode_image(buffer.getvalue(), "IMG_1.HEIC")
    assert image.shape == (200, 400, 3)
    assert near(image[40, 80], RED, 30)
    with pytest.raises(SourceError, match="400x200 pixels where at most 799"):
        decode_image(buffer.getvalue(), "IMG_1.HEIC", max_pixels=799)


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
        (encoded(quarters(), "TIFF")[:100], "the beginning of an image that is damaged or cut"),
        (encoded(quarters(), "AVIF")[:100], "the beginning of an image that is damaged or cut"),
    ],
)
def test_what_is_no_whole_image_is_named(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "broken.jpg"
    path.write_bytes(data)
    with pytest.raises(SourceError, match=message) as caught:
        read_image(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_a_pipe_among_the_images_holds_up_nobody(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(SourceError, match=r"pipe\.png: a pipe or device where an image file was expected"):
        read_image(tmp_path / "pipe.png")


@pytest.mark.parametrize(("subfile", "more", "raw"), [(1, True, True), (1, False, False), (0, True, False)])
def test_the_preview_of_a_raw_photograph_is_not_taken_for_it(
    tmp_path: Path, subfile: int, more: bool, raw: bool
) -> None:
    """As a DNG begins; a pyramid, whose further images are the smaller ones, is read."""
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    for tag, value in ((254, subfile), (330, 8))[: 1 + more]:
        tags.tagtype[tag], tags[tag] = TiffTags.LONG, value
    Image.new("RGB", (40, 30)).save(tmp_path / "a.dng", format="TIFF", tiffinfo=tags)
    if raw:
        with pytest.raises(SourceError, match=r"a\.dng: .*a camera's raw photograph, .* save it as JPEG"):
            read_image(tmp_path / "a.dng")
    else:
        assert read_image(tmp_path / "a.dng").shape == (30, 40, 3)


def test_floating_point_pixels_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "depth.tiff", Image.fromarray(np.zeros((4, 4), np.float32)))
    with pytest.raises(SourceError, match="floating-point pixels"):
        read_image(path)


def test_a_huge_image_is_refused_before_it_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "bomb.png", Image.new("1", (14_000, 10_000)))
    assert path.stat().st_size < 100_000
    with pytest.raises(SourceError, match="pixels"):
        read_image(path)
    monkeypatch.setattr(image_files, "MAX_PIXELS", 799)
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
    with pytest.raises(SourceError, match="a PostScript document"):
        read_image(path)


def test_photographs_of_iphones_are_called_by_their_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_files, "reads_heic", lambda: False)
    with pytest.raises(SourceError, match=r"HEIC photograph, which needs `pip install"):
        decode_image(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(40), "IMG_1.HEIC")


@pytest.mark.parametrize("name", ["IMG_1.HEIC", "IMG_1.jpg", "IMG_1.mov", "IMG_1"])
@pytest.mark.parametrize("brand", [b"heic", b"mif1", b"miaf", b"MiHB"])
def test_a_heic_is_known_by_any_of_its_brands_whatever_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str, brand: bytes
) -> None:
    monkeypatch.setattr(image_files, "reads_heic", lambda: False)
    path = tmp_path / name
    path.write_bytes(b"\0\0\0\x18ftyp" + brand + b"\0\0\0\0mif1heic" + bytes(40))
    (source,) = open_sources([str(path)])
    assert isinstance(source, ImageFiles)
    assert list(source) == []
    assert f"{path}: a HEIC photograph" in caplog.text


def test_an_avif_may_name_the_brand_of_its_container_first() -> None:
    data = bytearray(encoded(quarters(), "AVIF", quality=95))
    data[8:12] = b"mif1"
    assert near(decode_image(bytes(data), "photo")[4, 8], RED, 30)


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"PK\3\4" + bytes(100), "a ZIP archive"),
        (b"%PDF-1.7\n" + bytes(100), "a PDF document"),
        (b"<svg xmlns=''/>", "a page or other text in angle brackets"),
        (b"\0\0\0\x18ftypisom" + bytes(100), "a video, to be given a video's name,"),
        (b"\x1aE\xdf\xa3" + bytes(100), "a video"),
    ],
)
def test_what_is_no_image_is_called_what_it_is(data: bytes, kind: str) -> None:
    with pytest.raises(SourceError, match=rf"^photo.jpg: {kind}.* where an image was expected$"):
        decode_image(data, "photo.jpg")


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
