"""mean, compared with what real Caffe's compute_image_mean wrote for the same database."""

import hashlib
import json
import logging
from pathlib import Path

import numpy as np
import pytest
from helpers.record_databases import RECORDED

from pipeline.caffe.database import DatabaseError, DatabaseWriter, datum_from_image, record_key
from pipeline.caffe.proto.blob_proto import read_mean
from pipeline.caffe.proto.caffe_pb2 import Datum
from pipeline.stages.mean import mean


def write(path: Path, *data: Datum) -> Path:
    with DatabaseWriter(path) as database:
        for number, datum in enumerate(data):
            database.put(record_key(number, "face.png"), datum)
    return path


def test_mean_equals_real_caffes_to_the_byte(
    recorded_set: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    image = mean(recorded_set / "kaggle/train_lmdb", tmp_path / "mean.binaryproto")
    recorded = json.loads((RECORDED / "databases.json").read_text())
    data = (tmp_path / "mean.binaryproto").read_bytes()
    assert hashlib.sha256(data).hexdigest() == recorded["mean.binaryproto"]
    assert recorded["log"] in caplog.messages
    np.testing.assert_array_equal(read_mean(tmp_path / "mean.binaryproto"), image)


def test_averages_by_pixel_and_channel(tmp_path: Path) -> None:
    images = np.random.RandomState(0).randint(0, 256, (600, 3, 5, 4)).astype(np.uint8)
    labels = [number // 3 for number in range(600)]  # from 128 on they take a byte more
    data = (datum_from_image(image, label) for image, label in zip(images, labels, strict=True))
    result = mean(write(tmp_path / "lmdb", *data), tmp_path / "mean.binaryproto")
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result, images.sum(0).astype(np.float32) / np.float32(600))


def test_sums_stay_exact_for_more_images_than_caffes(tmp_path: Path) -> None:
    count = 66_000  # from 65,794 on, float32 sums of 255 are rounded
    white, grey = (datum_from_image(np.full((1, 1), value, np.uint8), 0) for value in (255, 254))
    data = (grey if number % 3 == 0 else white for number in range(count))
    result = mean(write(tmp_path / "lmdb", *data), tmp_path / "mean.binaryproto")
    assert result == np.float32((255 * count - count // 3) / count)


def test_averages_floats(tmp_path: Path) -> None:
    values = np.random.RandomState(0).standard_normal((10, 1, 2, 3)).astype(np.float32)
    data = (Datum(channels=1, height=2, width=3, float_data=each.ravel().tolist()) for each in values)
    result = mean(write(tmp_path / "lmdb", *data), tmp_path / "mean.binaryproto")
    np.testing.assert_allclose(result, values.mean(0), rtol=1e-6, atol=1e-7)


def test_names_the_record_of_another_shape(tmp_path: Path) -> None:
    data = [datum_from_image(np.zeros((48, 48), np.uint8), 0)] * 300
    data[290] = datum_from_image(np.zeros((48, 40), np.uint8), 0)
    write(tmp_path / "lmdb", *data)
    message = r"record 00000290_face\.png: shape \(1, 48, 40\) where \(1, 48, 48\) as in the first"
    with pytest.raises(DatabaseError, match=message):
        mean(tmp_path / "lmdb", tmp_path / "mean.binaryproto")
    assert not (tmp_path / "mean.binaryproto").exists()


def test_refuses_an_empty_database(tmp_path: Path) -> None:
    with pytest.raises(DatabaseError, match="no records, where images to average were expected"):
        mean(write(tmp_path / "lmdb"), tmp_path / "mean.binaryproto")
