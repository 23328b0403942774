"""Boxes: sides, centres and clips count the last pixel; overlap and suppression do as their definitions say."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.faces.boxes import adjust, centres, clip, iou, nms, sides, square

coordinates = st.integers(0, 40)
lengths = st.integers(1, 30)
candidates = st.lists(
    st.tuples(st.integers(0, 2), coordinates, coordinates, lengths, lengths, st.integers(0, 10**6)),
    max_size=40,
    unique_by=lambda candidate: candidate[-1],
)


def test_a_box_has_its_first_and_its_last_pixel() -> None:
    whole = np.array([0, 0, 9, 4])  # an image of 10x5
    assert sides(whole).tolist() == [10, 5]
    assert centres(whole).tolist() == [4.5, 2]
    assert clip(np.array([[-3, -1, 12, 3], [2, 2, 4, 9]]), (5, 10, 3)).tolist() == [[0, 0, 9, 3], [2, 2, 4, 4]]


def test_squares_keep_the_centre_and_the_longer_side() -> None:
    boxes = np.array([[0.0, 0, 10, 4], [1, 2, 3, 8]])
    np.testing.assert_array_equal(square(boxes), [[0, -3, 10, 7], [-1, 2, 5, 8]])


def test_offsets_move_each_side_by_shares_of_the_size() -> None:
    boxes = np.array([[0.0, 0, 9, 19]])
    np.testing.assert_allclose(adjust(boxes, np.array([[0.1, 0.1, -0.2, 0.5]])), [[1, 2, 7, 29]])


def test_intersection_over_union() -> None:
    boxes = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [20, 20, 20, 20]], float)
    np.testing.assert_allclose(iou(boxes, boxes), [[1, 1 / 3, 0], [1 / 3, 1, 0], [0.0, 0, 0]])


@settings(deadline=None)
@given(candidates, st.sampled_from([0.3, 0.5, 0.7]), st.booleans())
def test_suppression_asks_every_better_rival(drawn: list[tuple[int, ...]], limit: float, of_smaller: bool) -> None:
    group, x, y, width, height, score = np.array(drawn, float).reshape(-1, 6).T
    boxes = np.stack([x, y, x + width, y + height], axis=1)

    def rivals(i: int, j: int) -> bool:
        shared = np.prod((np.minimum(boxes[i, 2:], boxes[j, 2:]) - np.maximum(boxes[i, :2], boxes[j, :2])).clip(0))
        areas = width[i] * height[i], width[j] * height[j]
        whole = min(areas) if of_smaller else sum(areas) - shared
        return bool(shared / whole > limit)

    kept = [
        i
        for i in range(len(group))
        if not any(group[i] == group[j] and score[j] > score[i] and rivals(i, j) for j in range(len(group)))
    ]
    kept.sort(key=lambda i: (group[i], -score[i]))
    assert nms(group, boxes, score, limit, of_smaller=of_smaller).tolist() == kept


def test_suppression_in_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    corners = random.uniform(0, 60, (300, 2))
    boxes = np.concatenate([corners, corners + random.uniform(5, 30, (300, 2))], axis=1)
    group, scores = random.integers(0, 4, 300), random.random(300)
    whole = nms(group, boxes, scores, 0.5)
    monkeypatch.setattr("pipeline.faces.boxes.MAX_PAIRS", 7)
    assert nms(group, boxes, scores, 0.5).tolist() == whole.tolist()
