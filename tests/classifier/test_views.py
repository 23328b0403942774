"""views at test time: the crops are pycaffe's, each less its own part of the mean, and probabilities are averaged."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.caffe.data_transformer import Transformer
from pipeline.caffe.io import oversample
from pipeline.caffe.proto.blob_proto import write_mean
from pipeline.caffe.proto.caffe_pb2 import TEST, TransformationParameter
from pipeline.classifier.views import COUNTS, ViewsError, cut_views, read_views

CROP = 5


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, 1, 8, 9), dtype=np.uint8)


@pytest.fixture
def mean(tmp_path: Path) -> Path:
    write_mean(tmp_path / "mean.binaryproto", np.random.default_rng(1).random((1, 8, 9), np.float32) * 255)
    return tmp_path / "mean.binaryproto"


def transformer(mean: Path, crop: int = CROP) -> Transformer:
    return Transformer(TransformationParameter(mean_file=str(mean), crop_size=crop, scale=0.5), TEST)


def test_one_view_is_what_a_data_layer_gives(images: np.ndarray, mean: Path) -> None:
    for crop in (0, CROP):
        views = cut_views(images, transformer(mean, crop), 1)
        np.testing.assert_array_equal(views[:, 0], transformer(mean, crop)(images))


def test_two_views_are_the_centre_and_its_mirror_image(images: np.ndarray, mean: Path) -> None:
    for crop in (0, CROP):
        views = cut_views(images, transformer(mean, crop), 2)
        centre = transformer(mean, crop)(images)
        np.testing.assert_array_equal(views, np.stack([centre, centre[..., ::-1]], axis=1))


def test_ten_views_are_the_crops_of_pycaffe(images: np.ndarray, mean: Path) -> None:
    """oversample() takes (H, W, C) images that the mean was subtracted from before."""
    views = cut_views(images, transformer(mean), 10)
    prepared = [image.transpose(1, 2, 0) for image in transformer(mean, crop=0)(images)]
    expected = oversample(prepared, (CROP, CROP)).transpose(0, 3, 1, 2).reshape(views.shape)
    np.testing.assert_array_equal(views, expected)


@pytest.mark.parametrize("count", COUNTS)
def test_probabilities_are_averaged(images: np.ndarray, mean: Path, count: int) -> None:
    many = np.concatenate([images] * 100)  # more than a net is given at once
    given = []

    def run(inputs: np.ndarray) -> np.ndarray:
        given.append(len(inputs))
        return inputs.reshape(len(inputs), -1)[:, :2]

    found = read_views(run, many, transformer(mean), count)
    first = cut_views(images, transformer(mean), count)[:, :, 0, 0, :2].mean(axis=1)
    np.testing.assert_allclose(found, np.concatenate([first] * 100), rtol=1e-5)
    assert sum(given) == 300 * count
    assert max(given) <= 256


def test_views_that_there_are_not_are_refused(images: np.ndarray, mean: Path) -> None:
    with pytest.raises(ViewsError, match="views 3: 1, 2, 10 were expected"):
        cut_views(images, transformer(mean), 3)
    with pytest.raises(ViewsError, match="views 10: the net takes whole images"):
        cut_views(images, transformer(mean, crop=0), 10)
