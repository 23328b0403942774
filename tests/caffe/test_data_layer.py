"""The Data layer: what its fields do, where it goes on after a snapshot, and what it refuses."""

import logging
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from google.protobuf import text_format

from pipeline.caffe.database import DatabaseError, DatabaseWriter, datum_from_image, record_key
from pipeline.caffe.layers import LayerError
from pipeline.caffe.net import Net
from pipeline.caffe.proto.caffe_pb2 import TEST, TRAIN, Datum, NetParameter, Phase

NET = 'layer {{ name: "data" type: "Data" top: "data" top: "label" data_param {{ source: "{source}" {data} }} {rest} }}'
BACKENDS = ["lmdb", "leveldb"]


def net(source: Path, data: str, transform: str = "", phase: Phase = TRAIN) -> Net:
    rest = f"transform_param {{ {transform} }}" if transform else ""
    text = NET.format(source=source, data=data, rest=rest)
    return Net(text_format.Parse(text, NetParameter()), phase, seed=1)


def write(path: Path, backend: str, data: list[Datum]) -> Path:
    with DatabaseWriter(path, backend) as database:
        for number, datum in enumerate(data):
            database.put(record_key(number, f"{number}.png"), datum)
    return path


def image(number: int, *shape: int) -> Datum:
    return datum_from_image(np.random.RandomState(number).randint(0, 256, shape).astype(np.uint8), number)


def encoded(shape: tuple[int, ...], label: int) -> Datum:
    pixels = np.random.RandomState(label).randint(0, 256, shape).astype(np.uint8)
    return Datum(data=cv2.imencode(".png", pixels)[1].tobytes(), label=label, encoded=True)


def labels(data: Net) -> list[float]:
    return data.forward()["label"].tolist()


@pytest.mark.parametrize("backend", BACKENDS)
def test_goes_on_exactly_where_its_state_says(tmp_path: Path, backend: str) -> None:
    source = write(tmp_path / "database", backend, [image(number, 2, 9, 8) for number in range(10)])
    fields = f"batch_size: 4 backend: {backend.upper()}"
    one, other = (net(source, fields, "crop_size: 5 mirror: true") for _ in range(2))
    for _ in range(5):  # the last of them ends at the database's end
        one.forward()
    other.restore(one.state())
    assert one.state() == other.state()
    for _ in range(3):
        ours, theirs = one.forward(), other.forward()
        assert ours["label"].tolist() == theirs["label"].tolist()
        assert np.array_equal(ours["data"], theirs["data"])
    assert labels(one) == [2, 3, 4, 5]


def test_two_nets_read_one_leveldb(tmp_path: Path) -> None:
    source = write(tmp_path / "database", "leveldb", [image(number, 3, 4) for number in range(5)])
    one, other = (net(source, "batch_size: 3", phase=phase) for phase in (TRAIN, TEST))  # LEVELDB is the default
    assert [labels(one), labels(other), labels(one)] == [[0, 1, 2], [0, 1, 2], [3, 4, 0]]


def test_large_and_negative_labels(tmp_path: Path) -> None:
    data = [image(number, 3, 4) for number in range(3)]
    data[0].label, data[1].label, data[2].label = -7, 200, 100_000
    source = write(tmp_path / "database", "lmdb", data)
    assert labels(net(source, "batch_size: 3 backend: LMDB")) == [-7, 200, 100_000]


def test_a_batch_of_several_sizes(tmp_path: Path) -> None:
    source = write(tmp_path / "database", "lmdb", [image(n, 1, 6 + n % 2, 7) for n in range(4)])
    cropped = net(source, "batch_size: 4 backend: LMDB", "crop_size: 6 mirror: true")
    assert cropped.forward()["data"].shape == (4, 1, 6, 6)
    alone = net(source, "batch_size: 1 backend: LMDB")
    assert [tuple(alone.forward()["data"].shape) for _ in range(2)] == [(1, 1, 6, 7), (1, 1, 7, 7)]
    with pytest.raises(DatabaseError, match=r"record 00000001_1\.png has shape \(1, 7, 7\) where \(1, 6, 7\)"):
        net(source, "batch_size: 2 backend: LMDB").forward()


