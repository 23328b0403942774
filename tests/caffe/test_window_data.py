"""WindowData: what is drawn at random, what a resumed run sees, and window files that are none."""

import json
import logging
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline.caffe.images import ImageFileError
from pipeline.caffe.layers import LayerError
from pipeline.caffe.layers.window_data import Region, region_around
from pipeline.caffe.net import Net
from pipeline.caffe.proto.blob_proto import write_mean
from pipeline.caffe.proto.caffe_pb2 import TRAIN, NetParameter
from pipeline.caffe.proto.files import parse_text

HEIGHT, WIDTH = 20, 30


def window_net(source: Path | str, param: str = "batch_size: 8", transform: str = "crop_size: 6", seed: int = 1) -> Net:
    text = (
        f'layer {{ name: "it" type: "WindowData" top: "data" top: "label" window_data_param {{ source: "{source}" '
        f"{param} }} transform_param {{ {transform} }} }}"
    )
    return Net(parse_text(text, NetParameter, "net"), TRAIN, seed=seed)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture whose pixels are all unlike: blue tells the column, green the row."""
    path = tmp_path_factory.mktemp("pictures") / "image.png"
    rows, columns = np.mgrid[:HEIGHT, :WIDTH].astype(np.uint8)
    cv2.imwrite(str(path), np.stack([columns, rows, 0 * rows], 2))
    return path


def write_windows(folder: Path, image: Path, *windows: str) -> Path:
    path = folder / "windows.txt"
    path.write_text(f"# 0\n{image}\n3\n{HEIGHT}\n{WIDTH}\n{len(windows)}\n" + "\n".join(windows) + "\n")
    return path


@pytest.fixture
def windows(tmp_path: Path, image: Path) -> Path:
    """Objects of classes 1 to 3 and background, all of 6x6, so that a crop is the picture's own pixels."""
    return write_windows(
        tmp_path, image, "1 0.5 0 0 5 5", "2 0.9 10 5 15 10", "3 1 24 14 29 19", "0 0.4 3 12 8 17", "0 0 17 1 22 6"
    )


def test_every_window_is_drawn_and_a_batch_has_its_share_of_objects(windows: Path) -> None:
    net = window_net(windows, "batch_size: 8 fg_fraction: 0.3")
    assert net.shapes == {"data": (8, 3, 6, 6), "label": (8,)}
    corners = {1: (0, 0), 2: (10, 5), 3: (24, 14)}
    seen = set()
    for _ in range(40):
        tops = net.forward()
        assert (tops["label"][:6] == 0).all()  # 8 times 0.3 is 2.4
        for pixels, label in zip(tops["data"], tops["label"], strict=True):
            column, row = int(pixels[0, 0, 0]), int(pixels[1, 0, 0])
            seen.add((column, row))
            assert label == 0 or corners[int(label)] == (column, row)
            np.testing.assert_array_equal(pixels[0], np.tile(np.arange(column, column + 6), (6, 1)))
    assert seen == {(0, 0), (10, 5), (24, 14), (3, 12), (17, 1)}


def test_what_is_neither_object_nor_background_is_left_out(windows: Path) -> None:
    net = window_net(windows, "batch_size: 20 fg_fraction: 0.5 fg_threshold: 0.9 bg_threshold: 0.4")
    seen = {int(column) for _ in range(10) for column in net.forward()["data"][:, 0, 0, 0]}
    assert seen == {10, 24, 17}


def test_a_threshold_is_compared_in_single_precision(tmp_path: Path, image: Path) -> None:
    windows = write_windows(tmp_path, image, "1 0.1 0 0 5 5", "0 0.0999 10 5 15 10")
    net = window_net(windows, "batch_size: 4 fg_threshold: 0.1 bg_threshold: 0.1 fg_fraction: 0.5")
    assert net.forward()["data"][:, 0, 0, 0].tolist() == [10, 10, 0, 0]


