"""Draws readings over frames: boxes, landmarks, labels, probability bars and emoji, legible on any frame."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import numpy as np

from pipeline.drawing.bars import draw_bars, draw_rows, find_place
from pipeline.drawing.blur import hide_faces
from pipeline.drawing.canvas import DARK, MUTED, WHITE, Canvas, Rectangle, Sprite, emoji_sprite, plate_sprite
from pipeline.drawing.heat import draw_heat
from pipeline.drawing.layout import MAX_ROWS, MIN_TEXT, ROW, Face, Layout, overlap, panel_size
from pipeline.drawing.legend import find_legend
from pipeline.readings import FaceReading, Reading

MIN_EMOJI = 18  # pixels, across
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

    def __init__(
        self, parts: Parts = Parts(), names: Mapping[str, str] = MappingProxyType({}), *, own_size: bool = False
    ) -> None:
        """names: of labels that are not to be drawn as the model calls them, as in another language. own_size: a small
        frame is not enlarged, whatever can then not be told.
        """
        self.parts = parts
        self.own_size = own_size
        self.names = names
        self._places: dict[int, tuple[int, int]] = {}  # of bars, by the face's track
        self._single: int | None = None  # track
        self._legend: Rectangle | None = None  # where it was in the frame before

    def draw(self, image: np.ndarray, reading: Reading, rate: float | None = None) -> np.ndarray:
        """A new (H', W', 3) uint8 RGB image: a reading over its (H, W, 3) uint8 RGB frame.

        H' and W' depend on the frame's size and the parts alone: a tiny frame is enlarged unless it keeps its own_size,
        and something stands beside it where Parts.side says so. rate: frames a second, where it is known.
        """
        parts = self.parts
        layout = Layout.of(image.shape[1], image.shape[0], side=parts.side, own_size=self.own_size)
        canvas = layout.canvas(hide_faces(image, [face.box for face in reading.faces]) if parts.blur else image)
        shown = reading.faces if parts.faces == "all" else self._largest(reading)
        faces = [Face.of(face, layout, self.names) for face in shown]
        for face in reversed(faces):
            draw_heat(canvas.image, face.reading, layout.factor, layout.top)
            if parts.boxes:
                line = min(layout.line, max(1, round(face.size / 24)))
                canvas.outline(face.box, line, face.colour, dashed=face.doubtful)
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
        """Emoji, labels and bars, so that they cover no other face and not one another.

        Where a label has no room the emoji stands for it, which a legend names, and bars are left out.
        """
        boxes = badges = [face.area for face in faces]
        if self.parts.emoji:
            over, alone = self.parts.blur, len(faces) == 1
            badges = [
                _draw_emoji(canvas, layout, face, [box for box in boxes if box != face.area], alone=alone, over=over)
                for face in reversed(faces)
            ][::-1]
            boxes = boxes + badges
        if self.parts.labels:
            taken += self._draw_labels(canvas, layout, faces, badges, [*taken, *boxes])
        places = {}
        if self.parts.bars:
            taken += boxes
            for face, badge in zip(faces, badges, strict=True):
                track = face.reading.track
                before = None if track is None else self._places.get(track)
                others = [other.area for other in faces if other is not face]
                found = find_place(layout, face, badge, taken, others, before=before)
                if found:
                    taken.append(found.panel)
                    draw_bars(canvas, face, found)
                    if track is not None:
                        places[track] = found.name
        self._places = places

    def _draw_labels(
        self, canvas: Canvas, layout: Layout, faces: list[Face], badges: list[Rectangle], taken: list[Rectangle]
    ) -> list[Rectangle]:
        """Labels and, where one has no room beside an emoji, the legend. Returns what they cover."""
        needed = not self.parts.emoji
        labels = _place_labels(layout, faces, badges, taken, needed=needed)
        legend = None
        if any(label is None for label in labels):
            legend = find_legend(layout, faces, badges, self._legend)
        self._legend = legend.area if legend else None
        if legend:
            labels = _place_labels(layout, faces, badges, [*taken, legend.area], needed=needed)
            legend.draw(canvas)
        for label in labels:
            if label:
                canvas.paste(label[0], *label[1][:2])
        return [label[1] for label in labels if label] + ([legend.area] if legend else [])


def _area(face: FaceReading) -> float:
    left, top, right, bottom = face.box
    return (right - left) * (bottom - top)


def _draw_rate(canvas: Canvas, layout: Layout, rate: float) -> Rectangle:
    plate = plate_sprite(f"{rate:.1f} fps", layout.text, DARK, WHITE, dashed=False)
    margin = layout.text // 2
    canvas.paste(plate, margin, layout.top + margin)
    return margin, layout.top + margin, margin + plate.width, layout.top + margin + plate.height


def _draw_emoji(
    canvas: Canvas, layout: Layout, face: Face, others: list[Rectangle], *, alone: bool, over: bool
) -> Rectangle:
    """An emoji over the face, in the strip or at the bottom right corner of the face's box: inside it where it would
    otherwise lie over one of the `others`.
    """
    left, top, right, bottom = face.box
    if over:
        size = max(right - left, bottom - top)
        return _paste_emoji(canvas, face, size, (left + right) / 2, (top + bottom) / 2)
    if layout.side and alone:
        bars = panel_size(MAX_ROWS, layout.strip_text)[1]
        middle = layout.frame[0] + layout.side / 2
        return _paste_emoji(canvas, face, 0.6 * layout.side, middle, (bars + layout.height) / 2)
    least = min(2 * layout.small_text, max(MIN_EMOJI, 0.45 * face.size))
    size = min(max(0.36 * face.size, least), min(layout.frame) / 5)
    x, y = right + 0.1 * size, bottom
    around = round(x - size / 2), round(y - size / 2), round(x + size / 2), round(y + size / 2)
    if any(overlap(around, other) for other in others):
        size = min(size, 0.3 * face.size)
        x, y = right - size / 2, bottom - size / 2
    # Moved into the frame where it would be cut.
    x = min(max(x, size / 2), layout.frame[0] - size / 2)
    y = min(max(y, layout.top + size / 2), layout.top + layout.frame[1] - size / 2)
    return _paste_emoji(canvas, face, size, x, y)


def _paste_emoji(canvas: Canvas, face: Face, size: float, x: float, y: float) -> Rectangle:
    """An emoji around x, y; its size in steps of a twelfth, so that one of a moving face is seldom scaled anew."""
    step = max(1, round(size / 12))
    pixels = max(1, round(size / step) * step)
    left, top = round(x - pixels / 2), round(y - pixels / 2)
    canvas.paste(emoji_sprite(face.emoji, pixels, faded=face.reading.uncertain), left, top)
    return left, top, left + pixels, top + pixels


def _place_labels(
    layout: Layout, faces: list[Face], badges: list[Rectangle], taken: list[Rectangle], *, needed: bool
) -> list[tuple[Sprite, Rectangle] | None]:
    """The label of each face and its place, where none covers another or what is taken; None where one has no room."""
    taken = list(taken)
    labels = []
    for face, badge in zip(faces, badges, strict=True):
        label = _place_label(layout, face, badge, taken, needed=needed)
        labels.append(label)
        taken += [label[1]] if label else []
    return labels


def _place_label(
    layout: Layout, face: Face, badge: Rectangle, taken: list[Rectangle], *, needed: bool
) -> tuple[Sprite, Rectangle] | None:
    """The label on a plate: above the box, under it, under the badge of its emoji or else inside the box.

    It is as large as the face allows, or smaller. None where it would cover what is taken or the face's features even
    so, unless it is needed: then it is cut to the face's width.
    """
    room = layout.frame[0]
    size = layout.label_text(face.box[3] - face.box[1])
    width = face.area[2] - face.area[0]
    forms = [
        (size, face.text(size, room - 2 * size)),
        (size, face.text(size, room - 2 * size, conditions=False)),
        (MIN_TEXT, face.text(MIN_TEXT, room - 2 * MIN_TEXT, conditions=False)),
    ]
    if needed:
        forms.append((MIN_TEXT, face.text(MIN_TEXT, width - MIN_TEXT, conditions=False)))
    features = face.features(layout)
    own = [other for other in taken if other != face.area]
    for size, text in forms:
        plate = plate_sprite(text, size, *face.plate, dashed=face.reading.uncertain)
        *outside, inside = _label_places(layout, face, badge, plate.width, plate.height)
        for place, covered in [*((place, taken) for place in outside), (inside, [*own, features])]:
            if (
                place[0] >= 0
                and place[2] <= room
                and layout.top <= place[1]
                and (place[3] <= layout.top + layout.frame[1])
                and not any(overlap(place, other) for other in covered)
            ):
                return plate, place
    return (plate, inside) if needed else None


def _label_places(layout: Layout, face: Face, badge: Rectangle, width: int, height: int) -> list[Rectangle]:
    """Above the box, under it, under the badge, inside the box."""
    left, top, _, bottom = face.area
    left = min(max(0, left - layout.line), max(0, layout.frame[0] - width))
    gap = layout.line
    tops = [top - height - gap, bottom + gap, max(bottom, badge[3]) + gap]
    inside = min(max(top + 2 * gap, layout.top), layout.top + layout.frame[1] - height)
    return [(left, y, left + width, y + height) for y in (*tops, inside)]


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
