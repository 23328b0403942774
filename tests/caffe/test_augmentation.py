"""Augmentation: what each change does to images, and what is refused."""

from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.caffe.augmentation import LIMITS, AugmentationError, augment, check_augmentation
from pipeline.caffe.data_transformer import Transformer, TransformError
from pipeline.caffe.proto.caffe_pb2 import TEST, TRAIN, AugmentationParameter, TransformationParameter


def disc(x: float = 24, y: float = 24, side: int = 49) -> np.ndarray:
    """(1, 1, side, side) uint8: a bright disc on a grey ground."""
    image = np.full((side, side), 60, np.uint8)
    cv2.circle(image, (round(x), round(y)), 5, 200, -1)
    return image[None, None]


def changed(images: np.ndarray, count: int = 200, seed: int = 1, **fields: Any) -> np.ndarray:
    return augment(images.repeat(count, 0), AugmentationParameter(**fields), np.random.Generator(np.random.PCG64(seed)))


def centres(images: np.ndarray) -> np.ndarray:
    """(N, 2): x and y of the middle of what is bright."""
    weights = np.maximum(images[:, 0] - 60, 0)
    ys, xs = np.mgrid[: weights.shape[1], : weights.shape[2]]
    total = weights.sum(axis=(1, 2))
    return np.stack([(weights * xs).sum(axis=(1, 2)) / total, (weights * ys).sum(axis=(1, 2)) / total], axis=1)


def test_nothing_set_changes_nothing() -> None:
    images = np.random.RandomState(0).randint(0, 256, (3, 2, 9, 9)).astype(np.uint8)
    np.testing.assert_array_equal(changed(images, 1), images.astype(np.float32))


def test_shift_moves_up_to_its_share_of_the_side_either_way() -> None:
    moved = (centres(changed(disc(), shift=0.2)) - 24) / 49
    assert np.abs(moved).max() <= 0.2
    assert moved.min(axis=0).max() < -0.17 and moved.max(axis=0).min() > 0.17  # noqa: PT018


def test_zoom_makes_larger_and_smaller_about_the_centre() -> None:
    images = changed(disc(), zoom=0.3)
    areas = (images[:, 0] > 130).sum(axis=(1, 2)) / (disc()[0, 0] > 130).sum()
    assert areas.min() < 0.6 and areas.max() > 1.5  # noqa: PT018  (0.7^2 and 1.3^2)
    np.testing.assert_allclose(centres(images), 24, atol=0.1)


def test_rotation_turns_about_the_centre_by_up_to_its_degrees() -> None:
    offsets = centres(changed(disc(x=36), rotation=30)) - 24
    np.testing.assert_allclose(np.hypot(*offsets.T), 12, atol=0.3)
    degrees = np.degrees(np.arctan2(offsets[:, 1], offsets[:, 0]))
    assert degrees.min() == pytest.approx(-30, abs=2)
    assert degrees.max() == pytest.approx(30, abs=2)


def test_shear_moves_what_is_above_the_centre_against_what_is_below() -> None:
    above, below = (centres(changed(disc(y=y), shear=20, seed=4)) for y in (12, 36))
    np.testing.assert_allclose(above[:, 0] - 24, 24 - below[:, 0], atol=0.3)
    np.testing.assert_allclose(above[:, 1], 12, atol=0.2)
    assert np.abs(above[:, 0] - 24).max() == pytest.approx(12 * np.tan(np.radians(20)), abs=0.5)


def test_brightness_adds_a_share_of_255_and_contrast_spreads_about_the_mean() -> None:
    image = disc()
    brighter = changed(image, brightness=0.1) - image
    np.testing.assert_allclose(brighter.std(axis=(1, 2, 3)), 0, atol=1e-4)
    assert np.abs(brighter).max() == pytest.approx(25.5, abs=1)
    spread = changed(image, contrast=0.4)
    np.testing.assert_allclose(spread.mean(axis=(1, 2, 3)), image.mean(), rtol=1e-4)
    factors = spread.std(axis=(1, 2, 3)) / image.std()
    assert factors.min() == pytest.approx(0.6, abs=0.03)
    assert factors.max() == pytest.approx(1.4, abs=0.03)


