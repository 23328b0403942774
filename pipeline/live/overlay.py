"""Draws readings over a frame: boxes, landmarks, labels and probability bars, legible on any image."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pipeline.live.readings import FaceReading, Reading

# Okabe and Ito's colours, which colour-blind people tell apart (jfly.uni-koeln.de/color), in the order of labels;
# black is left out because panels are dark.
PALETTE = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7", "#FFFFFF")
PANEL = (16, 16, 20)
PANEL_OPACITY = 0.72
MIN_SIDE = 360  # pixels; a smaller frame is enlarged by a whole factor, or its text would not be legible
MAX_ENLARGED = 4 * MIN_SIDE  # pixels; what a frame is enlarged to at most, on its longer side
TEXT_SHARE = 1 / 36  # of the frame's shorter side
MIN_TEXT = 11  # pixels
ROW = 1.35  # height of a row of bars, in text sizes

Rectangle = tuple[int, int, int, int]  # left, top, right, bottom


@dataclass(frozen=True)
class Parts:
    """What is drawn, of every face (`all`) or of the largest only (`single`). blur: faces are hidden."""

    boxes: bool = True
    landmarks: bool = True
    labels: bool = True
    bars: bool = True
    emoji: bool = True
    rate: bool = True
    faces: Literal["all", "single"] = "all"
    blur: bool = False


class Overlay:
    """Draws the readings of one source after the other."""

    def __init__(self, parts: Parts = Parts()) -> None:
        self.parts = parts

    def draw(self, image: np.ndarray, reading: Reading, rate: float | None = None) -> np.ndarray:
        """A new (H', W', 3) uint8 RGB image: a reading over its (H, W, 3) uint8 RGB frame.

        H' and W' depend on the frame's size and the parts alone. rate: frames a second, where it shall be shown.
        """
        return draw(image, reading)


def draw(image: np.ndarray, reading: Reading) -> np.ndarray:
    """Draw a reading over its (H, W, 3) uint8 RGB frame.

    Gives a new image: enlarged where the frame is tiny, and with a strip added for the bars of a single face that
    leaves no room for them.
    """
    height, width = image.shape[:2]
    factor = max(1, min(-(-MIN_SIDE // min(height, width)), MAX_ENLARGED // max(height, width)))
    canvas = Image.fromarray(image).resize((width * factor, height * factor), Image.Resampling.BICUBIC)
    painter = _Painter(canvas, canvas.size)
    boxes = [_whole(face.box, factor) for face in reading.faces]
    if len(boxes) == 1 and not painter.place_bars(reading.faces[0], boxes[0], boxes):
        panel_width, panel_height = painter.panel_size(reading.faces[0])
        wider = Image.new("RGB", (canvas.width + panel_width, max(canvas.height, panel_height)), PANEL)
        wider.paste(canvas)
        painter = _Painter(wider, canvas.size)
    taken = list(boxes)
    for face, box in zip(reading.faces, boxes, strict=True):
        painter.face(face, box, factor)
    for face, box in zip(reading.faces, boxes, strict=True):
        taken.append(painter.label(face, box))
    for face, box in zip(reading.faces, boxes, strict=True):
        panel = painter.place_bars(face, box, taken)
        if panel:
            painter.bars(face, panel)
            taken.append(panel)
    return np.asarray(painter.canvas)


def _whole(box: Iterable[float], factor: int) -> Rectangle:
    left, top, right, bottom = (round(value * factor) for value in box)
    return left, top, right, bottom


def _overlaps(a: Rectangle, b: Rectangle) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def colour_of(face: FaceReading) -> str:
    return PALETTE[list(face.probabilities).index(face.label) % len(PALETTE)]


class _Painter:
    """Draws on `canvas`, everything in proportion to a frame of `size` (width, height)."""

    def __init__(self, canvas: Image.Image, size: tuple[int, int]) -> None:
        self.canvas = canvas
        self.pen = ImageDraw.Draw(canvas)
        self.text_size = max(MIN_TEXT, round(min(size) * TEXT_SHARE))
        self.font = _font(self.text_size)
        self.label_font = _font(round(self.text_size * 1.25))
        self.line = max(1, round(min(size) / 220))
        self.gap = max(2, self.text_size // 3)

    def face(self, face: FaceReading, box: Rectangle, factor: int) -> None:
        """The box, in the label's colour between dark edges so that it stands out on any ground, and the landmarks."""
        for inset, width, colour in ((-1, self.line + 2, "black"), (0, self.line, colour_of(face))):
            self.pen.rectangle(
                (box[0] + inset, box[1] + inset, box[2] - inset, box[3] - inset), outline=colour, width=width
            )
        radius = max(1, self.line)
        for x, y in face.landmarks.values():
            self.pen.circle((x * factor, y * factor), radius + 1, fill="black")
            self.pen.circle((x * factor, y * factor), radius, fill=colour_of(face))

    def label(self, face: FaceReading, box: Rectangle) -> Rectangle:
        """The label and its probability on a plate of its colour, above the box or, for want of room, inside it."""
        text = f"{face.label} {face.probabilities[face.label]:.0%}"
        width = round(self.label_font.getlength(text)) + 2 * self.gap
        height = round(self.text_size * 1.25) + self.gap
        left = min(max(0, box[0] - 1), max(0, self.canvas.width - width))
        top = box[1] - height if box[1] >= height else max(0, box[1])
        plate = (left, top, left + width, top + height)
        self.pen.rectangle(plate, fill=colour_of(face), outline="black")
        self.pen.text((left + self.gap, top + height / 2), text, _ink(colour_of(face)), self.label_font, anchor="lm")
        return plate

    def panel_size(self, face: FaceReading) -> tuple[int, int]:
        """Width and height of a face's panel of bars."""
        names = max(map(self.font.getlength, face.probabilities))
        return round(names + 6.5 * self.text_size) + 5 * self.gap, (
            round(len(face.probabilities) * self.text_size * ROW) + 2 * self.gap
        )

    def place_bars(self, face: FaceReading, box: Rectangle, taken: list[Rectangle]) -> Rectangle | None:
        """Where a panel of bars fits beside, under or over the box without covering anything; None where nowhere."""
        width, height = self.panel_size(face)
        lefts = (box[2] + self.gap, box[0] - self.gap - width, self.canvas.width - width, 0)
        inner_lefts = (box[0], box[2] - width, 0, self.canvas.width - width)
        lowest = self.canvas.height - height
        tops = (min(max(0, box[1]), lowest), min(max(0, box[3] - height), lowest), 0, lowest)
        places = [*product(lefts, tops), *product(inner_lefts, (box[3] + self.gap, box[1] - self.gap - height))]
        for left, top in places:
            panel = (left, top, left + width, top + height)
            inside = left >= 0 and top >= 0 and panel[2] <= self.canvas.width and panel[3] <= self.canvas.height
            if inside and not any(_overlaps(panel, other) for other in taken):
                return panel
        return None

    def bars(self, face: FaceReading, panel: Rectangle) -> None:
        """A row a label: name, bar, per cent; framed in the colour of the face's box."""
        self.canvas.paste(
            Image.blend(self.canvas.crop(panel), Image.new("RGB", _size(panel), PANEL), PANEL_OPACITY), panel
        )
        self.pen.rectangle(panel, outline=colour_of(face), width=self.line)
        names = max(map(self.font.getlength, face.probabilities))
        left = panel[0] + 3 * self.gap + names
        full = panel[2] - 3 * self.gap - 2.6 * self.text_size - left
        for index, (label, probability) in enumerate(face.probabilities.items()):
            middle = panel[1] + self.gap + (index + 0.5) * self.text_size * ROW
            strong = label == face.label
            ink = "white" if strong else "#C8C8D0"
            half = self.text_size * (0.42 if strong else 0.3)
            self.pen.text((panel[0] + 2 * self.gap, middle), label, ink, self.font, anchor="lm")
            self.pen.rectangle((left, middle - half, left + full, middle + half), fill="#3A3A42")
            if probability * full >= 1:
                self.pen.rectangle(
                    (left, middle - half, left + probability * full, middle + half), fill=PALETTE[index % len(PALETTE)]
                )
            self.pen.text((panel[2] - 2 * self.gap, middle), f"{probability:.0%}", ink, self.font, anchor="rm")


def _size(rectangle: Rectangle) -> tuple[int, int]:
    return rectangle[2] - rectangle[0], rectangle[3] - rectangle[1]


def _ink(ground: str) -> str:
    """Black or white, whichever stands out more on `ground` (relative luminance of WCAG 2.2, threshold 0.179)."""
    channels = np.array([int(ground[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return "black" if linear @ (0.2126, 0.7152, 0.0722) > 0.179 else "white"


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Aileron, which Pillow carries."""
    return ImageFont.load_default(size)
