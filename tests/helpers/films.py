"""Drawn films of several people who cross, leave and return, and how often a tracker takes one for another."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np

from helpers.portraits import FACE, background, portrait
from pipeline.faces.tracking import Tracked

HEIGHT, WIDTH = 400, 880
TALL = 130  # pixels, of a face
PACE = 0.4  # picture widths a second, at which people leave: 2.7 of their faces
HIDDEN = 1 / 3  # of a face; with more of it covered or outside, nobody is expected to see it
TINTS = ((1, 1, 1), (0.55, 0.75, 1), (1, 0.7, 0.5), (0.5, 0.5, 0.5), (0.7, 1, 0.65), (1, 0.85, 1))

Walk = Callable[[float], float]  # seconds -> x of a face's centre


def crossing(people: int) -> list[Walk]:
    """All walk to and fro across the picture, each at a pace of her own."""
    return [
        lambda t, n=n: WIDTH * (0.5 + 0.4 * np.sin(2 * np.pi * t / (7 + 1.3 * n) + 2.1 * n))  # type: ignore[misc]
        for n in range(people)
    ]


def leaving(people: int) -> list[Walk]:
    """All stand side by side; one after the other walks out to the nearer edge and comes back within a second."""
    places = [(n + 0.5) / people for n in range(people)]

    def walk(n: int, t: float) -> float:
        edge = -0.12 if places[n] < 0.5 else 1.12
        seconds = abs(edge - places[n]) / PACE  # to the edge
        out = np.clip((seconds + 0.1 - abs(t - 2.5 - 3 * n)) / seconds, 0, 1)
        return float(WIDTH * (places[n] + out * (edge - places[n])))

    return [partial(walk, n) for n in range(people)]


def staying(people: int) -> list[Walk]:
    """All stand side by side and nod."""

    def nod(n: int, t: float) -> float:
        return float(WIDTH * (n + 0.5) / people + 12 * np.sin(3 * t + n))

    return [partial(nod, n) for n in range(people)]


@dataclass(frozen=True)
class Drawn:
    """A frame, its time, and the boxes (left, top, right, bottom) of the people who can be seen in it, by number."""

    time: float
    image: np.ndarray
    seen: dict[int, tuple[float, float, float, float]]


def film(walks: list[Walk], *, seconds: float, rate: float) -> Iterator[Drawn]:
    """Those with the higher number pass in front."""
    scene = cv2.resize(background(), (WIDTH, HEIGHT))
    left, top, right, bottom = FACE
    face = portrait()[top:bottom, left:right].astype(np.float32)
    oval = np.zeros(face.shape[:2], np.float32)
    centre = (face.shape[1] // 2, face.shape[0] // 2)
    cv2.ellipse(oval, centre, centre, 0, 0, 360, 1, -1)
    for number in range(round(seconds * rate)):
        time = number / rate
        image = scene.astype(np.float32)
        masks: list[np.ndarray] = []
        boxes: list[tuple[float, tuple[float, float, float, float]]] = []
        for person, walk in enumerate(walks):
            tall = TALL * (1 + 0.12 * (person - len(walks) / 2) / len(walks))
            scale = tall / face.shape[0]
            x, y = walk(time), HEIGHT / 2 + 18 * np.sin(1.7 * time + 2 * person) + 8 * (person - len(walks) / 2)
            matrix = np.array([[scale, 0, x - face.shape[1] * scale / 2], [0, scale, y - tall / 2]])
            looks = (face[:, ::-1] if person % 2 else face) * np.array(TINTS[person % len(TINTS)], np.float32)
            mask = cv2.warpAffine(oval, matrix, (WIDTH, HEIGHT))[:, :, None]
            image += mask * (cv2.warpAffine(looks, matrix, (WIDTH, HEIGHT), flags=cv2.INTER_AREA) - image)
            whole = oval.sum() * scale**2
            masks = [each * (1 - mask) for each in masks] + [mask]
            half = face.shape[1] * scale / 2
            boxes.append((whole, (x - half, y - tall / 2, x + half, y + tall / 2)))
        seen = {
            person: box
            for person, ((whole, box), mask) in enumerate(zip(boxes, masks, strict=True))
            if mask.sum() >= (1 - HIDDEN) * whole
        }
        yield Drawn(time, image.clip(0, 255).astype(np.uint8), seen)


@dataclass
class Score:
    """switches: how often a person's number was another than before. numbers: of tracks. missed: of `seen` faces."""

    switches: int = 0
    seen: int = 0
    missed: int = 0
    numbers: int = 0


def score(frames: list[Drawn], tracked: list[Tracked]) -> Score:
    result = Score()
    last: dict[int, int] = {}
    numbers: set[int] = set()
    for drawn, found in zip(frames, tracked, strict=True):
        numbers |= set(found.ids.tolist())
        centres = (found.detections.boxes[:, :2] + found.detections.boxes[:, 2:]) / 2
        for person, (left, top, right, bottom) in drawn.seen.items():
            result.seen += 1
            far = np.abs(centres - [(left + right) / 2, (top + bottom) / 2])
            near = np.flatnonzero((far <= [(right - left) / 3, (bottom - top) / 3]).all(axis=1))
            if not len(near):
                result.missed += 1
                continue
            number = int(found.ids[near[far[near].sum(axis=1).argmin()]])
            result.switches += last.get(person, number) != number
            last[person] = number
    result.numbers = len(numbers)
    return result
