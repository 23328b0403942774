"""Alignment: landmarks go where the template has them."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.faces.alignment import SIZE, TEMPLATE, align_face, similarity, whole_image

BOX = np.array([0, 0, 47, 47], np.float32)
angles = st.floats(-np.pi, np.pi)
scales = st.floats(0.05, 20)
shifts = st.floats(-500, 500)
points = st.lists(st.tuples(shifts, shifts), min_size=5, max_size=5, unique=True).map(np.array)


def transform(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    return points @ matrix[:, :2].T + matrix[:, 2]


def test_template_is_the_published_one() -> None:
    # 96x112 made square by 8 pixels on either side, 0.1% of padding, scaled to 48.
    wanted = (
        (np.array([[30.29, 51.70], [65.53, 51.50], [48.03, 71.74], [33.55, 92.37], [62.73, 92.20]]) + [8, 0] + 0.112)
        * 48
        / 112
    )
    np.testing.assert_allclose(TEMPLATE, wanted, atol=0.005)


@settings(deadline=None)
@given(angles, scales, shifts, shifts)
def test_landmarks_of_a_turned_face_land_on_the_template(angle: float, scale: float, x: float, y: float) -> None:
    cos, sin = np.cos(angle), np.sin(angle)
    turned = scale * TEMPLATE @ np.array([[cos, sin], [-sin, cos]]) + [x, y]
    np.testing.assert_allclose(transform(turned, similarity(turned)), TEMPLATE, atol=1e-6)


@settings(deadline=None)
@given(points)
def test_no_similarity_is_nearer_in_least_squares(landmarks: np.ndarray) -> None:
    # [u, v] = [a x - b y + c, b x + a y + d] is linear in a, b, c and d.
    x, y = landmarks.T
    one, zero = np.ones(5), np.zeros(5)
    system = np.concatenate([np.stack([x, -y, one, zero], axis=1), np.stack([y, x, zero, one], axis=1)])
    (a, b, c, d), *_ = np.linalg.lstsq(system, TEMPLATE.T.ravel())
    best = np.array([[a, -b, c], [b, a, d]])
    ours = similarity(landmarks)
    error, least = (((transform(landmarks, matrix) - TEMPLATE) ** 2).sum() for matrix in (ours, best))
    assert error <= least * (1 + 1e-6) + 1e-6
    np.testing.assert_allclose(ours[0, 0], ours[1, 1])
    np.testing.assert_allclose(ours[0, 1], -ours[1, 0])


def test_many_faces_at_once_as_one_by_one() -> None:
    faces = np.random.default_rng(0).uniform(0, 100, (2, 3, 5, 2))
    matrices = similarity(faces)
    assert matrices.shape == (2, 3, 2, 3)
    np.testing.assert_allclose(matrices[1, 2], similarity(faces[1, 2]))


def test_coinciding_landmarks_are_an_error() -> None:
    with pytest.raises(ValueError, match="coincide"):
        similarity(np.ones((5, 2)))


@pytest.mark.parametrize("scale", [0.8, 1, 1.7, 2.4, 6.3])
def test_what_stands_at_the_landmarks_stands_at_the_template(scale: float) -> None:
    """A picture whose brightness is x, then y, shows after alignment where each pixel came from."""
    turn = cv2.getRotationMatrix2D((20, 25), 25, scale)
    landmarks = transform(TEMPLATE, turn)
    landmarks += 30 - landmarks.min(axis=0)
    size = int(landmarks.max()) + 40
    for axis in (0, 1):
        ramp = np.arange(size) * 255 / size
        image = np.repeat((ramp if axis == 0 else ramp[:, None]) * np.ones((size, size)), 3).reshape(size, size, 3)
        aligned = align_face(image.round().astype(np.uint8), BOX, landmarks.astype(np.float32))
        assert aligned.shape == (SIZE, SIZE)
        assert aligned.dtype == np.uint8
        x, y = TEMPLATE.astype(np.float32).T[:, :, None]
        seen = cv2.remap(aligned.astype(np.float32), x, y, cv2.INTER_LINEAR).ravel()
        np.testing.assert_allclose(seen, landmarks[:, axis] * 255 / size, atol=1.5)


def test_large_faces_are_averaged_not_picked_from() -> None:
    checks = np.indices((480, 480)).sum(axis=0) % 2 * 255
    aligned = align_face(
        np.repeat(checks[:, :, None], 3, axis=2).astype(np.uint8), BOX, (TEMPLATE * 10).astype(np.float32)
    )
    assert abs(int(aligned[10:38, 10:38].min()) - 127) < 12
    assert abs(int(aligned[10:38, 10:38].max()) - 127) < 12


def test_the_edge_goes_on_outside() -> None:
    image = np.full((SIZE, SIZE, 3), 200, np.uint8)
    assert (align_face(image, BOX, (TEMPLATE / 2 + 10).astype(np.float32)) == 200).all()


def test_without_landmarks_the_box_is_cut_out() -> None:
    image = np.zeros((100, 100, 3), np.uint8)
    image[20:80, 30:90] = 255
    nowhere = np.full((5, 2), np.nan, np.float32)
    assert (align_face(image, np.array([30, 20, 89, 79], np.float32), nowhere) == 255).all()
    assert (align_face(image, np.array([90, 80, 99, 99], np.float32), nowhere) == 0).all()


@pytest.mark.parametrize("shape", [(48, 48), (20, 31), (300, 200)])
def test_whole_images_of_any_size(shape: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    whole = whole_image(image)
    assert whole.shape == (SIZE, SIZE)
    assert abs(whole.mean() - cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).mean()) < 5


def test_grey_is_made_of_rgb_in_that_order() -> None:
    red = np.zeros((48, 48, 3), np.uint8)
    red[:, :, 0] = 255
    assert whole_image(red)[0, 0] == 76  # 0.299 of 255 (ITU-R BT.601); as blue it would be 29
