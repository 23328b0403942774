"""What was read in a frame: faces with their boxes, landmarks and probabilities."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

LANDMARKS = ("left_eye", "right_eye", "nose", "mouth_left", "mouth_right")


@dataclass(frozen=True)
class Explanation:
    """Where in a face each label's score comes from.

    maps: by label, rows of values, the top row first; positive ones speak for the label, negative ones against it.
    corners: x, y in pixels of the frame of what the maps cover: top left, top right, bottom right, bottom left of the
    aligned face.
    """

    maps: dict[str, tuple[tuple[float, ...], ...]]
    corners: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class FaceReading:
    """One face.

    box: left, top, right, bottom in pixels, within the frame. score: the detector's, 0..1; None for a face nobody
    looked for. landmarks: x, y in pixels by the names of LANDMARKS, left being the picture's left; empty where there
    are none. probabilities: by label, in the model's order, adding up to 1; of a face that is followed from frame to
    frame, smoothed over time. status: `found`; `given` for a box of the caller's; `whole` when no face was found and
    the whole image was read as one. track: the face's number across frames, from 1; None in a lone image. uncertain:
    the greatest probability is below the threshold. conditions: of `tiny`, `turned` and `edge`, those that make the
    reading worth less. explanation, features (the net's vector of the face): None unless they were asked for.
    """

    box: tuple[float, float, float, float]
    score: float | None
    landmarks: dict[str, tuple[float, float]]
    probabilities: dict[str, float]
    status: str
    track: int | None = None
    uncertain: bool = False
    conditions: tuple[str, ...] = ()
    explanation: Explanation | None = None
    features: tuple[float, ...] | None = None

    def scaled(self, x: float, y: float) -> "FaceReading":
        """The same in a frame that is x times as wide and y times as high; (0, 0) is the centre of a pixel."""

        def place(point: tuple[float, float]) -> tuple[float, float]:
            return (point[0] + 0.5) * x - 0.5, (point[1] + 0.5) * y - 0.5

        explanation = self.explanation
        if explanation is not None:
            explanation = replace(explanation, corners=tuple(map(place, explanation.corners)))
        return replace(
            self,
            box=(*place(self.box[:2]), *place(self.box[2:])),
            landmarks={name: place(point) for name, point in self.landmarks.items()},
            explanation=explanation,
        )

    @property
    def heat(self) -> tuple[tuple[float, ...], ...] | None:
        """What speaks for the label: rows of 0..1, the greatest being 1; None without an explanation."""
        if self.explanation is None:
            return None
        rows = self.explanation.maps[self.label]
        greatest = max(max(row) for row in rows)
        return tuple(tuple(max(value, 0.0) / greatest if greatest > 0 else 0.0 for value in row) for row in rows)

    @property
    def label(self) -> str:
        return max(self.probabilities, key=lambda label: self.probabilities[label])

    def to_json(self) -> dict[str, Any]:
        told: dict[str, Any] = {
            "track": self.track,
            "box": [round(value, 1) for value in self.box],
            "score": None if self.score is None else round(self.score, 4),
            "landmarks": {name: [round(x, 1), round(y, 1)] for name, (x, y) in self.landmarks.items()},
            "probabilities": {label: round(value, 5) for label, value in self.probabilities.items()},
            "label": self.label,
            "uncertain": self.uncertain,
            "status": self.status,
            "conditions": list(self.conditions),
        }
        if self.explanation and self.heat:
            told["explanation"] = {
                "corners": [[round(x, 1), round(y, 1)] for x, y in self.explanation.corners],
                "heat": [[round(value, 3) for value in row] for row in self.heat],
            }
        return told


@dataclass(frozen=True)
class Reading:
    """One frame: its name, its size in pixels, its faces from the largest to the smallest.

    frame, time: the frame's index and time, as in frames.Frame. more: faces that were seen beside these and not read,
    where there is a limit to them.
    """

    file: str
    width: int
    height: int
    faces: tuple[FaceReading, ...]
    frame: int = 0
    time: float | None = None
    more: int = 0

    def resized(self, width: int, height: int) -> "Reading":
        """The same in the pixels of the frame at another size."""
        if (width, height) == (self.width, self.height):
            return self
        scale = width / self.width, height / self.height
        return replace(self, width=width, height=height, faces=tuple(face.scaled(*scale) for face in self.faces))

    def to_json(self) -> dict[str, Any]:
        return {
            "file": self.file,
            "frame": self.frame,
            "time": None if self.time is None else round(self.time, 4),
            "width": self.width,
            "height": self.height,
            "faces": [face.to_json() for face in self.faces],
        }


def columns(labels: Iterable[str]) -> list[str]:
    """Names of the columns of a table of readings, for a model of these labels."""
    landmarks = [f"{name}_{axis}" for name in LANDMARKS for axis in "xy"]
    return [
        *("file", "frame", "time", "width", "height", "track", "status", "left", "top", "right", "bottom", "score"),
        *landmarks,
        *("label", "uncertain", "conditions"),
        *(f"probability_{label}" for label in labels),
    ]


def rows(reading: Reading) -> list[dict[str, Any]]:
    """The reading's rows by column, one a face; where there is none, a single row of status `none`.

    A column without a value is left out.
    """
    frame = {"file": reading.file, "frame": reading.frame, "width": reading.width, "height": reading.height}
    if reading.time is not None:
        frame["time"] = round(reading.time, 4)
    if not reading.faces:
        return [{**frame, "status": "none"}]
    table = []
    for face in reading.faces:
        values = face.to_json()
        row = {**frame, **{name: values[name] for name in ("track", "status", "score", "label", "uncertain")}}
        row |= zip(("left", "top", "right", "bottom"), values["box"], strict=True)
        for name, (x, y) in values["landmarks"].items():
            row |= {f"{name}_x": x, f"{name}_y": y}
        row |= {f"probability_{label}": value for label, value in values["probabilities"].items()}
        row["conditions"] = " ".join(face.conditions)
        table.append({name: value for name, value in row.items() if value is not None})
    return table


def to_dataframe(readings: Iterable[Reading]) -> "pd.DataFrame":
    """A table of a row a face, and a row of status `none` for a frame without one; the columns are those of the CSV."""
    import pandas as pd

    readings = list(readings)
    labels = dict.fromkeys(label for reading in readings for face in reading.faces for label in face.probabilities)
    return pd.DataFrame([row for reading in readings for row in rows(reading)], columns=columns(labels))
