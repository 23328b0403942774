"""What detectors give, and the detectors by name."""

from pathlib import Path

import numpy as np
import pytest
from test_yolo import bright_cells
from test_yunet import white_cells

from pipeline.base.errors import InputError
from pipeline.faces.detector import DETECTORS, MODEL_SOURCES, Detections, build_detector


def detections(**changed: np.ndarray) -> Detections:
    arrays = {
        "boxes": np.array([[0, 0, 10, 10], [5, 5, 30, 25], [2, 2, 12, 12]], np.float32),
        "scores": np.array([0.8, 0.9, 0.95], np.float32),
        "landmarks": np.zeros((3, 5, 2), np.float32),
    }
    return Detections(**arrays | changed)


def test_largest_first_the_surer_of_equals() -> None:
    assert detections().by_size().tolist() == [1, 2, 0]
    assert len(Detections.none()) == 0
    assert Detections.none().by_size().tolist() == []


def test_the_largest_keep_their_order_and_the_others_are_counted() -> None:
    found = detections().largest(2)
    assert found.scores.tolist() == pytest.approx([0.9, 0.95])
    assert found.more == 1
    assert found.largest(1).more == 2
    assert detections().largest(None).more == detections().largest(3).more == 0


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("boxes", np.zeros((2, 4), np.float32), r"boxes: float32 \(2, 4\) where float32 \(3, 4\)"),
        ("boxes", np.zeros((3, 4)), "boxes: float64"),
        ("boxes", np.array([[9, 0, 5, 5]] * 3, np.float32), "left <= right"),
        ("boxes", np.full((3, 4), np.nan, np.float32), "left <= right"),
        ("scores", np.array([0, 0.5, 1.5], np.float32), "0..1"),
        ("scores", np.array([0, 0.5, np.nan], np.float32), "0..1"),
        ("landmarks", np.zeros((3, 10), np.float32), "landmarks"),
    ],
)
def test_refuses_what_does_not_fit(name: str, array: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        detections(**{name: array})


@pytest.mark.parametrize("name", DETECTORS)
def test_every_detector_is_built_by_name_with_the_same_options(name: str, tmp_path: Path) -> None:
    make = {"yolo": bright_cells, "yunet": white_cells}.get(name)
    model = make(tmp_path / "model.onnx") if make else None
    detector = build_detector(name, min_face=24, max_faces=5, threads=1, model=model)
    images = [np.zeros((50, 40, 3), np.uint8), np.zeros((30, 30, 3), np.uint8)]
    found = detector.detect(images)
    assert [type(each) for each in found] == [Detections] * 2
    with pytest.raises(ValueError, match="image 0"):
        detector.detect([images[0][:, :, 0]])


def test_none_takes_the_whole_image_for_the_face() -> None:
    (found,) = build_detector("none").detect([np.zeros((50, 40, 3), np.uint8)])
    assert found.boxes.tolist() == [[0, 0, 39, 49]]
    assert np.isnan(found.landmarks).all()


def test_detectors_that_are_unknown_and_models_that_nobody_takes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="detector 'dlib' where one of haar, mtcnn, none, yolo, yunet was expected"):
        build_detector("dlib")
    for name in sorted(set(DETECTORS) - set(MODEL_SOURCES)):
        with pytest.raises(InputError, match=f"model.onnx: {name} takes no model file, only yolo and yunet do"):
            build_detector(name, model=tmp_path / "model.onnx")
