"""Landmarks for boxes of any origin are those that the whole cascade finds."""

from itertools import product
from pathlib import Path

import numpy as np
import pytest
from helpers import portraits

from pipeline.base.errors import InputError
from pipeline.faces.detector import Detections, build_detector
from pipeline.faces.landmarks import Landmarker


@pytest.fixture(scope="module")
def landmarker() -> Landmarker:
    return Landmarker()


@pytest.fixture(scope="module")
def portrait() -> np.ndarray:
    return portraits.portrait()


@pytest.fixture(scope="module")
def known(portrait: np.ndarray) -> Detections:
    (found,) = build_detector("mtcnn", min_face=40, threads=1).detect([portrait])
    return found


def error(found: np.ndarray, known: np.ndarray) -> float:
    """Mean distance of landmarks (5, 2), in distances of the eyes."""
    return float(np.linalg.norm(found - known, axis=1).mean() / np.linalg.norm(known[1] - known[0]))


def changed(box: np.ndarray, x: float, y: float, scale: float) -> np.ndarray:
    """The box (4,) moved by shares of its width and height, and scaled."""
    centre, half = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 2
    centre = centre + 2 * half * [x, y]
    return np.concatenate([centre - half * scale, centre + half * scale]).astype(np.float32)


@pytest.mark.parametrize("change", list(product([-0.1, 0, 0.1], [-0.1, 0.1], [0.85, 1, 1.4])), ids=str)
def test_boxes_may_be_off_and_larger_or_smaller(
    change: tuple[float, ...], landmarker: Landmarker, portrait: np.ndarray, known: Detections
) -> None:
    (found,) = landmarker.locate([portrait], [changed(known.boxes[0], *change)[None]])
    assert found.scores[0] > 0.9
    assert error(found.landmarks[0], known.landmarks[0]) < 0.08
    assert np.abs(found.boxes[0] - known.boxes[0]).max() < 0.15 * (known.boxes[0, 2] - known.boxes[0, 0])


def test_a_detector_without_landmarks_gets_them(
    landmarker: Landmarker, portrait: np.ndarray, known: Detections
) -> None:
    (haar,) = build_detector("haar", min_face=40, threads=1).detect([portrait])
    (completed,) = landmarker.complete([portrait], [haar])
    assert error(completed.landmarks[0], known.landmarks[0]) < 0.06
    np.testing.assert_array_equal(completed.boxes, haar.boxes)
    np.testing.assert_array_equal(completed.scores, haar.scores)


def test_landmarks_that_are_there_stay_and_no_face_gets_none(
    landmarker: Landmarker, portrait: np.ndarray, known: Detections
) -> None:
    nowhere = np.full((1, 5, 2), np.nan, np.float32)
    boxes = np.concatenate([known.boxes, np.array([[20, 480, 120, 590]], np.float32)])
    marked = known.landmarks + 1
    (completed,) = landmarker.complete(
        [portrait], [Detections(boxes, np.ones(2, np.float32), np.concatenate([marked, nowhere]))]
    )
    np.testing.assert_array_equal(completed.landmarks[0], marked[0])
    assert np.isnan(completed.landmarks[1]).all()


def test_images_of_any_sizes_with_any_number_of_boxes(
    landmarker: Landmarker, portrait: np.ndarray, known: Detections
) -> None:
    box = known.boxes[0]
    many = np.stack([changed(box, x, 0, 1) for x in np.linspace(-0.05, 0.05, 20)])
    images = [portrait, portrait[::2, ::2], portrait[:100], portrait]
    found = landmarker.locate(images, [box[None], box[None] / 2, np.empty((0, 4), np.float32), many])
    assert [len(each) for each in found] == [1, 1, 0, 20]
    assert error(found[1].landmarks[0] * 2, known.landmarks[0]) < 0.06
    (alone,) = landmarker.locate([portrait], [many[7:8]])
    np.testing.assert_allclose(found[3].landmarks[7], alone.landmarks[0], atol=1e-3)


@pytest.mark.parametrize("box", [(-500, -500, -400, -400), (0, 0, 511, 599), (50, 50, 50, 50), (-100, 300, 90, 5000)])
def test_odd_boxes_are_answered_within_the_image(
    box: tuple[float, ...], landmarker: Landmarker, portrait: np.ndarray
) -> None:
    (found,) = landmarker.locate([portrait], [np.array([box], np.float32)])
    assert (found.boxes >= 0).all()
    assert (found.boxes <= [511, 599, 511, 599]).all()


def test_missing_models_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"rnet\.onnx: no such file"):
        Landmarker(models=tmp_path)
