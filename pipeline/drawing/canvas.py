"""An image to draw on: boxes, and sprites of text, plates and emoji that are rendered once and then only blended in."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import cast

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pipeline.drawing import emoji
from pipeline.drawing.palette import rgb

DARK = "#101014"  # of panels, and of the plates under uncertain labels
PANEL_OPACITY = 0.8
TRACK = "#43434D"  # of a bar's full length
WHITE, MUTED = "#FFFFFF", "#D2D2DA"  # ink on panels
ELLIPSIS = "…"
DEJAVU = Path(__file__).parent / "fonts" / "DejaVuSans.ttf"
SMOOTHING = 4  # times finer are shapes drawn than shown

Rectangle = tuple[int, int, int, int]  # left, top, right, bottom; right and bottom lie outside


@dataclass(frozen=True, eq=False)
class Sprite:
    """colour: (H, W, 3) uint8, red, green, blue times alpha. keep: (H, W, 3) uint8, 255 less alpha: of the ground."""

    colour: np.ndarray
    keep: np.ndarray

    @property
    def height(self) -> int:
        return len(self.colour)

    @property
    def width(self) -> int:
        return self.colour.shape[1]


class Canvas:
    """Draws on (H, W, 3) uint8 RGB in place; what lies outside of it is cut off."""

    def __init__(self, image: np.ndarray) -> None:
        self.image = image
        self.height, self.width = image.shape[:2]

    def paste(self, sprite: Sprite, left: int, top: int) -> None:
        """Blend a sprite in, its top left pixel at left, top."""
        x, y = max(0, left), max(0, top)
        right, bottom = min(self.width, left + sprite.width), min(self.height, top + sprite.height)
        if x >= right or y >= bottom:
            return
        rows, columns = slice(y - top, bottom - top), slice(x - left, right - left)
        ground = self.image[y:bottom, x:right]
        shaded = cv2.multiply(ground, sprite.keep[rows, columns], scale=1 / 255)
        ground[:] = cv2.add(shaded, sprite.colour[rows, columns])

    def text(self, text: str, size: int, colour: str, x: int, middle: int, *, align: float = 0) -> None:
        """A line of text around height `middle`; at x it begins (align 0), has its centre (0.5) or ends (1)."""
        sprite = text_sprite(text, size, colour)
        self.paste(sprite, x - round(align * sprite.width), middle - sprite.height // 2)

    def fill(self, rectangle: Rectangle, colour: str) -> None:
        left, top, right, bottom = rectangle
        if left < right and top < bottom:
            cv2.rectangle(self.image, (left, top), (right - 1, bottom - 1), rgb(colour), cv2.FILLED)

    def outline(self, box: tuple[float, float, float, float], width: int, colour: str, *, dashed: bool) -> None:
        """A box of round corners in `colour` between dark edges, so that it stands out on any ground."""
        path = _rounded(box, 4 * width)
        lines = _dashes(path, 5 * width) if dashed else [path]
        # OpenCV takes whole numbers: eighths of a pixel, so that a box moves smoothly.
        points = [np.rint(line * 8).astype(np.int32) for line in lines]
        for thickness, ink in ((width + 2, DARK), (width, colour)):
            cv2.polylines(self.image, points, not dashed, rgb(ink), thickness, cv2.LINE_AA, shift=3)

    def dot(self, x: float, y: float, radius: int, colour: str) -> None:
        centre = (round(x * 8), round(y * 8))
        for size, ink in ((radius + 1, DARK), (radius, colour)):
            cv2.circle(self.image, centre, size * 8, rgb(ink), -1, cv2.LINE_AA, shift=3)


def _rounded(box: tuple[float, float, float, float], radius: float) -> np.ndarray:
    """(n, 2) points around a rectangle of round corners, clockwise from the top edge's left."""
    left, top, right, bottom = box
    radius = max(0.0, min(radius, (right - left) / 2, (bottom - top) / 2))
    angles = np.linspace(0, np.pi / 2, 5)
    corners = []
    for x, y, turn in (
        (right - radius, top + radius, -np.pi / 2),
        (right - radius, bottom - radius, 0),
        (left + radius, bottom - radius, np.pi / 2),
        (left + radius, top + radius, np.pi),
    ):
        corners.append(np.stack([x + radius * np.cos(angles + turn), y + radius * np.sin(angles + turn)], axis=1))
    return np.concatenate(corners)


def _dashes(path: np.ndarray, length: float) -> list[np.ndarray]:
    """A closed path in dashes of about `length`, with gaps of about as much between them."""
    closed = np.concatenate([path, path[:1]])
    along = np.concatenate([[0], np.hypot(*np.diff(closed, axis=0).T).cumsum()])
    count = max(1, round(along[-1] / (2 * length)))
    dashes = []
    for begin in np.arange(count) * along[-1] / count:
        end = begin + along[-1] / count / 2
        stops = np.concatenate([[begin], along[(along > begin) & (along < end)], [end]])
        dashes.append(np.stack([np.interp(stops, along, closed[:, axis]) for axis in (0, 1)], axis=1))
    return dashes


