"""Draws readings over frames: boxes, landmarks, labels, probability bars and emoji, legible on any frame."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import numpy as np

from pipeline.live.overlay.bars import draw_bars, draw_rows, find_place
from pipeline.live.overlay.canvas import DARK, MUTED, WHITE, Canvas, Rectangle, emoji_sprite, plate_sprite
from pipeline.live.overlay.heat import draw_heat
from pipeline.live.overlay.hide import hide
from pipeline.live.overlay.layout import MAX_ROWS, MIN_TEXT, ROW, Face, Layout, overlap, panel_size
from pipeline.live.readings import FaceReading, Reading

STEADY = 1.3  # times the area of the face that is shown alone must another have to take its place


@dataclass(frozen=True)
class Parts:
    """What is drawn, of every face (`all`) or of the largest only, with a panel beside the frame (`single`).

    blur: all faces are made unrecognisable; emoji then cover them.
    """

    boxes: bool = True
    landmarks: bool = True
    labels: bool = True
    bars: bool = True
    emoji: bool = True
    rate: bool = True
    faces: Literal["all", "single"] = "all"
    blur: bool = False

    @property
    def side(self) -> str | None:
        """What stands beside the frame, as Layout.of() takes it."""
        if self.faces == "single":
            return "panel" if self.labels or self.bars or self.emoji else None
        return "strip" if self.bars or self.emoji else None


class Overlay:
    """Draws the readings of one source. Of a video the frames come in order: bars stay where they were before."""

    def __init__(self, parts: Parts = Parts(), names: Mapping[str, str] = MappingProxyType({})) -> None:
        """names: of labels that are not to be drawn as the model calls them, as in another language."""
        self.parts = parts
        self.names = names
        self._places: dict[int, tuple[int, int]] = {}  # of bars, by the face's track
        self._single: int | None = None  # track

    def draw(self, image: np.ndarray, reading: Reading, rate: float | None = None) -> np.ndarray:
        """A new (H', W', 3) uint8 RGB image: a reading over its (H, W, 3) uint8 RGB frame.

        H' and W' depend on the frame's size and the parts alone: a tiny frame is enlarged, and something stands beside
        it where Parts.side says so. rate: frames a second, where it is known.
        """
        parts = self.parts
        layout = Layout.of(image.shape[1], image.shape[0], side=parts.side)
        canvas = layout.canvas(hide(image, [face.box for face in reading.faces]) if parts.blur else image)
        shown = reading.faces if parts.faces == "all" else self._largest(reading)
        faces = [Face.of(face, layout, self.names) for face in shown]
        for face in reversed(faces):
            draw_heat(canvas.image, face.reading, layout.factor, layout.top)
            if parts.boxes:
                canvas.outline(face.box, layout.line, face.colour, dashed=face.reading.uncertain)
            if parts.landmarks and not parts.blur:
                radius = max(1, min(layout.line + 1, round(face.size / 45)))
                for point in face.reading.landmarks.values():
                    canvas.dot(*layout.place(*point), radius, face.colour)
        taken = [_draw_rate(canvas, layout, rate)] if parts.rate and rate is not None else []
        if parts.faces == "all":
            self._draw_all(canvas, layout, faces, taken)
        elif layout.side:
            _draw_single(canvas, layout, parts, faces[0] if faces else None)
        return canvas.image

    def _largest(self, reading: Reading) -> tuple[FaceReading, ...]:
        """The largest face alone or, so that two do not take turns, that of the frame before while nearly as large."""
        before = [face for face in reading.faces if face.track is not None and face.track == self._single]
        shown = reading.faces[:1]
        if before and _area(before[0]) * STEADY > _area(shown[0]):
            shown = (before[0],)
        self._single = shown[0].track if shown else None
        return shown

    def _draw_all(self, canvas: Canvas, layout: Layout, faces: list[Face], taken: list[Rectangle]) -> None:
        """Emoji, labels and bars, so that they cover no other face and, where there is room, not one another."""
        boxes = badges = [face.area for face in faces]
        if self.parts.emoji:
            over, alone = self.parts.blur, len(faces) == 1
            badges = [_draw_emoji(canvas, layout, face, alone=alone, over=over) for face in reversed(faces)][::-1]
            boxes = boxes + badges
        if self.parts.labels:
            for face, badge in zip(faces, badges, strict=True):
                taken.append(_draw_label(canvas, layout, face, badge, [*taken, *boxes]))
        places = {}
        if self.parts.bars:
            taken += boxes
            for face, badge in zip(faces, badges, strict=True):
                track = face.reading.track
                before = None if track is None else self._places.get(track)
                place = find_place(layout, face, badge, taken, faces=len(faces), before=before)
                if place:
                    taken.append(place.panel)
                    draw_bars(canvas, face, place)
                    if track is not None:
                        places[track] = place.name
        self._places = places


def _area(face: FaceReading) -> float:
    left, top, right, bottom = face.box
    return (right - left) * (bottom - top)


def _draw_rate(canvas: Canvas, layout: Layout, rate: float) -> Rectangle:
    plate = plate_sprite(f"{rate:.1f} fps", layout.text, DARK, WHITE, dashed=False)
    margin = layout.text // 2
    canvas.paste(plate, margin, layout.top + margin)
    return margin, layout.top + margin, margin + plate.width, layout.top + margin + plate.height


def _draw_emoji(canvas: Canvas, layout: Layout, face: Face, *, alone: bool, over: bool) -> Rectangle:
    """An emoji over the face, in the strip or at the bottom right corner of the face's box."""
    left, top, right, bottom = face.box
    if over:
        size = max(right - left, bottom - top)
        return _paste_emoji(canvas, face, size, (left + right) / 2, (top + bottom) / 2)
    if layout.side and alone:
        bars = panel_size(MAX_ROWS, layout.strip_text)[1]
        middle = layout.frame[0] + layout.side / 2
        return _paste_emoji(canvas, face, 0.6 * layout.side, middle, (bars + layout.height) / 2)
    size = min(max(0.36 * face.size, 2 * layout.small_text), min(layout.frame) / 5)
    # Moved into the frame where it would be cut.
    x = min(max(right + 0.1 * size, size / 2), layout.frame[0] - size / 2)
    y = min(max(bottom, layout.top + size / 2), layout.top + layout.frame[1] - size / 2)
    return _paste_emoji(canvas, face, size, x, y)


