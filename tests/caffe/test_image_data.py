"""ImageData: what is drawn at random, what a resumed run sees, and lists and pictures that are none."""

import json
import logging
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline.base.errors import InputError
from pipeline.caffe.images import ImageFileError
from pipeline.caffe.layers import LayerError
from pipeline.caffe.net import Net
from pipeline.caffe.proto.caffe_pb2 import TEST, TRAIN, NetParameter, Phase
from pipeline.caffe.proto.files import parse_text

COUNT = 7


def image_net(list_file: Path | str, param: str = "", transform: str = "", phase: Phase = TRAIN, seed: int = 1) -> Net:
    text = (
        f'layer {{ name: "it" type: "ImageData" top: "data" top: "label" image_data_param {{ source: "{list_file}" '
        f"{param} }} transform_param {{ {transform} }} }}"
    )
    return Net(parse_text(text, NetParameter, "net"), phase, seed=seed)


def labels(net: Net, batches: int) -> list[int]:
    return [int(label) for _ in range(batches) for label in net.forward()["label"]]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A list of gray pictures of 6x5, each filled with ten times its label."""
    folder = tmp_path_factory.mktemp("images")
    for index in range(COUNT):
        cv2.imwrite(str(folder / f"{index}.png"), np.full((6, 5), 10 * index, np.uint8))
    (folder / "list.txt").write_text("".join(f"{folder}/{index}.png {index}\n" for index in range(COUNT)))
    return folder / "list.txt"


def test_the_order_is_the_lists_and_begins_again_within_a_batch(images: Path) -> None:
    net = image_net(images, "batch_size: 5")
    assert net.shapes == {"data": (5, 3, 6, 5), "label": (5,)}
    for expected in ([0, 1, 2, 3, 4], [5, 6, 0, 1, 2]):
        tops = net.forward()
        assert tops["label"].tolist() == expected
        np.testing.assert_array_equal(tops["data"][:, 0, 0, 0], 10 * np.array(expected, np.float32))


def test_shuffle_puts_every_pass_into_another_order(images: Path) -> None:
    seen = np.reshape(labels(image_net(images, "batch_size: 7 shuffle: true"), 40), (40, COUNT))
    np.testing.assert_array_equal(np.sort(seen), np.tile(np.arange(COUNT), (40, 1)))
    assert len(np.unique(seen, axis=0)) > 30
    assert set(seen[:, 0]) == set(range(COUNT))


def test_a_seed_means_the_same_order(images: Path) -> None:
    orders = [labels(image_net(images, "shuffle: true", seed=seed), 20) for seed in (3, 3, 4)]
    assert orders[0] == orders[1] != orders[2]


def test_rand_skip_draws_where_the_first_pass_begins(images: Path) -> None:
    first = {tuple(labels(image_net(images, "rand_skip: 4", seed=seed), COUNT)) for seed in range(30)}
    assert first == {tuple(np.roll(range(COUNT), -skipped)) for skipped in range(4)}


@pytest.mark.parametrize("shuffle", ["true", "false"])
def test_a_resumed_run_sees_what_an_uninterrupted_one_sees(images: Path, tmp_path: Path, shuffle: str) -> None:
    noise = np.random.RandomState(0).randint(0, 256, (6, 5, 3)).astype(np.uint8)
    cv2.imwrite(str(tmp_path / "noise.png"), noise)
    names = tmp_path / "list.txt"
    names.write_text("".join(f"{tmp_path}/noise.png {index}\n" for index in range(COUNT)))
    arguments = (names, f"batch_size: 4 shuffle: {shuffle} rand_skip: 3", "crop_size: 3 mirror: true")
    first, other = image_net(*arguments), image_net(*arguments, seed=2)
    for _ in range(3):
        first.forward()
    other.restore(json.loads(json.dumps(first.state())))
    for _ in range(5):
        expected, tops = first.forward(), other.forward()
        np.testing.assert_array_equal(tops["label"], expected["label"])
        np.testing.assert_array_equal(tops["data"], expected["data"])


def test_pictures_of_several_sizes_come_one_by_one_or_cropped(tmp_path: Path) -> None:
    for name, shape in (("small", (6, 5)), ("large", (9, 8))):
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.zeros(shape, np.uint8))
    names = tmp_path / "list.txt"
    names.write_text("small.png 0\nlarge.png 1\n")
    param = f'root_folder: "{tmp_path}/"'
    net = image_net(names, param)
    assert [tuple(net.forward()["data"].shape) for _ in range(3)] == [(1, 3, 6, 5), (1, 3, 9, 8), (1, 3, 6, 5)]
    assert image_net(names, f"{param} batch_size: 2", "crop_size: 4").forward()["data"].shape == (2, 3, 4, 4)
    with pytest.raises(ImageFileError, match=r"list\.txt:2: large\.png: 9x8 where 6x5, as of the batch's first"):
        image_net(names, f"{param} batch_size: 2").forward()


def test_a_photo_is_turned_upright_as_its_exif_says(tmp_path: Path) -> None:
    image = np.zeros((16, 32, 3), np.uint8)
    image[:, :16] = 255  # bright on the left
    jpeg = cv2.imencode(".jpg", image)[1].tobytes()
    orientation = b"\x01\x12\x00\x03\x00\x00\x00\x01\x00\x06\x00\x00"  # 6: the camera was turned by 90 degrees
    exif = b"Exif\0\0MM\x00\x2a\x00\x00\x00\x08\x00\x01" + orientation + b"\x00\x00\x00\x00"
    turned = jpeg[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + jpeg[2:]
    (tmp_path / "photo.jpg").write_bytes(turned)
    (tmp_path / "list.txt").write_text(f"{tmp_path}/photo.jpg 0")
    data = image_net(tmp_path / "list.txt").forward()["data"][0]
    assert data.shape == (3, 32, 16)
    assert (data[:, :12] > 200).all()
    assert (data[:, 20:] < 50).all()


def declaring(width: int, height: int) -> bytes:
    """A small PNG whose head declares that size."""
    png = cv2.imencode(".png", np.zeros((9, 9), np.uint8))[1].tobytes()
    head = b"IHDR" + width.to_bytes(4, "big") + height.to_bytes(4, "big") + png[24:29]
    return png[:12] + head + zlib.crc32(head).to_bytes(4, "big") + png[33:]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no lines"),
        ("a.png 0\nb.png\n", r"list\.txt:2: 'b.png' where 'path label' was expected"),
        ("a.png 0\n\n", r"list\.txt:2: '' where"),
        ("a.png one\n", r"list\.txt:1: 'a.png one' where"),
        ("a.png\t1\n", r"list\.txt:1: .* where"),
        (" 1\n", r"list\.txt:1: '1' where"),
        ("a.png 99999999999\n", r"list\.txt:1: .* the label an integer"),
        ("absent.png 0\n", r"list\.txt:1: absent.png: no such file"),
        ("./ 0\n", r"list\.txt:1: ./: no such file"),
        ("a\0.png 0\n", r"list\.txt:1: a.*\.png: "),
        ("text.png 0\n", r"list\.txt:1: text.png: no picture that OpenCV can read"),
        ("empty.png 0\n", r"list\.txt:1: empty.png: no picture"),
        ("truncated.png 0\n", r"list\.txt:1: truncated.png: no picture"),
        ("huge.png 0\n", r"list\.txt:1: huge.png: more than the 67108864 pixels"),
    ],
)
def test_a_list_or_picture_that_is_none_is_named(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "empty.png").touch()
    (tmp_path / "truncated.png").write_bytes(cv2.imencode(".png", np.zeros((9, 9), np.uint8))[1].tobytes()[:30])
    (tmp_path / "huge.png").write_bytes(declaring(30_000, 30_000))
    (tmp_path / "list.txt").write_text(text)
    with pytest.raises(ImageFileError, match=said):
        image_net(tmp_path / "list.txt", f'root_folder: "{tmp_path}/"')


def test_a_list_that_is_absent_or_a_folder_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.txt", tmp_path):
        with pytest.raises(ImageFileError, match=f"{path}: cannot be read"):
            image_net(path)


@pytest.mark.parametrize(
    ("param", "transform", "said"),
    [
        ("batch_size: 0", "", "batch_size 0"),
        ("new_height: 4", "", "new_height 4 and new_width 0 where both"),
        ("new_height: 4000000000 new_width: 4000000000", "", "2147483647 values"),
        ("batch_size: 4000000000", "", "2147483647 values"),
        ("rand_skip: 8", "", "rand_skip 8 where .* has 7 lines"),
        ("", "crop_size: 6", "crop_size 6 is larger than images of 6x5"),
        ("is_color: false", "mean_value: [1, 2, 3]", "3 mean_value where the images have 1 channels"),
        ("", 'mean_value: 1 mean_file: "mean"', "exclude"),
    ],
)
def test_a_layer_that_cannot_be_built_says_why(images: Path, param: str, transform: str, said: str) -> None:
    with pytest.raises(InputError, match=said) as raised:
        image_net(images, param, transform)
    assert isinstance(raised.value, LayerError | ImageFileError)


def test_fields_that_caffe_ignores_are_told(images: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        net = image_net(images, "crop_size: 2 scale: 3", "force_gray: true", phase=TEST)
    assert net.shapes["data"] == (1, 3, 6, 5)
    assert [record.getMessage() for record in caplog.records] == [
        "layer 'it': ImageData has no use for image_data_param's scale, crop_size: ignored, as in Caffe",
        "layer 'it': ImageData has no use for transform_param's force_gray: ignored, as in Caffe",
    ]