@lru_cache(maxsize=1024)
def text_sprite(text: str, size: int, colour: str) -> Sprite:
    """A line of text, as high as the tallest letters at this size in pixels."""
    font = _font_for(text, size)
    ascent, descent = font.getmetrics()
    mask = Image.new("L", (max(1, round(font.getlength(text) + 0.5)), ascent + descent))
    ImageDraw.Draw(mask).text((0, mask.height / 2), text, 255, font, anchor="lm")
    return _tinted(np.asarray(mask), colour)


@lru_cache(maxsize=128)
def plate_sprite(text: str, size: int, colour: str, ink: str, *, dashed: bool) -> Sprite:
    """Text on a plate of round corners; one with a dashed edge in `ink` stands for what is not sure."""
    label = text_sprite(text, size, ink)
    pad = max(3, size // 3)
    sprite = Canvas(np.zeros((size + 2 * (pad // 2) + 4, label.width + 2 * pad, 3), np.uint8))
    radius = max(2, size // 4)
    keep = 255 - _rounded_mask(sprite.width, sprite.height, radius)
    edge = max(1, size // 14)
    sprite.image[:] = rgb(colour)
    if dashed:
        inner = (edge, edge, sprite.width - 1 - edge, sprite.height - 1 - edge)
        points = [np.rint(line * 8).astype(np.int32) for line in _dashes(_rounded(inner, radius), 4 + 2 * edge)]
        cv2.polylines(sprite.image, points, False, rgb(ink), edge, cv2.LINE_AA, shift=3)
    sprite.paste(label, pad, (sprite.height - label.height) // 2)
    shade = np.repeat(keep[..., None], 3, axis=2)
    return Sprite(cv2.multiply(sprite.image, 255 - shade, scale=1 / 255), shade)


@lru_cache(maxsize=32)
def panel_sprite(width: int, height: int, radius: int, edge: str, line: int) -> Sprite:
    """The dark ground of a panel, which lets a little shine through, in a frame of the colour `edge`."""
    outer = _rounded_mask(width, height, radius) / 255
    inner = np.zeros_like(outer)
    if width > 2 * line and height > 2 * line:
        inner[line:-line, line:-line] = _rounded_mask(width - 2 * line, height - 2 * line, max(1, radius - line)) / 255
    ground = inner[..., None] * PANEL_OPACITY
    frame = (outer - inner)[..., None].clip(0, 1)
    colour = ground * rgb(DARK) + frame * rgb(edge)
    keep = np.repeat(1 - ground - frame, 3, axis=2)
    return Sprite(np.rint(colour).astype(np.uint8), np.rint(keep * 255).astype(np.uint8))


@lru_cache(maxsize=48)
def emoji_sprite(name: str, size: int, *, faded: bool) -> Sprite:
    """An emoji of pipeline.drawing.emoji; faded, in grey, for an expression that is not sure."""
    picture = emoji.picture(name, size)
    colour, alpha = picture[..., :3], picture[..., 3:]
    if faded:
        grey = colour @ np.array([0.299, 0.587, 0.114])
        colour = np.repeat(np.rint(grey).astype(np.uint8)[..., None], 3, axis=2)
    return Sprite(np.ascontiguousarray(colour), np.repeat(255 - alpha, 3, axis=2))


@lru_cache(maxsize=1024)
def fit_text(text: str, size: int, width: int) -> str:
    """The text, or as much of its beginning as fits into `width` pixels, with an ellipsis."""
    if text_width(text, size) <= width:
        return text
    kept = len(text)
    while kept and text_width(text[:kept] + ELLIPSIS, size) > width:
        kept -= 1
    return text[:kept] + ELLIPSIS


def text_width(text: str, size: int) -> int:
    return round(_font_for(text, size).getlength(text) + 0.5)


def _tinted(mask: np.ndarray, colour: str) -> Sprite:
    alpha = np.repeat(mask[..., None], 3, axis=2)
    return Sprite(np.rint(alpha * (np.array(rgb(colour)) / 255)).astype(np.uint8), 255 - alpha)


@lru_cache(maxsize=16)
def _rounded_mask(width: int, height: int, radius: int) -> np.ndarray:
    large = Image.new("L", (width * SMOOTHING, height * SMOOTHING))
    ImageDraw.Draw(large).rounded_rectangle((0, 0, large.width - 1, large.height - 1), radius * SMOOTHING, 255)
    return np.asarray(large.reduce(SMOOTHING))


def _font_for(text: str, size: int) -> ImageFont.FreeTypeFont:
    """Aileron, which Pillow carries; for letters that it lacks DejaVu Sans, which has more."""
    return _font("Aileron" if text.replace(ELLIPSIS, "").isascii() else "DejaVu Sans", size)


@lru_cache(maxsize=64)
def _font(name: str, size: int) -> ImageFont.FreeTypeFont:
    if name == "Aileron":
        return cast("ImageFont.FreeTypeFont", ImageFont.load_default(size))
    return ImageFont.truetype(DEJAVU, size)