def _paste_emoji(canvas: Canvas, face: Face, size: float, x: float, y: float) -> Rectangle:
    """An emoji around x, y; its size in steps of a twelfth, so that one of a moving face is seldom scaled anew."""
    step = max(1, round(size / 12))
    pixels = max(1, round(size / step) * step)
    left, top = round(x - pixels / 2), round(y - pixels / 2)
    canvas.paste(emoji_sprite(face.emoji, pixels, faded=face.reading.uncertain), left, top)
    return left, top, left + pixels, top + pixels


def _draw_label(canvas: Canvas, layout: Layout, face: Face, badge: Rectangle, taken: list[Rectangle]) -> Rectangle:
    """The label on a plate: above the box, under it, under the badge of its emoji or else inside the box."""
    size = layout.text_between((face.box[3] - face.box[1]) / 9, round(1.25 * layout.text))
    text = face.text(size, layout.frame[0] - 2 * size)
    plate = plate_sprite(text, size, *face.plate, dashed=face.reading.uncertain)
    left, top, _, bottom = face.area
    left = min(max(0, left - layout.line), max(0, layout.frame[0] - plate.width))
    gap = layout.line
    tops = [top - plate.height - gap, bottom + gap, max(bottom, badge[3]) + gap, top + 2 * gap]
    places = [(left, y, left + plate.width, y + plate.height) for y in tops]
    within = [place for place in places if layout.top <= place[1] and place[3] <= layout.top + layout.frame[1]]
    free = (place for place in within if not any(overlap(place, other) for other in taken))
    place = next(free, (within or places)[-1])
    canvas.paste(plate, place[0], place[1])
    return place


def _draw_single(canvas: Canvas, layout: Layout, parts: Parts, face: Face | None) -> None:
    """The panel beside the frame: the largest face's emoji, label and bars, one under the other."""
    unit = layout.side / 24
    middle = layout.frame[0] + layout.side // 2
    if face is None:
        canvas.text("no face", round(1.6 * unit), MUTED, middle, layout.height // 2, align=0.5)
        return
    text, gap = max(MIN_TEXT, round(1.3 * unit)), 2 * unit
    heights = (17 * unit * parts.emoji, 4.5 * unit * parts.labels, ROW * text * MAX_ROWS * parts.bars)
    top = (layout.height - sum(heights) - gap * (sum(height > 0 for height in heights) - 1)) / 2
    if parts.emoji:
        _paste_emoji(canvas, face, heights[0], middle, top + heights[0] / 2)
        top += heights[0] + gap
    if parts.labels:
        size = round(2.4 * unit)
        plate = plate_sprite(face.text(size, layout.side - 2 * size), size, *face.plate, dashed=face.reading.uncertain)
        canvas.paste(plate, middle - plate.width // 2, round(top + (heights[1] - plate.height) / 2))
        top += heights[1] + gap
    if parts.bars:
        rows = min(MAX_ROWS, len(face.reading.probabilities))
        margin = round(1.5 * unit)
        area = layout.frame[0] + margin, round(top), layout.width - margin, round(top + ROW * text * rows)
        draw_rows(canvas, face, area, text, MAX_ROWS)
