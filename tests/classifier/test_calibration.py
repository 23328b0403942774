"""calibration: the right temperature is found again, and probabilities keep their order."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from pipeline.classifier.calibration import calibrate, calibration_error, fit_temperature, negative_log_likelihood


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_that_made_a_net_too_sure_is_found(temperature: float) -> None:
    generator = np.random.default_rng(0)
    logits = generator.normal(0, 2, (20_000, 7))
    truth = (softmax(logits).cumsum(axis=1) < generator.random((20_000, 1))).sum(axis=1)
    told = softmax(logits * temperature)
    found = fit_temperature(truth, told)
    assert found == pytest.approx(temperature, rel=0.03)
    calibrated = calibrate(told, found)
    np.testing.assert_allclose(calibrated, softmax(logits * temperature / found), rtol=1e-6)
    assert calibration_error(calibrated.max(axis=1), calibrated.argmax(axis=1) == truth) < 0.01
    assert negative_log_likelihood(truth, calibrated) <= negative_log_likelihood(truth, told)


def test_a_few_images_that_are_all_right_do_not_make_a_net_that_is_always_sure() -> None:
    truth = np.arange(21) % 3
    probabilities = np.full((21, 3), 0.1)
    probabilities[np.arange(21), truth] = 0.8
    temperature = fit_temperature(truth, probabilities)
    assert 0.4 < temperature < 1
    assert calibrate(probabilities, temperature).max() < 0.995


def test_of_few_images_the_likeliest_temperature_is_found_with_what_was_expected_beforehand() -> None:
    generator = np.random.default_rng(1)
    logits = generator.normal(0, 2, (30, 7))
    truth = (softmax(logits).cumsum(axis=1) < generator.random((30, 1))).sum(axis=1)
    told = softmax(3 * logits)
    logarithms = np.linspace(-1, 2, 3001)
    # Bayes' rule by trial: the images' likelihood, times a normal distribution of deviation 0.5 for the logarithm.
    likelihood = [np.log(calibrate(told, np.exp(each))[np.arange(30), truth]).sum() for each in logarithms]
    best = logarithms[np.argmax(likelihood - logarithms**2 / (2 * 0.5**2))]
    assert np.log(fit_temperature(truth, told)) == pytest.approx(best, abs=0.002)


def test_an_undecided_face_is_read_the_same_beside_a_sure_one() -> None:
    faces = np.array([[1.0] + [0.0] * 199, [1 / 200] * 200], np.float32)
    calibrated = calibrate(faces, 0.05)
    np.testing.assert_allclose(calibrated, faces, atol=1e-6)
    assert calibrated.dtype == np.float32


@given(arrays.arrays(np.float32, (4, 7), elements=st.floats(-30, 30, width=32)), st.floats(0.1, 10))
def test_calibration_keeps_order_and_sum(logits: np.ndarray, temperature: float) -> None:
    probabilities = softmax(logits)
    calibrated = calibrate(probabilities, temperature)
    np.testing.assert_allclose(calibrated.sum(axis=1), 1, atol=1e-5)
    top = probabilities.argmax(axis=1)[:, None]
    assert (np.take_along_axis(calibrated, top, 1)[:, 0] >= calibrated.max(axis=1) * (1 - 1e-6)).all()
    assert (calibrate(probabilities, 2 * temperature).max(axis=1) <= calibrated.max(axis=1) + 1e-6).all()


def test_a_probability_of_nothing_stays_finite() -> None:
    calibrated = calibrate(np.array([[1.0, 0.0, 0.0]], np.float32), 2.0)
    assert np.isfinite(calibrated).all()
    assert calibrated[0, 0] == pytest.approx(1)


def test_calibration_error_weighs_each_bins_gap_by_its_images() -> None:
    confidence = np.array([0.99, 0.99, 0.99, 0.5])
    correct = np.array([True, True, False, True])
    assert calibration_error(confidence, correct) == pytest.approx((abs(3 * 0.99 - 2) + 0.5) / 4)
    assert calibration_error(np.array([1.0]), np.array([True])) == 0


def test_the_surest_faces_share_the_last_bin_and_no_other_does() -> None:
    last, apart = np.array([1.0, 0.95]), np.array([0.99, 0.9])
    assert calibration_error(last, np.array([False, True])) == pytest.approx((1.95 - 1) / 2)
    assert calibration_error(apart, np.array([False, True])) == pytest.approx((0.99 + 0.1) / 2)


def test_an_image_that_counts_thrice_weighs_thrice_in_the_calibration_error() -> None:
    confidence, correct = np.array([0.9, 0.5]), np.array([False, True])
    assert calibration_error(confidence, correct, np.array([3.0, 1.0])) == pytest.approx((3 * 0.9 + 0.5) / 4)
