"""Where things lie on the canvas and how large they are, from the frame's size alone, so that no picture jumps."""

from collections.abc import Mapping
from dataclasses import dataclass
from unicodedata import bidirectional

import cv2
import numpy as np
from PIL import features

from pipeline.drawing.canvas import DARK, WHITE, Canvas, Rectangle, fit_text, text_width
from pipeline.drawing.emoji import name_of
from pipeline.drawing.palette import colours, ink
from pipeline.readings import FaceReading

MIN_SIDE = 360  # pixels; a frame whose shorter side is less is enlarged by a whole factor, or text would not be legible
MAX_ENLARGED = 4 * MIN_SIDE  # pixels; what a frame is enlarged to at most, on its longer side
CROP_SIDE = 180  # pixels; a frame of a shorter side is a face cut out, beside which nothing has room
TEXT_SHARE, SMALL_TEXT_SHARE = 1 / 36, 1 / 55  # of the frame's shorter side; small: of what belongs to a small face
MIN_TEXT = 11  # pixels
LABEL_SHARE = 1 / 6.5  # of a face's height, the largest text of its label: "surprise 96%" is about as wide as the face
FEATURES = 0.12  # of a face's size, kept free around its landmarks
ROW = 1.4  # height of a row of bars, in text sizes
MAX_ROWS = 8  # of bars; of a model with more labels the most probable are shown
ISOLATE, END_OF_ISOLATE = "\u2068", "\u2069"  # UAX #9, 2.4: FSI and PDI
NAME_WIDTH, BAR_WIDTH, PER_CENT_WIDTH = 5.2, 4.4, 2.6  # columns of bars, in text sizes


