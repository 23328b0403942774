"""OpenCV's cascade behind the detectors' interface."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from helpers import portraits

from pipeline.faces.detector import Detector, build_detector


@pytest.fixture(scope="module")
def detector() -> Detector:
    return build_detector("haar", min_face=40, threads=1)


def test_finds_the_face_that_mtcnn_finds(detector: Detector) -> None:
    portrait = portraits.portrait()
    found, nothing = detector.detect([portrait, portraits.background()])
    (known,) = build_detector("mtcnn", min_face=40, threads=1).detect([portrait])
    assert len(found) == 1
    left, top, right, bottom = found.boxes[0]
    assert ((known.landmarks[0] > [left, top]) & (known.landmarks[0] < [right, bottom])).all()
    assert right - left == bottom - top
    assert 0.5 < found.scores[0] < 1
    assert np.isnan(found.landmarks).all()
    assert len(nothing) == 0


def test_surest_first_and_none_smaller_than_asked_for(detector: Detector) -> None:
    scene = portraits.put(portraits.put(portraits.background(), 120, 160, 220), 360, 160, 90)
    both = build_detector("haar", min_face=20).detect([scene])[0]
    assert len(both) == 2
    assert both.scores[0] >= both.scores[1]
    (large,) = build_detector("haar", min_face=100).detect([scene])
    assert len(large) == 1
    assert 60 < large.boxes[0, 0] + (large.boxes[0, 2] - large.boxes[0, 0]) / 2 < 180


def test_many_threads_at_once_find_the_same(detector: Detector) -> None:
    images = [portraits.portrait()[:, shift:] for shift in range(6)]
    wanted = [detector.detect([image])[0].boxes.tolist() for image in images]
    with ThreadPoolExecutor(4) as pool:
        found = [each[0].boxes.tolist() for each in pool.map(lambda image: detector.detect([image]), images)]
    assert found == wanted


@pytest.mark.parametrize("shape", [(1, 1), (19, 19), (20, 20), (5, 300)])
def test_nothing_in_images_smaller_than_a_face(shape: tuple[int, int], detector: Detector) -> None:
    assert len(detector.detect([np.zeros((*shape, 3), np.uint8)])[0]) == 0
