"""What was read in a frame: faces with their boxes, landmarks and probabilities."""

from dataclasses import dataclass
from typing import Any

LANDMARKS = ("left_eye", "right_eye", "nose", "mouth_left", "mouth_right")


@dataclass(frozen=True)
class FaceReading:
    """One face.

    box: left, top, right, bottom in pixels. score: the detector's, 0..1; None for a face nobody looked for.
    landmarks: x, y in pixels by the names of LANDMARKS, left being the picture's left; empty where there are none.
    probabilities: by label, in the model's order, adding up to 1. status: `found`, or `whole` when no face was
    found and the whole image was read as one.
    """

    box: tuple[float, float, float, float]
    score: float | None
    landmarks: dict[str, tuple[float, float]]
    probabilities: dict[str, float]
    status: str

    @property
    def label(self) -> str:
        return max(self.probabilities, key=lambda label: self.probabilities[label])

    def to_json(self) -> dict[str, Any]:
        return {
            "box": [round(value, 1) for value in self.box],
            "score": None if self.score is None else round(self.score, 4),
            "landmarks": {name: [round(x, 1), round(y, 1)] for name, (x, y) in self.landmarks.items()},
            "probabilities": {label: round(value, 5) for label, value in self.probabilities.items()},
            "label": self.label,
            "status": self.status,
        }


@dataclass(frozen=True)
class Reading:
    """One frame: its name, its size in pixels, its faces from the largest to the smallest."""

    file: str
    width: int
    height: int
    faces: tuple[FaceReading, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "file": self.file,
            "width": self.width,
            "height": self.height,
            "faces": [face.to_json() for face in self.faces],
        }