def test_half_of_the_crops_are_mirrored_the_mean_is_not(windows: Path, tmp_path: Path) -> None:
    mean = np.zeros((3, 6, 6), np.float32)
    mean[2] = np.arange(6)
    write_mean(tmp_path / "mean.binaryproto", mean)
    net = window_net(windows, "batch_size: 200", f'crop_size: 6 mirror: true mean_file: "{tmp_path}/mean.binaryproto"')
    data = net.forward()["data"]
    mirrored = data[:, 0, 0, 0] > data[:, 0, 0, 1]
    assert 60 < int(mirrored.sum()) < 140
    np.testing.assert_array_equal(data[:, 2], np.broadcast_to(-mean[2], (200, 6, 6)))


def test_a_mirrored_crop_has_its_surroundings_on_the_other_side() -> None:
    arguments = ((0, 5, 9, 14), (30, 20), 10)
    region = region_around(*arguments, context_pad=2, square=False, mirrored=False)
    assert region == Region(0, 2, 13, 18, 8, 10, 2, 0)
    assert region_around(*arguments, context_pad=2, square=False, mirrored=True) == Region(0, 2, 13, 18, 8, 10, 0, 0)


def test_a_mirrored_crop_shows_what_the_plain_one_shows(tmp_path: Path, image: Path) -> None:
    windows = write_windows(tmp_path, image, "1 1 0 5 9 14", "0 0 20 5 29 14")
    param = "batch_size: 60 context_pad: 2 fg_fraction: 0.5"
    plain = window_net(windows, param, "crop_size: 10").forward()["data"]
    data = window_net(windows, param, "crop_size: 10 mirror: true").forward()["data"]
    mirrored = 0
    for crop, upright in zip(data, plain, strict=True):
        if np.array_equal(crop, upright):
            continue
        np.testing.assert_array_equal(np.flip(crop.numpy(), 2), upright)
        mirrored += 1
    assert 15 < mirrored < 45


def test_a_resumed_run_sees_what_an_uninterrupted_one_sees(windows: Path) -> None:
    arguments = (windows, "batch_size: 5", "crop_size: 4 mirror: true")
    first, other = window_net(*arguments), window_net(*arguments, seed=2)
    first.forward()
    other.restore(json.loads(json.dumps(first.state())))
    for _ in range(4):
        expected, tops = first.forward(), other.forward()
        np.testing.assert_array_equal(tops["label"], expected["label"])
        np.testing.assert_array_equal(tops["data"], expected["data"])


def test_cached_files_are_read_once(tmp_path: Path, image: Path) -> None:
    copy = tmp_path / "copy.png"
    copy.write_bytes(image.read_bytes())
    windows = write_windows(tmp_path, copy, "1 1 0 0 5 5", "0 0 3 3 8 8")
    cached, read = window_net(windows, "batch_size: 4 cache_images: true"), window_net(windows, "batch_size: 4")
    expected = cached.forward()["data"].clone()
    read.forward()
    copy.unlink()
    np.testing.assert_array_equal(cached.forward()["data"], expected)
    with pytest.raises(ImageFileError, match=r"windows\.txt: .*copy\.png: no such file"):
        read.forward()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "empty, where"),
        ("0\n", r"windows\.txt:1: the file ends"),
        ("image.png\n3\n", r"windows\.txt:2: 'image.png 3' where '# 0' was expected"),
        ("# 1\n", r"windows\.txt:1: '# 1' where '# 0' was expected"),
        ("# 0\nimage.png\n3\n20\n30\n2\n1 1 0 0 5 5\n", r"windows\.txt:7: the file ends in the middle"),
        ("# 0\nimage.png\n1\n20\n30\n0\n", r"windows\.txt:5: '1' where 3 channels"),
        ("# 0\nimage.png\n3 20 30 99999999999\n", r"windows\.txt:3: '99999999999' where an integer of 32 bits"),
        ("# 0\nimage.png\n3 20 30\n1\n1 1 0 0 5.5 5\n", r"windows\.txt:5: '5.5' where an integer"),
        ("# 0\nimage.png\n3 20 30\n1\n1 much 0 0 5 5\n", r"windows\.txt:5: 'much' where a number"),
        ("# 0\nimage.png\n3 20 30\n1\n0 1 0 0 5 5\n", r"windows\.txt:5: '0' where the class of an object, above 0"),
        ("# 0\nimage.png\n3 20 30\n1\n1 1 6 0 5 5\n", r"windows\.txt:5: '6 0 5 5' where a window"),
        ("# 0\nimage.png\n3 20 30\n0\n# 2\nimage.png\n", r"windows\.txt:5: '# 2' where '# 1'"),
        ("# 0\n" + "x" * 70_000, r"windows\.txt:2: a line of more than 65536 bytes"),
    ],
)
def test_a_window_file_that_is_none_is_named(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "windows.txt").write_text(text)
    with pytest.raises(ImageFileError, match=said):
        window_net(tmp_path / "windows.txt")