def test_one_that_is_smaller_than_the_crop(tmp_path: Path) -> None:
    source = write(tmp_path / "database", "lmdb", [image(0, 1, 6, 6), image(1, 1, 5, 9)])
    with pytest.raises(DatabaseError, match=r"record 00000001_1\.png: transform_param: crop_size 6 is larger than"):
        net(source, "batch_size: 2 backend: LMDB", "crop_size: 6").forward()


def test_encoded_images_in_colour_or_grey(tmp_path: Path) -> None:
    source = write(tmp_path / "database", "lmdb", [encoded((4, 5, 3), 1), encoded((4, 5), 2)])
    fields = "batch_size: 2 backend: LMDB"
    for transform, channels in (("force_color: true", 3), ("force_gray: true", 1)):
        assert net(source, fields, transform).forward()["data"].shape == (2, channels, 4, 5)
    with pytest.raises(DatabaseError, match=r"record 00000001_1\.png has shape \(1, 4, 5\) where \(3, 4, 5\)"):
        net(source, fields).forward()
    with pytest.raises(LayerError, match="force_color and force_gray exclude one another"):
        net(source, fields, "force_color: true force_gray: true")


def test_fields_without_effect_are_noted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = write(tmp_path / "database", "lmdb", [image(0, 1, 4, 4)])
    with caplog.at_level(logging.WARNING, "pipeline"):
        net(source, "batch_size: 1 backend: LMDB rand_skip: 3 mirror: true", "force_gray: true")
    assert [record.getMessage() for record in caplog.records] == [
        "layer 'data': Data has no use for data_param's rand_skip, mirror: ignored, as in Caffe",
        "layer 'data': Data has no use for transform_param's force_gray: ignored, as in Caffe",
    ]


@pytest.mark.parametrize("size", [0, 2**31])
def test_a_batch_that_cannot_be(tmp_path: Path, size: int) -> None:
    source = write(tmp_path / "database", "lmdb", [image(0, 1, 4, 4)])
    with pytest.raises(LayerError, match=f"batch_size {size} "):
        net(source, f"batch_size: {size} backend: LMDB")


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_is_no_database_of_that_backend(tmp_path: Path, backend: str) -> None:
    other = BACKENDS[1 - BACKENDS.index(backend)]
    source = write(tmp_path / "database", other, [image(0, 1, 4, 4)])
    with pytest.raises(DatabaseError, match=f"where an? .* was expected; it is an? .*: set backend: {other.upper()}"):
        net(source, f"batch_size: 1 backend: {backend.upper()}")


def marked(number: int) -> Datum:
    """An image that is dark on the left and light on the right, (1, 4, 4)."""
    return datum_from_image(np.array([[[0, 1, 2, 3]] * 4], np.uint8) * 50, number)


def test_an_alternating_mirror_turns_every_image_in_every_second_pass(tmp_path: Path) -> None:
    source = write(tmp_path / "database", "lmdb", [marked(number) for number in range(50)])
    data = net(source, "batch_size: 20 backend: LMDB", "mirror: true augmentation_param { alternate_mirror: true }")
    tops = np.concatenate([data.forward()["data"].numpy() for _ in range(10)])
    mirrored = (tops[:, 0, 0, 0] > tops[:, 0, 0, 3]).reshape(4, 50)
    assert 10 < mirrored[0].sum() < 40
    for earlier, later in pairwise(mirrored):
        np.testing.assert_array_equal(later, ~earlier)


def test_an_augmented_net_goes_on_exactly_where_its_state_says(tmp_path: Path) -> None:
    source = write(tmp_path / "database", "lmdb", [image(number, 1, 9, 8) for number in range(10)])
    transform = "crop_size: 5 mirror: true augmentation_param { alternate_mirror: true rotation: 20 erasing: 0.3 }"
    one, other = (net(source, "batch_size: 4 backend: LMDB", transform) for _ in range(2))
    for _ in range(7):
        one.forward()
    other.restore(one.state())
    for _ in range(3):
        assert np.array_equal(one.forward()["data"], other.forward()["data"])


def test_an_alternating_mirror_needs_mirror(tmp_path: Path) -> None:
    source = write(tmp_path / "database", "lmdb", [marked(0)])
    with pytest.raises(LayerError, match="alternate_mirror goes with mirror: true"):
        net(source, "batch_size: 1 backend: LMDB", "augmentation_param { alternate_mirror: true }")
