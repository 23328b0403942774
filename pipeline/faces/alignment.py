"""Aligning a face: the similarity transform that lays its five landmarks nearest to the template's."""

import cv2
import numpy as np

SIZE = 48  # side of an aligned face, in pixels
# The five landmarks of a 96x112 face (Wen, Zhang, Li, Qiao: A Discriminative Feature Learning Approach for Deep Face
# Recognition, 2016), made square by 8 pixels on either side, with 0.1% of padding, and scaled to SIZE.
_FACE_96x112 = np.array(
    [(30.2946, 51.6963), (65.5318, 51.5014), (48.0252, 71.7366), (33.5493, 92.3655), (62.7299, 92.2041)]
)
_SQUARE, _PADDING = 112, 0.001
TEMPLATE = (_FACE_96x112 + [8, 0] + _PADDING * _SQUARE) * SIZE / _SQUARE
MARGIN = 2  # pixels around what an aligned face covers that its samples may touch


def similarity(landmarks: np.ndarray, template: np.ndarray = TEMPLATE) -> np.ndarray:
    """The rotation, scaling and shift that take landmarks nearest to the template in the sense of least squares.

    landmarks: (..., k, 2) x and y; template: (k, 2). Returns (..., 2, 3) matrices [A | b]: A x + b. Without
    reflections, which no face needs, Umeyama's solution (Least-squares estimation of transformation parameters between
    two point patterns, 1991) is w = a z + b in complex numbers, a = sum(conj(z) w) / sum |z|^2 about the centres.
    Raises ValueError when all the landmarks of a face coincide.
    """
    source = landmarks[..., 0] + 1j * landmarks[..., 1]
    target = template[:, 0] + 1j * template[:, 1]
    centre = source.mean(axis=-1, keepdims=True)
    z, w = source - centre, target - target.mean()
    spread = (abs(z) ** 2).sum(axis=-1)
    if not (spread > 0).all():
        raise ValueError("landmarks that all coincide have no size to align by")
    a = (z.conj() * w).sum(axis=-1) / spread
    b = target.mean() - a * centre[..., 0]
    rows = [a.real, -a.imag, b.real], [a.imag, a.real, b.imag]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def align_face(image: np.ndarray, box: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """Cut a face out of an image, (H, W, 3) uint8 RGB, as (SIZE, SIZE) uint8 grey.

    landmarks: (5, 2), laid on the template; where they are NaN, the detector having none, the box (4,) is cut out and
    scaled. The image's edge is repeated outside of it.
    """
    if np.isnan(landmarks).any():
        left, top = np.floor(box[:2]).astype(int).clip(0)
        right, bottom = np.ceil(box[2:]).astype(int)
        return whole_image(image[top : max(bottom, top) + 1, left : max(right, left) + 1])
    matrix = similarity(landmarks.astype(np.float64))
    # A large face is sampled several times a pixel and averaged: one bilinear sample would pick lone pixels out of it.
    scale = np.hypot(*matrix[:, 0])
    samples = max(1, int(1 / scale))
    matrix *= samples
    matrix[:, 2] += (samples - 1) / 2  # pixel centres: (x + 1/2) samples - 1/2
    side = samples * SIZE
    # Only what the face is made of becomes grey: of a large image that is little.
    square = np.array([[0.0, 0], [side, 0], [0, side], [side, side]])
    corners = cv2.transform(square[None], cv2.invertAffineTransform(matrix))[0]
    limit = [image.shape[1] - 1, image.shape[0] - 1]
    left, top = (np.floor(corners.min(axis=0)) - MARGIN).clip(0, limit).astype(int)
    right, bottom = (np.ceil(corners.max(axis=0)) + MARGIN).clip(0, limit).astype(int) + 1
    matrix[:, 2] += matrix[:, :2] @ [left, top]
    part = _grey(image[top:bottom, left:right])
    aligned = cv2.warpAffine(part, matrix, (side, side), borderMode=cv2.BORDER_REPLICATE)
    return aligned if samples == 1 else cv2.resize(aligned, (SIZE, SIZE), interpolation=cv2.INTER_AREA)


def face_to_frame(points: np.ndarray, shape: tuple[int, ...], box: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """Where points (n, 2) x, y of a face that align_face() made lie in the image (H, W, ...) of `shape`: (n, 2).

    box, landmarks: as align_face() was given them. Pixel centres are at whole numbers.
    """
    if np.isnan(landmarks).any():
        start = np.floor(box[:2]).clip(0)
        end = np.minimum(np.maximum(np.ceil(box[2:]), start), [shape[1] - 1, shape[0] - 1])
        return np.asarray(start + (points + 0.5) * (end + 1 - start) / SIZE - 0.5)
    back = cv2.invertAffineTransform(similarity(landmarks.astype(np.float64)))
    return np.asarray(points @ back[:, :2].T + back[:, 2])


def whole_image(image: np.ndarray) -> np.ndarray:
    """Scale a whole image, (H, W, 3) uint8 RGB, to (SIZE, SIZE) uint8 grey."""
    shrinking = min(image.shape[:2]) >= SIZE
    return cv2.resize(_grey(image), (SIZE, SIZE), interpolation=cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR)


def _grey(image: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
