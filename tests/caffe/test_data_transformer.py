"""The transformer against the plain loop that Caffe's is."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pipeline.caffe.data_transformer import Transformer, TransformError
from pipeline.caffe.proto.blob_proto import write_mean
from pipeline.caffe.proto.caffe_pb2 import TEST, TRAIN, TransformationParameter

SHAPE = (5, 2, 7, 8)  # N, C, H, W
MEAN = np.random.RandomState(0).uniform(0, 255, SHAPE[1:]).astype(np.float32)


@pytest.fixture(scope="module")
def mean_file(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("mean") / "mean.binaryproto"
    write_mean(path, MEAN)
    return str(path)


@settings(max_examples=60, deadline=None)
@given(
    images=arrays(np.uint8, SHAPE),
    crop=st.integers(0, 7),
    scale=st.sampled_from([1, 0.5]),
    with_mean=st.sampled_from(["file", "value", ""]),
)
def test_the_test_phase_cuts_the_centre_and_subtracts_the_mean_there(
    mean_file: str, images: np.ndarray, crop: int, scale: float, with_mean: str
) -> None:
    param = TransformationParameter(crop_size=crop, scale=scale)
    mean = np.zeros(SHAPE[1:], np.float32)
    if with_mean == "file":
        param.mean_file, mean = mean_file, MEAN
    elif with_mean == "value":
        param.mean_value.extend([10, 20])
        mean[0], mean[1] = 10, 20
    height, width = (crop or SHAPE[2]), (crop or SHAPE[3])
    top, left = (SHAPE[2] - height) // 2, (SHAPE[3] - width) // 2
    expected = np.empty((*SHAPE[:2], height, width), np.float32)
    for n, c, h, w in np.ndindex(expected.shape):
        pixel = np.float32(images[n, c, top + h, left + w])
        expected[n, c, h, w] = (pixel - mean[c, top + h, left + w]) * np.float32(scale)
    np.testing.assert_array_equal(Transformer(param, TEST)(images), expected)


def test_the_train_phase_draws_every_offset_and_mirrors_half(mean_file: str) -> None:
    # Every pixel is unlike all others, so a crop tells where it was cut and whether it was turned over.
    image = np.arange(1 * 6 * 6, dtype=np.uint8).reshape(1, 1, 6, 6)
    transformer = Transformer(TransformationParameter(crop_size=4, mirror=True), TRAIN, seed=3)
    crops = transformer(np.repeat(image, 900, 0))
    seen: dict[tuple[int, int, bool], int] = {}
    for crop in crops[:, 0]:
        mirrored = bool(crop[0, 0] > crop[0, 1])
        upright = crop[:, ::-1] if mirrored else crop
        row, column = divmod(int(upright[0, 0]), 6)
        np.testing.assert_array_equal(upright, image[0, 0, row : row + 4, column : column + 4])
        seen[row, column, mirrored] = seen.get((row, column, mirrored), 0) + 1
    assert len(seen) == 3 * 3 * 2
    assert min(seen.values()) > 20  # 50 expected


def test_the_mean_is_cut_and_turned_with_the_image(mean_file: str) -> None:
    param = TransformationParameter(crop_size=5, mirror=True, mean_file=mean_file)
    # An image that is its own mean leaves nothing wherever it is cut.
    images = np.repeat(MEAN[None], 40, 0)
    np.testing.assert_array_equal(Transformer(param, TRAIN, seed=1)(images), np.zeros((40, 2, 5, 5)))


def test_a_restored_generator_goes_on_as_if_it_had_not_stopped() -> None:
    param = TransformationParameter(crop_size=3, mirror=True)
    images = np.random.RandomState(1).randint(0, 256, SHAPE).astype(np.uint8)
    first = Transformer(param, TRAIN, seed=1)
    first(images)
    second = Transformer(param, TRAIN, seed=99)
    second.restore(first.state())
    np.testing.assert_array_equal(first(images), second(images))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"crop_size": 9}, "crop_size 9 is larger than images of 7x8"),
        ({"mean_value": [1, 2, 3]}, "3 mean_value where the images have 2 channels"),
    ],
)
def test_a_transformation_that_does_not_fit_is_named(fields: dict, said: str) -> None:
    with pytest.raises(TransformError, match=said):
        Transformer(TransformationParameter(**fields), TEST)(np.zeros(SHAPE, np.uint8))


def test_a_mean_of_the_wrong_size_is_named_with_both_shapes(mean_file: str) -> None:
    with pytest.raises(TransformError, match=r"mean\.binaryproto: .*\(2, 7, 8\).*\(1, 9, 9\)"):
        Transformer(TransformationParameter(mean_file=mean_file), TEST)(np.zeros((1, 1, 9, 9), np.uint8))


def test_mean_file_and_mean_value_exclude_one_another(mean_file: str) -> None:
    with pytest.raises(TransformError, match="exclude"):
        Transformer(TransformationParameter(mean_file=mean_file, mean_value=[1]), TEST)