def test_a_window_file_that_is_absent_is_named(tmp_path: Path) -> None:
    with pytest.raises(ImageFileError, match=r"absent\.txt: cannot be read"):
        window_net(tmp_path / "absent.txt")


@pytest.mark.parametrize(
    ("window", "param"),
    [
        ("25 0 30 5", ""),
        ("-1 0 5 5", ""),
        ("40 2 45 7", "context_pad: 1"),
        ("-9 2 -4 7", 'crop_mode: "square"'),
        ("-1000000000 0 1000000000 0", 'crop_mode: "square"'),
    ],
)
def test_a_window_outside_its_picture_is_named(tmp_path: Path, image: Path, window: str, param: str) -> None:
    net = window_net(write_windows(tmp_path, image, f"1 1 {window}"), f"batch_size: 1 fg_fraction: 1 {param}")
    with pytest.raises(ImageFileError, match=rf"image\.png: window {window} where one within its 30x20 pixels"):
        net.forward()


@pytest.mark.parametrize(
    ("param", "transform", "said"),
    [
        ("batch_size: 4", "", "crop_size 0"),
        ("", "crop_size: 6", "batch_size 0"),
        ("batch_size: 4", "crop_size: 100000", "2147483647 values"),
        ('batch_size: 4 crop_mode: "round"', "crop_size: 6", "crop_mode 'round'"),
        ("batch_size: 4 context_pad: 3", "crop_size: 6", "context_pad 3 on both sides"),
        ("batch_size: 4 fg_fraction: 1.5", "crop_size: 6", "fg_fraction 1.5"),
        ("batch_size: 4 fg_threshold: 2", "crop_size: 6", "no windows of objects, of which a batch takes 1"),
        ("batch_size: 4 bg_threshold: 0", "crop_size: 6", "no windows of background, of which a batch takes 3"),
        ("batch_size: 4", "crop_size: 6 mean_value: [1, 2]", "2 mean_value where 1 or 3"),
    ],
)
def test_a_layer_that_cannot_be_built_says_why(windows: Path, param: str, transform: str, said: str) -> None:
    with pytest.raises(LayerError, match=f"layer 'it': .*{said}"):
        window_net(windows, param, transform)


def test_a_mean_smaller_than_the_crop_is_named(windows: Path, tmp_path: Path) -> None:
    write_mean(tmp_path / "mean.binaryproto", np.zeros((3, 4, 8), np.float32))
    with pytest.raises(LayerError, match=r"mean\.binaryproto: a mean of shape \(3, 4, 8\) where 6x6 pixels"):
        window_net(windows, "batch_size: 4", f'crop_size: 6 mean_file: "{tmp_path}/mean.binaryproto"')


def test_a_scale_that_caffe_ignores_is_told(windows: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        window_net(windows, "batch_size: 4", "crop_size: 6 scale: 2")
    assert "WindowData has no use for transform_param's scale: ignored, as in Caffe" in caplog.text
