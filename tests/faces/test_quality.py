"""What makes a reading worth less, face by face."""

import numpy as np
import pytest

from pipeline.faces.detector import Detections, build_detector
from pipeline.faces.quality import ROLLED, TINY, TURNED, assess_quality

SHAPE = (200, 300, 3)
UPRIGHT = np.array([[-10, 0], [10, 0], [0, 12], [-8, 24], [8, 24]], np.float32)  # about the midpoint of the eyes

MIDDLE = np.array([125, 70], np.float32)


def one(box: tuple[float, ...] = (100, 50, 150, 110), landmarks: np.ndarray = UPRIGHT) -> Detections:
    return Detections(np.array([box], np.float32), np.ones(1, np.float32), (landmarks + MIDDLE)[None])


def turned(degrees: float) -> np.ndarray:
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return UPRIGHT @ np.array([[cos, sin], [-sin, cos]], np.float32)


def nose_aside(share: float) -> np.ndarray:
    landmarks = UPRIGHT.copy()
    landmarks[2, 0] += share * 20
    return landmarks


@pytest.mark.parametrize(
    ("face", "wanted"),
    [
        (one(), ()),
        (one((100, 50, 100 + TINY - 2, 60)), ("tiny",)),
        (one((100, 50, 100 + TINY - 1, 60)), ()),
        (one((0, 50, 50, 110)), ("edge",)),
        (one((100, 0, 150, 60)), ("edge",)),
        (one((250, 50, 299, 110)), ("edge",)),
        (one((100, 150, 150, 199)), ("edge",)),
        (one((1, 1, 298, 198)), ()),
        (one((0, 0, 299, 199)), ()),
        (one((0, 50, 12, 60)), ("tiny", "edge")),
        (one(landmarks=nose_aside(TURNED - 0.01)), ()),
        (one(landmarks=nose_aside(TURNED + 0.01)), ("turned",)),
        (one(landmarks=nose_aside(-TURNED - 0.01)), ("turned",)),
        (one(landmarks=turned(ROLLED - 1)), ()),
        (one(landmarks=turned(ROLLED + 1)), ("turned",)),
        (one(landmarks=turned(-ROLLED - 1)), ("turned",)),
        (one(landmarks=turned(180)), ("turned",)),
        (one(landmarks=UPRIGHT * 0), ("turned",)),
        (one(landmarks=np.full_like(UPRIGHT, np.nan)), ()),
    ],
)
def test_each_condition(face: Detections, wanted: tuple[str, ...]) -> None:
    assert assess_quality(face, SHAPE) == [wanted]


def test_each_face_has_its_own() -> None:
    boxes = np.array([[100, 50, 150, 110], [0, 50, 12, 60]], np.float32)
    both = Detections(boxes, np.ones(2, np.float32), np.full((2, 5, 2), np.nan, np.float32))
    assert assess_quality(both, SHAPE[:2]) == [(), ("tiny", "edge")]
    assert assess_quality(Detections.none(), SHAPE) == []


def test_an_image_that_is_taken_for_a_face_has_no_edge() -> None:
    image = np.zeros(SHAPE, np.uint8)
    assert assess_quality(build_detector("none").detect([image])[0], image.shape) == [()]
