"""A drawn set in FER2013's form: to try the pipeline where the real set is not at hand."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from pipeline.base.atomic import atomic_file
from pipeline.data.labelled_images import LabelledImage
from pipeline.data.labels import IMAGE_SHAPE, KNOWN_COUNTS, LABELS
from pipeline.data.synthetic.action_units import draw_units
from pipeline.data.synthetic.portrait import Identity, View, draw_portrait

COUNT = 2000

# Style of hair: how often.
HAIR = {"bald": 0.06, "receding": 0.12, "short": 0.26, "parted": 0.2, "fringe": 0.08, "long": 0.2, "curly": 0.08}


def draw_identity(rng: np.random.Generator) -> Identity:
    """Draw a person's features around the average."""

    def around(mean: float, spread: float) -> float:
        return mean * (1 + spread * float(np.clip(rng.standard_normal(), -2.2, 2.2)))

    hair = str(rng.choice(list(HAIR), p=list(HAIR.values())))
    man = hair not in ("long", "fringe") and rng.random() < 0.7
    age = float(rng.beta(1.2, 2.0))
    child = age < 0.12
    skin = float(0.4 + 0.48 * rng.beta(2.2, 1.2))
    fair = max(0.0, skin - 0.7) * float(rng.random()) * 1.5
    grey = age > 0.55 and rng.random() < 0.7
    return Identity(
        skin=skin,
        hair_tone=float(rng.uniform(0.5, 0.8) if grey else rng.uniform(0.04, 0.25) + fair),
        hair=hair,
        beard=float(rng.uniform(0.3, 1)) if man and not child and rng.random() < 0.25 else 0,
        moustache=float(rng.uniform(0.4, 1)) if man and not child and rng.random() < 0.2 else 0,
        glasses=str(rng.choice(["none", "round", "square"], p=[0.84, 0.08, 0.08])),
        age=age,
        make_up=0 if man or child else 0.8 * float(rng.random()),
        width=around(1.06, 0.035),
        jaw_width=around(1.04 if man else 0.96, 0.05),
        chin=around(1.4 if child else 1.54, 0.035),
        eye_distance=around(0.46, 0.035),
        eye_size=around(1.3 if child else 1.15, 0.06),
        eye_tilt=around(0.02, 0.6),
        iris=float(rng.uniform(0.08, 0.38)),
        brow_thickness=around(1.1 if man else 0.8, 0.18),
        brow_height=around(0.275, 0.07),
        nose_length=around(0.54 if child else 0.6, 0.05),
        nose_width=around(0.21, 0.09),
        mouth_width=around(0.355, 0.06),
        mouth_height=around(0.9 if child else 0.98, 0.02),
        lip_fullness=around(1.05 - 0.35 * age, 0.16),
    )


def draw_view(rng: np.random.Generator) -> View:
    """Draw how a picture is taken."""

    def near(deviation: float, limit: float) -> float:
        return float(np.clip(rng.normal(0, deviation), -limit, limit))

    return View(
        yaw=near(0.17, 0.4),
        pitch=near(0.1, 0.22),
        roll=near(0.09, 0.25),
        scale=float(rng.uniform(16.5, 21.5)),
        shift=(near(0.8, 2), near(0.8, 2)),
        gaze=(near(0.35, 1), near(0.25, 0.7)),
        light=(near(0.45, 1), float(rng.uniform(-0.8, 0))),
        ambient=float(rng.uniform(0.3, 0.55)),
        blur=float(rng.choice([0, 0.3, 0.45, 0.65], p=[0.45, 0.3, 0.15, 0.1])),
        noise=float(rng.choice([1, 2.5, 5], p=[0.6, 0.33, 0.07])),
        contrast=float(rng.uniform(0.8, 1.2)),
        brightness=float(rng.uniform(-22, 18)),
    )


def usages(count: int) -> list[str]:
    """The Usage of every row, in FER2013's order and proportions (80:10:10)."""
    sizes = [sum(labels) for labels in KNOWN_COUNTS.values()]
    ends = np.round(np.cumsum(sizes) / sum(sizes) * count).astype(int)
    return [usage for usage, rows in zip(KNOWN_COUNTS, np.diff(ends, prepend=0), strict=True) for _ in range(rows)]


def draw_faces(count: int, seed: int) -> Iterator[LabelledImage]:
    """Draw a set, every face a person of its own that depends on `seed` and its row alone.

    Expressions are evenly many, unlike FER2013's, so that a small set has enough of each.
    """
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # images this small are drawn sooner by one
    try:
        for row, usage in enumerate(usages(count)):
            rng = np.random.default_rng((seed, row))
            label = row % len(LABELS)
            units = draw_units(LABELS[label], rng)
            yield LabelledImage(row, usage, label, draw_portrait(draw_identity(rng), units, draw_view(rng), rng))
    finally:
        cv2.setNumThreads(threads)


def write_csv(path: Path, faces: Sequence[LabelledImage]) -> None:
    """Write Kaggle's fer2013.csv: emotion, the pixels row by row, Usage."""
    with atomic_file(path, "w", encoding="ascii", newline="") as file:
        file.write("emotion,pixels,Usage\n")
        for face in faces:
            file.write(f"{face.label},{' '.join(map(str, face.pixels.ravel()))},{face.usage}\n")


def draw_sample_sheet(path: Path, faces: Sequence[LabelledImage], columns: int = 16) -> None:
    """Write a PNG with a row of faces, twice their size, for every expression."""
    rows = []
    for label, name in enumerate(LABELS):
        shown = [face.pixels for face in faces if face.label == label][:columns]
        blank = np.full(IMAGE_SHAPE, 255, np.uint8)
        pictures = np.hstack(shown + [blank] * (columns - len(shown)))
        large = cv2.resize(pictures, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)
        caption = np.full((large.shape[0], 100), 255, np.uint8)
        cv2.putText(caption, name, (8, 54), cv2.FONT_HERSHEY_SIMPLEX, 0.6, 0, 1, cv2.LINE_AA)
        rows.append(np.hstack([caption, large]))
    with atomic_file(path) as file:
        file.write(cv2.imencode(".png", np.vstack(rows))[1])
