"""What the window says over the picture: that it records or is paused, what a key did, and which keys there are."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2

from pipeline.drawing.canvas import (
    DARK,
    MUTED,
    TRACK,
    WHITE,
    Canvas,
    fit_text,
    panel_sprite,
    plate_sprite,
    text_sprite,
    text_width,
)
from pipeline.drawing.palette import COLOURS

RED = "#E5383B"  # of the dot that stands for recording
ON = COLOURS["disgust"]  # Okabe and Ito's green
DOT_ROOM = "      "  # spaces before a text, where the dot stands
DIMMED = 0.4  # of its brightness is left to the picture behind the help
KEY_CAP = "#34343E"
TEXT_SHARE = 1 / 38  # of the window's shorter side
TEXT_SIZES = (12, 26)  # pixels, at least and at most


@dataclass(frozen=True)
class HelpRow:
    """A line of the help: keys and what they do; on: the state of what they switch."""

    keys: tuple[str, ...]
    text: str
    on: bool | None = None


class Hints:
    """Draws on a canvas of the window's size."""

    def __init__(self, canvas: Canvas) -> None:
        self.canvas = canvas
        self.size = round(min(max(min(canvas.width, canvas.height) * TEXT_SHARE, TEXT_SIZES[0]), TEXT_SIZES[1]))
        self.gap = self.size // 2

    def marks(self, texts: Sequence[tuple[str, bool]]) -> None:
        """Plates in the top right corner, one below the other: a text, and whether a red dot stands before it."""
        top = self.gap
        for text, dot in texts:
            plate = plate_sprite((DOT_ROOM if dot else "") + text, self.size, DARK, WHITE, dashed=False)
            left = self.canvas.width - plate.width - self.gap
            self.canvas.paste(plate, left, top)
            if dot:
                self.canvas.dot(left + 0.9 * self.size, top + plate.height / 2 - 0.5, round(0.34 * self.size), RED)
            top += plate.height + self.gap // 2

    def message(self, text: str) -> None:
        """A plate in the middle of the lower edge."""
        text = fit_text(text, self.size, self.canvas.width - 4 * self.gap)
        plate = plate_sprite(text, self.size, DARK, WHITE, dashed=False)
        self.canvas.paste(
            plate, (self.canvas.width - plate.width) // 2, self.canvas.height - plate.height - 2 * self.gap
        )

    def help(self, title: str, columns: Sequence[Sequence[HelpRow]]) -> None:
        """A panel in the middle with the keys, in columns side by side or, in a narrow window, below one another."""
        size = self.size
        keys = [max(sum(self._cap_width(key) for key in row.keys) for row in column) for column in columns]
        widths = [
            cap + self.gap + max(text_width(row.text, size) + (0 if row.on is None else 3 * size) for row in column)
            for cap, column in zip(keys, columns, strict=True)
        ]
        pad, between, line = 2 * size, 3 * size, round(1.9 * size)
        beside = sum(widths) + between * (len(columns) - 1) + 2 * pad <= self.canvas.width
        rows = max(map(len, columns)) if beside else sum(map(len, columns))
        width = (sum(widths) + between * (len(columns) - 1) if beside else max(widths)) + 2 * pad
        height = rows * line + round(1.5 * pad) + 2 * size
        left, top = (self.canvas.width - width) // 2, max(0, (self.canvas.height - height) // 2)
        self.canvas.image[:] = cv2.convertScaleAbs(self.canvas.image, alpha=DIMMED)
        self.canvas.paste(panel_sprite(width, height, size, TRACK, 1), left, top)
        self.canvas.text(title, round(1.25 * size), WHITE, left + pad, top + pad + size // 4)
        x, first = left + pad, top + pad + 2 * size + line // 2
        y = first
        for cap, column_width, column in zip(keys, widths, columns, strict=True):
            for row in column:
                self._row(row, x, y, cap, column_width)
                y += line
            if beside:
                x, y = x + column_width + between, first

    def _row(self, row: HelpRow, x: int, middle: int, caps: int, width: int) -> None:
        left = x
        for key in row.keys:
            cap = plate_sprite(key, self.size - 1, KEY_CAP, WHITE, dashed=False)
            self.canvas.paste(cap, left, middle - cap.height // 2)
            left += self._cap_width(key)
        off = row.on is False
        self.canvas.text(row.text, self.size, MUTED if off else WHITE, x + caps + self.gap, middle)
        if row.on is not None:
            state = "on" if row.on else "off"
            right = x + width
            sprite = text_sprite(state, self.size - 1, ON if row.on else MUTED)
            self.canvas.paste(sprite, right - round(1.6 * self.size), middle - sprite.height // 2)

    def _cap_width(self, key: str) -> int:
        return plate_sprite(key, self.size - 1, KEY_CAP, WHITE, dashed=False).width + self.gap // 2
