"""A legend that names the emoji of a picture, for faces beside which a label has no room."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.drawing.canvas import (
    DARK,
    MUTED,
    WHITE,
    Canvas,
    Rectangle,
    Sprite,
    emoji_sprite,
    panel_sprite,
    plate_sprite,
)
from pipeline.drawing.layout import MIN_TEXT, Face, Layout
from pipeline.drawing.palette import ink

STEP = 4  # pixels from one place that is looked at to the next
NEVER = 1e6  # what covering a cell of eyes, nose or mouth costs; one of a box costs 1
KEPT = -1.0  # what the place of the frame before costs: less than any other
BADGE = 3  # the same of an emoji, beside what its face's box costs
UNCERTAIN = "?"  # as in labels


@dataclass(frozen=True)
class Legend:
    """entries: an emoji and its name each. columns: how many stand side by side. area: where on the canvas it is."""

    entries: list[tuple[Sprite, Sprite]]
    columns: int
    area: Rectangle

    def draw(self, canvas: Canvas) -> None:
        left, top, right, bottom = self.area
        height = self.entries[0][1].height
        pad = height // 4
        canvas.paste(panel_sprite(right - left, bottom - top, pad, MUTED, 1), left, top)
        width = (right - left - 2 * pad) // self.columns
        for index, (emoji, name) in enumerate(self.entries):
            x, y = left + pad + index % self.columns * width, top + pad + index // self.columns * (height + pad)
            canvas.paste(emoji, x, y)
            canvas.paste(name, x + height + 2, y)


def find_legend(
    layout: Layout, faces: Sequence[Face], badges: Sequence[Rectangle], before: Rectangle | None
) -> Legend | None:
    """The legend of the faces' emoji where it covers no eyes, nose or mouth and the least of boxes and `badges`.

    It is in larger text where it covers none of these at all. before: where it was in the last frame; it stays there
    while it may. None where there is no such place.
    """
    costs = _costs(layout, faces, badges)
    best: tuple[float, Legend] | None = None
    for text in (layout.small_text, MIN_TEXT):
        entries = _entries(faces, text)
        for columns in sorted({-(-len(entries) // rows) for rows in range(1, len(entries) + 1)}, reverse=True):
            found = _place(layout, costs, *_size(entries, columns), before)
            if found and (best is None or found[0] < best[0]):
                best = found[0], Legend(entries, columns, found[1])
        if best and best[0] <= 0:
            break
    return best[1] if best else None


def _entries(faces: Sequence[Face], text: int) -> list[tuple[Sprite, Sprite]]:
    """Of each expression that a face has, in the model's order, and of uncertain ones if there are any."""
    shown = {face.reading.label: face for face in faces}
    doubted = next((face for face in faces if face.reading.uncertain), None)
    entries = []
    for label in [label for label in faces[0].reading.probabilities if label in shown]:
        colour = shown[label].colour
        name = plate_sprite(shown[label].name(label), text, colour, ink(colour), dashed=False)
        entries.append((emoji_sprite(shown[label].emoji, name.height, faded=False), name))
    if doubted:
        name = plate_sprite(UNCERTAIN, text, DARK, WHITE, dashed=True)
        entries.append((emoji_sprite(doubted.emoji, name.height, faded=True), name))
    return entries


def _size(entries: list[tuple[Sprite, Sprite]], columns: int) -> tuple[int, int]:
    """Width and height of the panel."""
    height = entries[0][1].height
    pad, rows = height // 4, -(-len(entries) // columns)
    width = height + 2 + max(name.width for _, name in entries) + pad
    return columns * width + 2 * pad, rows * (height + pad) + pad


def _costs(layout: Layout, faces: Sequence[Face], badges: Sequence[Rectangle]) -> np.ndarray:
    """Sums of what covering the frame's cells costs, from its top left corner to each cell: (rows + 1, columns + 1)."""
    width, height = layout.frame
    costs = np.zeros((height // STEP + 1, width // STEP + 1))
    areas = [(face.area, 1.0) for face in faces] + [(badge, BADGE) for badge in badges]
    for (left, top, right, bottom), cost in [*areas, *((face.features(layout), NEVER) for face in faces)]:
        rows = slice(max(0, top - layout.top) // STEP + 1, max(0, bottom - layout.top + STEP - 1) // STEP + 1)
        costs[rows, max(0, left) // STEP + 1 : max(0, right + STEP - 1) // STEP + 1] += cost
    return costs.cumsum(axis=0).cumsum(axis=1)


def _place(
    layout: Layout, costs: np.ndarray, width: int, height: int, before: Rectangle | None
) -> tuple[float, Rectangle] | None:
    """The cost and the area of the place for a panel of this size, the lowest of the best."""
    rows, columns = -(-height // STEP), -(-width // STEP)
    if rows >= costs.shape[0] or columns >= costs.shape[1]:
        return None
    there = costs[rows:, columns:] - costs[:-rows, columns:] - costs[rows:, :-columns] + costs[:-rows, :-columns]
    if before and (before[2] - before[0], before[3] - before[1]) == (width, height):
        row, column = (before[1] - layout.top) // STEP, before[0] // STEP
        if row < there.shape[0] and column < there.shape[1] and there[row, column] < NEVER:
            return KEPT, before
    flat = there.size - 1 - int(there[::-1, ::-1].argmin())
    row, column = divmod(flat, there.shape[1])
    if there[row, column] >= NEVER:
        return None
    left, top = column * STEP, layout.top + row * STEP
    return round(float(there[row, column]), 6), (left, top, left + width, top + height)
