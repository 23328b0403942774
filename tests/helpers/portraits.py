"""Pictures for the tests of faces: photographs of one woman, whole and cut out, set before a plain background."""

import io
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from matplotlib.cbook import get_sample_data
from PIL import Image

FACE = (162, 45, 386, 353)  # of portrait(): left, top, right, bottom, a quarter wider than the face
SIZE = (320, 480)  # height and width of scenes


def portrait_file() -> bytes:
    """A photograph of one face, a JPEG of 512x600: it comes with matplotlib."""
    return Path(get_sample_data("grace_hopper.jpg", asfileobj=False)).read_bytes()


@cache
def portrait() -> np.ndarray:
    """What portrait_file() shows, (600, 512, 3)."""
    return np.asarray(Image.open(io.BytesIO(portrait_file())).convert("RGB"))


@cache
def background(seed: int = 0) -> np.ndarray:
    """Blurred spots of colour, in which there is no face."""
    noise = np.random.default_rng(seed).uniform(0, 255, (*SIZE, 3)).astype(np.float32)
    blurred = cv2.GaussianBlur(noise, (0, 0), 15)
    return cv2.normalize(blurred, blurred, 40, 200, cv2.NORM_MINMAX).astype(np.uint8)


def put(scene: np.ndarray, x: float, y: float, height: float = 150, *, pale: bool = False) -> np.ndarray:
    """The face, an oval of this height, before a scene: its centre at x, y. pale: with other colours, and mirrored."""
    left, top, right, bottom = FACE
    face = portrait()[top:bottom, left:right]
    if pale:
        face = 255 - (255 - face[:, ::-1, ::-1]) // 2
    scale = height / face.shape[0]
    matrix = np.array([[scale, 0, x - face.shape[1] * scale / 2], [0, scale, y - height / 2]])
    oval = np.zeros(face.shape[:2], np.float32)
    centre = (face.shape[1] // 2, face.shape[0] // 2)
    cv2.ellipse(oval, centre, centre, 0, 0, 360, 1, -1)
    size = scene.shape[1::-1]
    mask = cv2.warpAffine(oval, matrix, size)[:, :, None]
    pasted = cv2.warpAffine(face, matrix, size, flags=cv2.INTER_AREA)
    return (scene * (1 - mask) + pasted * mask).astype(np.uint8)


def moved(count: int) -> Iterator[tuple[np.ndarray, tuple[float, float]]]:
    """A face that goes about, nearer and farther, and where its centre is."""
    scene = background()
    for t in range(count):
        place = 200 + 60 * np.sin(t / 7), 160 + 25 * np.sin(t / 5)
        yield put(scene, *place, 150 + 30 * np.sin(t / 9)), place
