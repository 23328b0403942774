"""The overlay: something legible on any frame, whatever lies where."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.live.overlay import MIN_SIDE, PALETTE, _ink, draw
from pipeline.live.readings import LANDMARKS, FaceReading, Reading

LABELS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")


def face(box: tuple[float, float, float, float], label: str = "happy") -> FaceReading:
    left, top, right, bottom = box
    points = {name: (left + (right - left) * (i + 1) / 6, (top + bottom) / 2) for i, name in enumerate(LANDMARKS)}
    return FaceReading(box, 0.9, points, {name: 0.7 if name == label else 0.05 for name in LABELS}, "found")


def reading(image: np.ndarray, *faces: FaceReading) -> Reading:
    return Reading("frame", image.shape[1], image.shape[0], faces)


def luminance(colour: str) -> float:
    channels = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))


@pytest.mark.parametrize("colour", PALETTE)
def test_text_stands_out_on_every_plate(colour: str) -> None:
    ground, ink = luminance(colour), {"black": 0.0, "white": 1.0}[_ink(colour)]
    assert (max(ground, ink) + 0.05) / (min(ground, ink) + 0.05) >= 4.5  # WCAG 2.2, AA


@settings(deadline=None, max_examples=60)
@given(
    width=st.integers(1, 900),
    height=st.integers(1, 900),
    corners=st.lists(st.tuples(*[st.floats(-200, 1200)] * 4), max_size=6),
)
def test_any_frame_takes_any_boxes(width: int, height: int, corners: list[tuple[float, ...]]) -> None:
    image = np.zeros((height, width, 3), np.uint8)
    faces = [face((min(a, c), min(b, d), max(a, c), max(b, d))) for a, b, c, d in corners]
    drawn = draw(image, reading(image, *faces))
    assert drawn.dtype == np.uint8
    assert drawn.shape[0] >= height
    assert drawn.shape[1] >= width
    assert not image.any()


def test_a_frame_without_faces_stays_as_it_is() -> None:
    image = np.random.default_rng(0).integers(0, 256, (400, 500, 3), dtype=np.uint8)
    np.testing.assert_array_equal(draw(image, reading(image)), image)


def test_the_face_itself_is_not_covered() -> None:
    image = np.full((600, 800, 3), 90, np.uint8)
    boxes = ((100.0, 100.0, 300.0, 350.0), (450.0, 200.0, 620.0, 420.0))
    drawn = draw(image, reading(image, *(face(box) for box in boxes)))
    for left, top, right, bottom in boxes:
        inside = drawn[int(top) + 8 : int(bottom) - 8, int(left) + 8 : int(right) - 8]
        assert (inside == 90).all(axis=2).mean() > 0.97  # but for the landmarks
    assert (drawn != 90).any(axis=2).mean() > 0.05  # two panels of bars


@pytest.mark.parametrize("label", LABELS)
def test_the_box_has_the_labels_colour(label: str) -> None:
    image = np.full((600, 800, 3), 90, np.uint8)
    drawn = draw(image, reading(image, face((100, 100, 300, 350), label)))
    colour = PALETTE[LABELS.index(label)]
    assert tuple(drawn[250, 100]) == tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5))


def test_a_tiny_frame_is_enlarged_with_room_for_the_bars() -> None:
    image = np.full((48, 48, 3), 90, np.uint8)
    drawn = draw(image, reading(image, face((0, 0, 47, 47))))
    assert drawn.shape[0] >= MIN_SIDE
    assert drawn.shape[1] > drawn.shape[0]