def test_blur_lowers_the_peak_and_keeps_the_mean() -> None:
    dot = np.zeros((1, 1, 21, 21), np.uint8)
    dot[0, 0, 10, 10] = 255
    images = changed(dot, blur=2)
    assert images.max(axis=(1, 2, 3)).min() < 15  # 255 / (2 pi 2^2) is 10
    np.testing.assert_allclose(images.sum(axis=(1, 2, 3)), 255, rtol=0.02)


def test_erasing_covers_up_to_its_share_with_one_grey() -> None:
    image = np.random.RandomState(0).randint(0, 256, (1, 1, 40, 40)).astype(np.uint8)
    images = changed(image, erasing=0.3, count=400)
    shares = (images != image).mean(axis=(1, 2, 3))
    assert shares.max() == pytest.approx(0.3, abs=0.03)
    assert shares.min() == pytest.approx(0.02, abs=0.01)
    for erased in images[:20, 0]:
        rows, columns = np.nonzero(erased != image[0, 0])
        block = erased[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        assert len(np.unique(block)) == 1


@pytest.mark.parametrize("name", LIMITS)
def test_each_change_comes_with_its_probability(name: str) -> None:
    largest = {"rotation": 20, "shear": 20, "blur": 3}.get(name, 0.3)
    fields: dict[str, Any] = {name: largest, f"{name}_probability": 0.3}
    images = changed(disc(x=30, y=20), 1000, **fields)
    plain = disc(x=30, y=20).astype(np.float32)
    unchanged = np.isclose(images, plain, atol=0.01).all(axis=(1, 2, 3)).mean()
    # x and y are each shifted with the probability.
    assert unchanged == pytest.approx(0.49 if name == "shift" else 0.7, abs=0.06)


@settings(max_examples=50, deadline=None)
@given(st.fixed_dictionaries({name: st.floats(0, limit, exclude_max=True, width=32) for name, limit in LIMITS.items()}))
def test_any_ranges_leave_values_that_are_pixels(ranges: dict[str, Any]) -> None:
    images = np.random.RandomState(0).randint(0, 256, (4, 2, 12, 10)).astype(np.uint8)
    param = AugmentationParameter(**ranges)
    check_augmentation(param)
    result = augment(images, param, np.random.Generator(np.random.PCG64(0)))
    assert result.shape == images.shape
    assert result.dtype == np.float32
    assert 0 <= result.min() <= result.max() <= 255


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"rotation": -1}, "rotation -1"),
        ({"zoom": 1}, "zoom 1"),
        ({"erasing": float("nan")}, "erasing nan"),
        ({"blur_probability": 1.5}, "blur_probability 1.5 where 0 to 1"),
    ],
)
def test_what_is_impossible_is_refused_by_name(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(AugmentationError, match=words):
        check_augmentation(AugmentationParameter(**fields))
    with pytest.raises(TransformError, match=f"transform_param: augmentation: {words}"):
        Transformer(TransformationParameter(augmentation_param=AugmentationParameter(**fields)), TRAIN)


def test_the_transformer_augments_in_training_only_and_by_its_seed() -> None:
    param = TransformationParameter(crop_size=40, augmentation_param=AugmentationParameter(rotation=20, shift=0.1))
    images = disc().repeat(4, 0)
    first, second, other = (Transformer(param, TRAIN, seed=seed)(images) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, second)
    assert (first != other).any()
    np.testing.assert_array_equal(Transformer(param, TEST)(images), images[..., 4:44, 4:44].astype(np.float32))


def test_a_restored_transformer_goes_on_as_the_first_would_have() -> None:
    param = TransformationParameter(mirror=True, augmentation_param=AugmentationParameter(erasing=0.3, contrast=0.2))
    transformer, later = (Transformer(param, TRAIN, seed=seed) for seed in (1, 2))
    transformer(disc().repeat(5, 0))
    later.restore(transformer.state())
    np.testing.assert_array_equal(later(disc().repeat(5, 0)), transformer(disc().repeat(5, 0)))