@dataclass(frozen=True)
class Layout:
    """A frame on its canvas, in the canvas's pixels.

    factor: the frame's enlargement. frame: its width and height then; it begins at the left edge. side: width of what
    stands to its right. height: of the canvas, around whose middle the frame lies.
    """

    factor: int
    frame: tuple[int, int]
    side: int
    height: int

    @classmethod
    def of(cls, width: int, height: int, *, side: str | None, own_size: bool = False) -> "Layout":
        """Lay out a frame of width x height pixels with, beside it, a `panel`, a narrower `strip` if it is a face cut
        out, or nothing. own_size: it is not enlarged, and has no strip.
        """
        shorter = min(width, height)
        factor = 1 if own_size else max(1, min(-(-MIN_SIDE // shorter), MAX_ENLARGED // max(width, height)))
        bare = cls(factor, (width * factor, height * factor), 0, height * factor)
        if side == "panel":
            least = max(shorter * factor, MIN_SIDE)
            return cls(factor, bare.frame, round(0.55 * least), max(bare.height, least))
        if side == "strip" and not own_size and shorter < CROP_SIDE:
            bars = panel_size(MAX_ROWS, bare.strip_text)
            room = bars[0] + bare.text
            return cls(factor, bare.frame, room, max(bare.height, bars[1] + room))
        return bare

    @property
    def width(self) -> int:
        return self.frame[0] + self.side

    @property
    def top(self) -> int:
        return (self.height - self.frame[1]) // 2

    @property
    def text(self) -> int:
        return max(MIN_TEXT, round(min(self.frame) * TEXT_SHARE))

    @property
    def small_text(self) -> int:
        return max(MIN_TEXT, round(min(self.frame) * SMALL_TEXT_SHARE))

    def text_between(self, size: float, most: int) -> int:
        """One of four sizes of text from small_text to `most`, the largest that `size` allows: few, so that text does
        not change with each pixel that a face grows by.
        """
        steps = np.linspace(self.small_text, max(self.small_text, most), 4)
        return round(max(step for step in steps if step <= max(size, self.small_text)))

    def label_text(self, height: float) -> int:
        """Size of the label of a face so high: one of a few, as of text_between, but down to MIN_TEXT."""
        steps = np.linspace(MIN_TEXT, max(MIN_TEXT, 1.25 * self.text), 6)
        return round(max(step for step in steps if step <= max(height * LABEL_SHARE, MIN_TEXT)))

    @property
    def strip_text(self) -> int:
        return round(1.3 * self.text)

    @property
    def line(self) -> int:
        return max(2, round(min(self.frame) / 300))

    def canvas(self, image: np.ndarray) -> Canvas:
        """A canvas of its own with the frame on it."""
        if self.factor > 1:
            image = cv2.resize(image, self.frame, interpolation=cv2.INTER_CUBIC)
        canvas = Canvas(np.empty((self.height, self.width, 3), np.uint8))
        width, bottom = self.frame[0], self.top + self.frame[1]
        canvas.image[self.top : bottom, :width] = image
        for rest in ((width, 0, self.width, self.height), (0, 0, width, self.top), (0, bottom, width, self.height)):
            canvas.fill(rest, DARK)
        return canvas

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Where a point of the frame, (0, 0) being the centre of its first pixel, lies on the canvas; clipped."""
        width, height = self.frame
        return (
            min(max(0.0, (x + 0.5) * self.factor - 0.5), width - 1.0),
            self.top + min(max(0.0, (y + 0.5) * self.factor - 0.5), height - 1.0),
        )

    def holds(self, rectangle: Rectangle) -> bool:
        return min(rectangle[:2]) >= 0 and rectangle[2] <= self.width and rectangle[3] <= self.height


@dataclass(frozen=True)
class Face:
    """A reading with its box on the canvas, and its labels' colours and names, where these are others than they."""

    reading: FaceReading
    box: tuple[float, float, float, float]
    palette: dict[str, str]
    names: Mapping[str, str]

    @classmethod
    def of(cls, reading: FaceReading, layout: Layout, names: Mapping[str, str]) -> "Face":
        left, top, right, bottom = reading.box
        box = (*layout.place(left, top), *layout.place(right, bottom))
        return cls(reading, box, colours(tuple(reading.probabilities)), names)

    @property
    def area(self) -> Rectangle:
        left, top, right, bottom = map(round, self.box)
        return left, top, right + 1, bottom + 1

    def features(self, layout: Layout) -> Rectangle:
        """What must stay free of all that is drawn: eyes, nose and mouth, or the middle of a box without landmarks."""
        left, top, right, bottom = self.box
        margin = FEATURES * self.size
        points = [layout.place(*point) for point in self.reading.landmarks.values()]
        if not points:
            width, height = right - left, bottom - top
            points = [(left + 0.3 * width, top + 0.35 * height), (right - 0.3 * width, bottom - 0.2 * height)]
        xs, ys = zip(*points, strict=True)
        return (
            round(min(xs) - margin),
            round(min(ys) - margin),
            round(max(xs) + margin) + 1,
            round(max(ys) + margin) + 1,
        )

    @property
    def doubtful(self) -> bool:
        """Whether the reading is uncertain, or worth less by what the face is like: tiny, turned, at the edge."""
        return self.reading.uncertain or bool(self.reading.conditions)

    @property
    def size(self) -> float:
        """The box's shorter side."""
        return min(self.box[2] - self.box[0], self.box[3] - self.box[1])

    @property
    def colour(self) -> str:
        return self.palette[self.reading.label]

    @property
    def emoji(self) -> str:
        return name_of(self.reading.label)

    @property
    def plate(self) -> tuple[str, str]:
        """Colours of the label's plate and of the text on it."""
        return (DARK, WHITE) if self.reading.uncertain else (self.colour, ink(self.colour))

    def text(self, size: int, width: int, *, conditions: bool = True) -> str:
        """ "#2 happy 93% edge", the label cut so that all of it, at this size of text, fits into `width` pixels."""
        track = "" if self.reading.track is None else f"#{self.reading.track} "
        sure = f"{'?' if self.reading.uncertain else ''} {self.reading.probabilities[self.reading.label]:.0%}"
        sure += "".join(f" {condition}" for condition in self.reading.conditions if conditions)
        name = fit_text(self.name(self.reading.label), size, width - text_width(track + sure, size))
        return track + isolated(name) + sure

    def name(self, label: str) -> str:
        """What a label is called."""
        return one_line(self.names.get(label, label))

    def rows(self, most: int) -> dict[str, float]:
        """Probabilities by label, at most so many and those the greatest, in the model's order."""
        probabilities = self.reading.probabilities
        kept = sorted(probabilities, key=lambda label: -probabilities[label])[:most]
        return {label: value for label, value in probabilities.items() if label in kept}


def one_line(label: str) -> str:
    """A label on one line, without what no font shows."""
    return "".join(letter if letter.isprintable() else " " for letter in label).strip()


def isolated(name: str) -> str:
    """A name for a line that is read from left to right. One in Arabic, say, must not turn what is around it.

    Only where letters are laid out by direction (Pillow's Raqm); elsewhere the marks would be drawn.
    """
    if features.check("raqm") and any(bidirectional(letter) in ("R", "AL") for letter in name):
        return f"{ISOLATE}{name}{END_OF_ISOLATE}"
    return name


def panel_size(rows: int, text: int) -> tuple[int, int]:
    """Width and height of a panel of bars."""
    return (
        round((NAME_WIDTH + BAR_WIDTH + PER_CENT_WIDTH) * text) + 4 * (text // 2),
        round(rows * ROW * text) + 2 * (text // 2),
    )


def overlap(a: Rectangle, b: Rectangle) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
