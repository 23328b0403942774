"""Probability bars: where the panel of a face has room, and what is in it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from pipeline.drawing.canvas import MUTED, TRACK, WHITE, Canvas, Rectangle, fit_text, panel_sprite
from pipeline.drawing.layout import MAX_ROWS, NAME_WIDTH, PER_CENT_WIDTH, ROW, Face, Layout, overlap, panel_size

BRIEF_ROWS = 3  # in a panel that has little room
CROWD = 4  # faces; of more, only those as tall as a panel have one
MAX_COVERED = 0.3  # of a face's box may be covered by its own bars, where they fit nowhere else


@dataclass(frozen=True)
class PanelPlace:
    """name: which of a face's places it is. panel: its area. text: size of text. rows: how many."""

    name: tuple[int, int]
    panel: Rectangle
    text: int
    rows: int


def find_place(
    layout: Layout,
    face: Face,
    badge: Rectangle,
    taken: Sequence[Rectangle],
    others: Sequence[Rectangle],
    *,
    before: tuple[int, int] | None,
) -> PanelPlace | None:
    """Where the bars of a face cover nothing that is taken and touch none of the `others`; None where there is no room.

    badge: of the face's emoji. before: name of the place in the frame before, which is kept while it is free.
    """
    rows = min(MAX_ROWS, len(face.reading.probabilities))
    if len(others) >= CROWD and face.box[3] - face.box[1] < panel_size(rows, layout.small_text)[1]:
        return None
    places = list(_places(layout, face, badge, rows, alone=not others))
    for place in sorted(places, key=lambda place: place.name != before):
        left, top, right, bottom = place.panel
        around = left - layout.text, top - layout.text, right + layout.text, bottom + layout.text
        free = not any(overlap(place.panel, other) for other in taken)
        if layout.holds(place.panel) and free and not any(overlap(around, other) for other in others):
            return place
    return _inside(layout, face, taken, places[-1])


def _places(layout: Layout, face: Face, badge: Rectangle, rows: int, *, alone: bool) -> Iterator[PanelPlace]:
    """Places from the best on: beside the face, under or over it, in less and less room."""
    gap = layout.text // 2
    left, top, right, bottom = face.area
    if layout.side and alone:
        width, height = panel_size(rows, layout.strip_text)
        x = layout.frame[0] + (layout.side - width) // 2
        yield PanelPlace((0, 0), (x, gap, x + width, gap + height), layout.strip_text, rows)
    fitting = layout.text_between((bottom - top) / (rows * ROW), layout.text)
    for room, text, count in (
        (3, fitting, rows),
        (2, layout.small_text, rows),
        (1, layout.small_text, min(rows, BRIEF_ROWS)),
    ):
        width, height = panel_size(count, text)
        lowest = layout.height - height
        tops = min(max(0, top), lowest), min(max(0, bottom - height), lowest)
        beside = right + gap, max(right, badge[2]) + gap, min(left, badge[0]) - gap - width
        under = max(bottom, badge[3]) + gap
        over = top - 2 * layout.text - gap - height  # leaves room for the label
        corners = [*product(beside, tops), *product((left, right - width), (under, over))]
        if alone:  # or nobody could tell which face a panel by the frame's edge belongs to
            corners += product((layout.width - width - gap, gap), tops)
        for index, (x, y) in enumerate(corners):
            yield PanelPlace((room, index), (x, y, x + width, y + height), text, count)


def _inside(layout: Layout, face: Face, taken: Sequence[Rectangle], brief: PanelPlace) -> PanelPlace | None:
    """A brief panel in a corner of the face's box, if enough of the face is left, eyes, nose and mouth among it."""
    left, top, right, bottom = face.area
    width, height = brief.panel[2] - brief.panel[0], brief.panel[3] - brief.panel[1]
    margin = 2 * layout.line
    others = [*(other for other in taken if other != face.area), face.features(layout)]
    small = width * height <= MAX_COVERED * (right - left) * (bottom - top) and width + 2 * margin <= right - left
    corners = product((bottom - margin - height, top + margin), (left + margin, right - margin - width))
    for y, x in corners:
        panel = x, y, x + width, y + height
        if small and layout.holds(panel) and not any(overlap(panel, other) for other in others):
            return PanelPlace((0, 1), panel, brief.text, brief.rows)
    return None


def draw_bars(canvas: Canvas, face: Face, place: PanelPlace) -> None:
    left, top, right, bottom = place.panel
    pad = place.text // 2
    canvas.paste(panel_sprite(right - left, bottom - top, pad, face.colour, max(1, place.text // 9)), left, top)
    draw_rows(canvas, face, (left + 2 * pad, top + pad, right - 2 * pad, bottom - pad), place.text, place.rows)


def draw_rows(canvas: Canvas, face: Face, area: Rectangle, text: int, most: int) -> None:
    """A row a label: name, bar, per cent."""
    left, top, right, bottom = area
    rows = face.rows(most)
    begin, end = left + round(NAME_WIDTH * text), right - round(PER_CENT_WIDTH * text)
    for index, (label, probability) in enumerate(rows.items()):
        middle = top + round((index + 0.5) * (bottom - top) / len(rows))
        strong = label == face.reading.label
        colour = WHITE if strong else MUTED
        half = round(text * (0.42 if strong else 0.3))
        name = fit_text(face.name(label), text, begin - left - text // 3)
        length = round(min(max(0.0, probability), 1.0) * (end - begin))
        canvas.text(name, text, colour, left, middle)
        canvas.fill((begin, middle - half, end, middle + half), TRACK)
        canvas.fill((begin, middle - half, begin + length, middle + half), face.palette[label])
        canvas.text(f"{probability:.0%}", text, colour, right, middle, align=1)
