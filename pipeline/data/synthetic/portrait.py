"""Draws a face: a person under action units is modelled as a relief with an albedo, lit, turned and pictured.

Lengths are in units of half a face's width (about 70 mm), u to the right and v down from the point between the eyes,
as one looks at the picture. The proportions start from the averages of Farkas, "Anthropometry of the Head and Face"
(1994); eyes and lips are a little larger, so that they can be read in 48 pixels.
"""

from dataclasses import dataclass
from functools import cache
from typing import Self

import cv2
import numpy as np

from pipeline.data.labels import IMAGE_SHAPE
from pipeline.data.synthetic.action_units import Measures, measures

Plane = np.ndarray  # (height, width) float32
Points = np.ndarray  # (n, 2): u, v

PITCH = 44  # pixels of the relief per half face width: about 2.7 per pixel of the picture
LEFT, TOP, RIGHT, BOTTOM = -1.8, -1.75, 1.8, 2.4
SUPERSAMPLING = 3


@dataclass
class Identity:
    """One person: tones in 0..1, lengths in half face widths, the rest relative to the average."""

    skin: float
    hair_tone: float
    hair: str  # bald, receding, short, parted, fringe, long or curly
    beard: float  # 0 none .. 1 full
    moustache: float
    glasses: str  # none, round or square
    age: float  # 0 smooth .. 1 deeply lined
    make_up: float
    width: float
    jaw_width: float
    chin: float
    eye_distance: float
    eye_size: float
    eye_tilt: float
    iris: float
    brow_thickness: float
    brow_height: float
    nose_length: float
    nose_width: float
    mouth_width: float
    mouth_height: float
    lip_fullness: float


@dataclass
class View:
    """How a head is pictured: angles in radians, sizes in pixels of the 48, grey levels of 255."""

    yaw: float
    pitch: float
    roll: float
    scale: float  # pixels per half face width
    shift: tuple[float, float]
    gaze: tuple[float, float]  # turn of the eyes, right and down, -1..1
    light: tuple[float, float]  # slope of its direction, from the right and from below
    ambient: float
    blur: float
    noise: float
    contrast: float
    brightness: float


class Relief:
    """A head from the front, or a window of it: albedo 0..1, height in half face widths, cover of the ground 0..1."""

    def __init__(self, layers: np.ndarray, left: float, top: float) -> None:
        """layers: (4, height, width); left, top: where its corner lies."""
        self.layers, self.left, self.top = layers, left, top
        # unlit: 1 where the height does not tell the shape, in eyes and open mouths
        self.albedo, self.height, self.cover, self.unlit = layers
        self.u = (np.arange(layers.shape[2], dtype=np.float32) + 0.5)[None] / PITCH + left
        self.v = (np.arange(layers.shape[1], dtype=np.float32) + 0.5)[:, None] / PITCH + top

    @classmethod
    def blank(cls) -> Self:
        return cls(np.zeros((4, round((BOTTOM - TOP) * PITCH), round((RIGHT - LEFT) * PITCH)), np.float32), LEFT, TOP)

    def window(self, left: float, top: float, right: float, bottom: float) -> "Relief":
        """The same head between these bounds: what is drawn there is drawn here, sooner."""
        x = max(0, int((left - self.left) * PITCH))
        y = max(0, int((top - self.top) * PITCH))
        x_end, y_end = int((right - self.left) * PITCH) + 1, int((bottom - self.top) * PITCH) + 1
        return Relief(self.layers[:, y:y_end, x:x_end], self.left + x / PITCH, self.top + y / PITCH)

    def around(self, lines: list[Points], margin: float) -> "Relief":
        """The window that holds these lines."""
        points = np.concatenate(lines)
        return self.window(*(points.min(0) - margin), *(points.max(0) + margin))

    def fill(self, outline: Points) -> Plane:
        """Cover 0..1 of an outline's inside."""
        mask = np.zeros(self.albedo.shape, np.uint8)
        cv2.fillPoly(mask, [self._sixteenths(outline)], 255, cv2.LINE_AA, shift=4)
        return mask * np.float32(1 / 255)

    def stroke(self, lines: list[Points], width: float) -> Plane:
        """Cover 0..1 of lines."""
        mask = np.zeros(self.albedo.shape, np.uint8)
        thickness = max(1, round(width * PITCH))
        cv2.polylines(mask, [self._sixteenths(line) for line in lines], False, 255, thickness, cv2.LINE_AA, shift=4)
        return mask * np.float32(1 / 255)

    def _sixteenths(self, points: Points) -> np.ndarray:
        """Pixels, as OpenCV's `shift=4` takes them."""
        return np.round(((points - (self.left, self.top)) * PITCH - 0.5) * 16).astype(np.int32)

    def bump(self, u: float, v: float, across: float, along: float) -> Plane:
        """A Gaussian of height 1 with these standard deviations."""
        return np.exp(-0.5 * ((self.v - v) / along) ** 2) * np.exp(-0.5 * ((self.u - u) / across) ** 2)

    def paint(self, mask: Plane, tone: float | Plane, opacity: float = 1) -> None:
        """Lay `tone` over the albedo where `mask` (0..1) is."""
        self.albedo += (mask * opacity) * (tone - self.albedo)

    def darken(self, mask: Plane, amount: float) -> None:
        self.albedo *= 1 - amount * mask

    def raise_by(self, u: float, v: float, across: float, along: float, amount: float) -> None:
        """Add a bump, or a hollow where `amount` is negative."""
        part = self.window(u - 3 * across, v - 3 * along, u + 3 * across, v + 3 * along)
        part.height += part.bump(u, v, across, along) * np.float32(amount)

    def fold(self, lines: list[Points], depth: float, width: float = 0.03) -> None:
        """Press creases in; light then shades their sides."""
        if depth > 0.02:
            part = self.around(lines, 4 * width)
            crease = blur(part.stroke(lines, width), width)
            part.height -= crease * np.float32(0.12 * depth)
            part.darken(crease, 0.4 * min(depth, 1.3))


def blur(image: Plane, deviation: float) -> Plane:
    """Smooth by a standard deviation in half face widths."""
    return cv2.GaussianBlur(image, (0, 0), deviation * PITCH)


@cache
def _spline_basis(count: int, steps: int) -> Points:
    """Weights of `count` points (columns) in the points of a uniform Catmull-Rom curve through them (rows)."""
    basis = np.zeros(((count - 1) * steps + 1, count))
    for row, t in enumerate(np.linspace(0, count - 1, len(basis))):
        k = min(int(t), count - 2)
        x = t - k
        weights = (-x + 2 * x**2 - x**3, 2 - 5 * x**2 + 3 * x**3, x + 4 * x**2 - 3 * x**3, x**3 - x**2)
        for j, weight in zip((k - 1, k, k + 1, k + 2), weights, strict=True):
            basis[row, min(max(j, 0), count - 1)] += weight / 2
    return basis


def curve(*points: tuple[float, float]) -> Points:
    """A smooth line through the points."""
    return _spline_basis(len(points), 6) @ np.array(points)


def mirrored(line: Points, side: int) -> Points:
    """A line of the picture's right half, on `side` (-1 or 1)."""
    return line * (side, 1)


def closed(right: Points) -> Points:
    """An outline from its right half, top to bottom."""
    return np.concatenate([right, right[::-1] * (-1, 1)])


def draw_relief(
    person: Identity, units: dict[int, float], gaze: tuple[float, float], rng: np.random.Generator
) -> Relief:
    """Model a person's head under action units, {number: intensity}; `gaze` as in View."""
    moved = measures(units)
    relief = Relief.blank()
    _draw_behind(relief, person, rng)
    _draw_head(relief, person, moved, rng)
    _draw_nose(relief, person, moved)
    _draw_cheeks(relief, person, moved)
    _draw_forehead(relief, person, moved)
    _draw_beard(relief, person, moved, rng)
    _draw_mouth(relief, person, moved)
    for side in (-1, 1):
        _draw_eye(relief, person, moved, side, gaze)
        _draw_brow(relief, person, moved, side)
    _draw_hair(relief, person, rng)
    return relief


def _draw_behind(relief: Relief, person: Identity, rng: np.random.Generator) -> None:
    """Neck, clothes, and what hair falls behind them."""
    if person.hair in ("long", "curly"):
        end = 2.5 if person.hair == "long" else 1.2
        right = curve((0, -1.7), (0.8, -1.5), (1.2, -0.6), (1.27, 0.4), (1.2, 0.7 * end), (1, end), (0, end))
        back = relief.fill(closed(right))
        relief.paint(back, 0.7 * _strands(relief, person, rng))
        np.maximum(relief.cover, back, out=relief.cover)
    throat = curve((0, 0.6), (0.62, 0.8), (0.62, 1.6), (0.72, 1.95), (1.3, 2.15), (2, 2.35), (2, 2.6), (0, 2.6))
    neck = relief.fill(closed(throat))
    relief.paint(neck, 0.82 * person.skin)
    clothes = relief.fill(closed(curve((0, 2.25), (0.45, 2.1), (0.8, 1.95), (2, 2.25), (2, 2.6), (0, 2.6))))
    relief.paint(clothes, float(rng.uniform(0.05, 0.9)))
    np.maximum(relief.cover, neck, out=relief.cover)
    relief.height += 0.35 * blur(neck, 0.1)


def _chin(person: Identity, moved: Measures) -> float:
    return person.chin + 0.8 * moved.jaw - 0.03 * moved.chin


def _draw_head(relief: Relief, person: Identity, moved: Measures, rng: np.random.Generator) -> None:
    """Skull, jaw, ears and the roundness of the whole."""
    w, jaw, rest, chin = person.width, person.jaw_width * person.width, person.chin, _chin(person, moved)
    outline = curve(
        (0, -1.5),
        (0.55 * w, -1.38),
        (0.9 * w, -0.95),
        (w, -0.35),
        (0.99 * w, 0.2),
        (0.95 * w, 0.6),
        (0.8 * jaw, 0.67 * rest),
        (0.5 * jaw, 0.89 * rest),
        (0.22 * jaw, 0.985 * rest),
        (0, rest),
    )
    below = outline[:, 1] > 0.4
    outline[below, 1] += (chin - rest) * (outline[below, 1] - 0.4) / (rest - 0.4)
    face = relief.fill(closed(outline))
    if person.hair != "long":
        pinna = curve((0.9 * w, -0.12), (1.08 * w, -0.2), (1.14 * w, 0.05), (1.05 * w, 0.45), (0.9 * w, 0.5))
        ears = np.maximum(relief.fill(pinna), relief.fill(mirrored(pinna, -1)))
        relief.paint(ears, 0.85 * person.skin)
        np.maximum(relief.cover, ears, out=relief.cover)
        rim = curve((1.02 * w, -0.08), (1.07 * w, 0.05), (w, 0.3))
        for side in (-1, 1):
            relief.fold([mirrored(rim, side)], 0.6)
    relief.darken(blur(face, 0.12) * (1 - face), 0.45)  # the jaw's shadow on the neck
    relief.paint(face, person.skin * (1 + 0.04 * _noise(relief, rng, 0.15, 0.15)))
    np.maximum(relief.cover, face, out=relief.cover)
    roundness = 1 - (relief.u / (1.1 * w)) ** 2 - ((relief.v - 0.05) / (chin + 0.12)) ** 2
    relief.height += face * (0.95 * np.sqrt(np.maximum(roundness, 0.02)) - relief.height)
    relief.raise_by(0, -0.75, 0.5, 0.3, 0.06)
    relief.raise_by(0, chin - 0.22, 0.17, 0.13, 0.07 + 0.03 * moved.chin)


def _draw_nose(relief: Relief, person: Identity, moved: Measures) -> None:
    """Bridge, tip and wings; a wrinkled nose is drawn up and folded across its root."""
    wrinkle = moved.nose_wrinkle
    base, w = person.nose_length - 0.035 * wrinkle, person.nose_width * (1 + 0.12 * wrinkle)
    part = relief.window(-0.6, -0.45, 0.6, base + 0.25)
    rise = np.clip((part.v + 0.3) / (base + 0.25), 0, 1) * 0.22 / (1 + np.exp((part.v - base + 0.04) / 0.03))
    part.height += rise * np.exp(-0.5 * (part.u / (0.08 + 0.06 * np.clip(part.v / base, 0, 1))) ** 2)
    part.raise_by(0, base - 0.1, 0.09, 0.075, 0.07)
    nostril = curve((0.04, base - 0.005), (0.1, base - 0.04), (0.72 * w, base - 0.015), (0.1, base + 0.015))
    wing = curve((0.93 * w, base - 0.16), (1.06 * w, base - 0.07), (0.95 * w, base), (0.7 * w, base + 0.01))
    root = [curve((0.02, v), (0.1, v + 0.01), (0.18, v + 0.07)) for v in (-0.02, 0.09)]
    flank = curve((0.12, 0.14), (0.17, 0.28), (0.24, 0.4))
    for side in (-1, 1):
        part.raise_by(side * 0.78 * w, base - 0.06 - 0.03 * wrinkle, 0.055, 0.06, 0.08)
        part.paint(blur(part.fill(mirrored(nostril, side)), 0.012), 0.22 * person.skin, 0.85)
        part.fold([mirrored(wing, side)], 0.5 + 0.4 * wrinkle, 0.022)
        part.fold([mirrored(line, side) for line in root], wrinkle)
        part.fold([mirrored(flank, side)], 0.9 * wrinkle, 0.035)
    part.darken(part.bump(0, base + 0.05, 0.2, 0.045), 0.25)  # the shadow beneath


def _corner(person: Identity, moved: Measures) -> tuple[float, float]:
    """The mouth's right corner."""
    return person.mouth_width + moved.corner_out, person.mouth_height - moved.corner_up + 0.48 * moved.jaw


def _draw_cheeks(relief: Relief, person: Identity, moved: Measures) -> None:
    """Cheekbones, nasolabial folds, bags and crow's feet."""
    w, eye, cheek = person.width, person.eye_distance, moved.cheek
    corner_u, corner_v = _corner(person, moved)
    start, past = person.nose_length - 0.12, max(0.42, corner_u + 0.1)
    nasolabial = curve((0.25, start), (0.38, start + 0.14), (past, corner_v - 0.12), (past + 0.01, corner_v + 0.08))
    bag = curve((eye - 0.22, 0.12), (eye, 0.19), (eye + 0.2, 0.11))
    feet = [curve((eye + 0.27, v), (eye + 0.35, 1.6 * v), (eye + 0.41, 2.4 * v)) for v in (-0.05, 0.015, 0.07)]
    for side in (-1, 1):
        relief.raise_by(side * 0.63 * w, 0.42, 0.2, 0.2, 0.05)
        relief.raise_by(side * 0.5 * w, 0.46 - 0.06 * cheek, 0.19, 0.15, 0.1 * cheek)
        relief.raise_by(side * 0.72 * w, 1.0, 0.17, 0.25, -0.03 - 0.05 * person.age)
        relief.fold([mirrored(nasolabial, side)], 0.06 + 0.4 * person.age + 0.75 * moved.nasolabial, 0.04)
        relief.fold([mirrored(bag, side)], 0.03 + 0.35 * person.age + 0.3 * cheek, 0.035)
        crow = cheek * (0.25 + 0.6 * person.age) + 0.25 * person.age
        relief.fold([mirrored(line, side) for line in feet], crow, 0.02)


def _draw_forehead(relief: Relief, person: Identity, moved: Measures) -> None:
    """Lines across, by raised brows, and upright between the brows, by lowered ones."""
    lift = 0.4 * (moved.brow_inner + moved.brow_outer)
    across = [
        curve((-0.6, v + 0.05), (-0.3, v - 0.01), (0, v), (0.3, v - 0.01), (0.6, v + 0.05))
        for v in (-0.62 - lift, -0.76 - lift, -0.9 - lift)
    ]
    relief.fold(across, 0.8 * max(0, moved.forehead_lines) * (0.35 + 0.65 * person.age) + 0.35 * person.age)
    v = -person.brow_height - 0.6 * moved.brow_inner
    upright = curve((0.07, v - 0.12), (0.055, v), (0.065, v + 0.07))
    relief.fold([upright, mirrored(upright, -1)], 0.9 * moved.frown_lines + 0.2 * person.age)


@dataclass
class Mouth:
    """Four lines from the left corner to the right one, each (n, 2)."""

    upper_outer: Points
    upper_inner: Points
    lower_inner: Points
    lower_outer: Points

    @property
    def gap(self) -> float:
        """Between the lips, at the middle."""
        middle = len(self.upper_inner) // 2
        return float(self.lower_inner[middle, 1] - self.upper_inner[middle, 1])


def shape_mouth(person: Identity, moved: Measures) -> Mouth:
    """Where the lips lie."""
    corner_u, corner_v = _corner(person, moved)
    upper = lower = person.mouth_height - 0.7 * moved.lip_upper + 0.5 * moved.lip_lower + 0.01
    if moved.lips_part + moved.jaw > 0.02:
        upper = person.mouth_height - moved.lip_upper - 0.3 * moved.lips_part
        lower = max(upper, person.mouth_height + moved.lip_lower + 0.7 * moved.lips_part + moved.jaw)
    t = np.linspace(-1, 1, 25)
    # Lips drawn up and down at their middle, as in rage, make a square mouth.
    arch = 1 - np.abs(t) ** (2.2 + 14 * max(0, min(moved.lip_lower, moved.lip_upper)))
    u, v_upper, v_lower = corner_u * t, corner_v + (upper - corner_v) * arch, corner_v + (lower - corner_v) * arch
    thickness = person.lip_fullness * max(0.25, 1 + moved.lip_thickness)
    bow = (1 - np.abs(t) ** 1.6) * (1 - 0.22 * np.exp(-((t / 0.14) ** 2)))
    return Mouth(
        np.stack([1.02 * u, v_upper - 0.095 * thickness * bow], 1),
        np.stack([u, v_upper], 1),
        np.stack([u, v_lower], 1),
        np.stack([1.02 * u, v_lower + 0.125 * thickness * (1 - t**2) ** 0.8], 1),
    )


def _draw_mouth(relief: Relief, person: Identity, moved: Measures) -> None:
    """Lips; between them teeth, tongue and the dark."""
    lines, skin = shape_mouth(person, moved), person.skin
    bottom = float(lines.lower_outer[:, 1].max())
    relief.raise_by(0, person.mouth_height, 0.36, 0.26, 0.06)
    relief.raise_by(0, bottom + 0.07, 0.16, 0.045, -0.05)
    part = relief.around([lines.upper_outer, lines.lower_outer], 0.2)
    lips = part.fill(np.concatenate([lines.upper_outer, lines.lower_outer[::-1]]))
    part.height += 0.05 * blur(lips, 0.035)
    tone = skin * (0.7 - 0.28 * person.make_up)
    part.paint(blur(lips, 0.012), tone)
    part.paint(blur(part.fill(np.concatenate([lines.upper_outer, lines.upper_inner[::-1]])), 0.012), 0.86 * tone)
    if lines.gap > 0.02:
        inside = part.fill(np.concatenate([lines.upper_inner, lines.lower_inner[::-1]]))
        np.maximum(part.unlit, inside, out=part.unlit)
        part.paint(inside, 0.07)
        tongue = part.bump(0, float(lines.lower_inner[12, 1]) - 0.02, 0.6 * person.mouth_width, 0.25 * lines.gap)
        part.paint(inside * tongue, 0.3, 0.8)
        _draw_teeth(part, inside, lines.upper_inner, min(0.92 * lines.gap, 0.03 + moved.teeth))
        if moved.lip_lower > 0.03:
            _draw_teeth(part, inside, lines.lower_inner, -min(0.4 * lines.gap, 0.9 * moved.lip_lower))
    else:
        part.paint(blur(part.stroke([lines.upper_inner[2:-2]], 0.03), 0.014), 0.25 * skin, 0.85)
    for u, v in lines.upper_inner[[0, -1]]:
        part.darken(part.bump(1.02 * float(u), float(v), 0.035, 0.035), 0.15 + abs(moved.corner_up))
    if moved.chin > 0.1:
        v = bottom + 0.1
        relief.fold([curve((-0.2, v + 0.07), (-0.1, v), (0, v - 0.02), (0.1, v), (0.2, v + 0.07))], 0.9 * moved.chin)
    u, v = _corner(person, moved)
    marionette = curve((u + 0.01, v), (u + 0.05, v + 0.1), (u + 0.05, v + 0.22))
    for side in (-1, 1):
        relief.fold([mirrored(marionette, side)], -6 * moved.corner_up - 0.1)


def _draw_teeth(part: Relief, inside: Plane, edge: Points, depth: float) -> None:
    """A row of teeth along the inner edge of a lip, `depth` of it showing downwards."""
    teeth = part.fill(np.concatenate([edge, np.add(edge[::-1], (0, depth))])) * inside
    part.paint(blur(teeth, 0.008), 0.9 - 0.25 * np.minimum(1, (part.u / edge[-1, 0]) ** 2))


def _draw_eye(relief: Relief, person: Identity, moved: Measures, side: int, gaze: tuple[float, float]) -> None:
    """Socket, lids, white, iris and lashes."""
    u, size, skin = person.eye_distance, person.eye_size, person.skin
    relief.raise_by(side * (u - 0.03), -0.03, 0.21, 0.14, -0.11)
    relief.raise_by(side * u, -0.01, 0.13, 0.1, 0.05)
    part = relief.window(side * u - 0.4, -0.35, side * u + 0.4, 0.3)
    upper, lower = 0.09 * size + moved.lid_upper, 0.06 * size - moved.lid_lower
    upper -= min(moved.lids_shut, 0.95) * (upper + lower)
    upper = max(upper, 0.012 - lower)
    t = np.linspace(-1, 1, 17)
    along, axis = u + 0.215 * size * t, 0.02 - person.eye_tilt * (t + 1)
    above = mirrored(np.stack([along, axis - upper * (1 - np.abs(t + 0.08) ** 2.4 / 1.2).clip(0)], 1), side)
    below = mirrored(np.stack([along, axis + lower * (1 - np.abs(t - 0.1) ** 2.2 / 1.23).clip(0)], 1), side)
    opening = part.fill(np.concatenate([above, below[::-1]]))
    np.maximum(part.unlit, opening, out=part.unlit)
    part.fold([above[2:] - (0, 0.055)], 0.55, 0.022)  # the lid's crease
    part.paint(opening, 0.42 + 0.32 * skin)
    iris = np.array((side * u + 0.09 * gaze[0], -0.012 + 0.05 * gaze[1]))
    angle = np.linspace(0, 2 * np.pi, 20)
    circle = np.stack([np.cos(angle), np.sin(angle)], 1)
    for radius, centre, tone in ((0.092, iris, person.iris), (0.042, iris, 0.03), (0.02, iris - (0.03, 0.035), 1.0)):
        part.paint(part.fill(radius * circle + centre) * opening, tone)
    part.darken(blur(part.stroke([np.add(above, (0, 0.03))], 0.06), 0.02) * opening, 0.45)  # the upper lid's shadow
    lashes = blur(part.stroke([above], 0.03 + 0.015 * person.make_up), 0.008)
    part.paint(lashes, 0.05 + 0.25 * skin * (1 - person.make_up), 0.9)
    part.paint(blur(part.stroke([below], 0.022), 0.008), 0.55 * skin, 0.6)


def _draw_brow(relief: Relief, person: Identity, moved: Measures, side: int) -> None:
    """The ridge and the hairs on it."""
    inner, outer = -person.brow_height - moved.brow_inner, -person.brow_height - moved.brow_outer
    line = curve(
        (0.17 - moved.brow_in, inner + 0.02),
        (0.38 - 0.6 * moved.brow_in, (inner + outer) / 2 - 0.03),
        (0.58, outer - 0.045),
        (0.78, outer + 0.05),
    )
    relief.raise_by(side * 0.4, (inner + outer) / 2 + 0.04, 0.27, 0.07, 0.05)
    taper = np.interp(np.linspace(0, 1, len(line)), (0, 0.15, 0.6, 1), (0.6, 1, 0.85, 0.2))[:, None]
    taper = taper * (0, 0.05 * person.brow_thickness)
    outline = mirrored(np.concatenate([line - taper, (line + taper)[::-1]]), side)
    part = relief.around([outline], 0.1)
    part.paint(blur(part.fill(outline), 0.014), min(0.75 * person.hair_tone, 0.6 * person.skin), 0.85)


def _noise(relief: Relief, rng: np.random.Generator, across: float, along: float) -> Plane:
    """Noise of deviation 1 in grains of this size."""
    height, width = relief.albedo.shape
    grains = max(2, round(height / PITCH / along)), max(2, round(width / PITCH / across))
    return cv2.resize(rng.standard_normal(grains, np.float32), (width, height), interpolation=cv2.INTER_CUBIC)


def _draw_beard(relief: Relief, person: Identity, moved: Measures, rng: np.random.Generator) -> None:
    """Beard and moustache, before the lips that lie on them."""
    if not (person.beard or person.moustache):
        return
    tone = person.hair_tone * (1 + 0.25 * _noise(relief, rng, 0.04, 0.08))
    if person.beard:
        jaw = curve((0, 0.98), (0.45, 0.95), (0.72, 0.75), (0.9, 0.1), (1.1, 0.1), (1.1, 1.2), (0.6, 2.1), (0, 2.2))
        face = np.clip((relief.height - 0.36) * 8, 0, 1)
        relief.paint(blur(relief.fill(closed(jaw)), 0.05) * face, tone, 0.8 * person.beard)
    if person.moustache:
        lip = shape_mouth(person, moved).upper_outer[12:] * (1.12, 1)
        base = person.nose_length
        top = curve((0, base + 0.08), (0.25, base + 0.12), (float(lip[-1, 0]), float(lip[-1, 1])))
        outline = closed(np.concatenate([top, lip[::-1]]))
        relief.paint(blur(relief.fill(outline), 0.02), tone, 0.85 * person.moustache)


def _strands(relief: Relief, person: Identity, rng: np.random.Generator) -> Plane:
    """The tone of hair, streaked along its fall or, when curly, grained."""
    grain = _noise(relief, rng, 0.09, 0.09) if person.hair == "curly" else _noise(relief, rng, 0.045, 0.7)
    return np.clip(person.hair_tone + min(0.3 * person.hair_tone, 0.08) * grain + 0.02, 0.01, 1)


HAIRLINE = {"receding": -1.22, "short": -0.98, "parted": -0.95, "fringe": -0.58, "long": -1.05, "curly": -0.95}


def _draw_hair(relief: Relief, person: Identity, rng: np.random.Generator) -> None:
    """What hair lies over the forehead and the temples."""
    if person.hair == "bald":
        return
    w, volume = person.width, 0.12 if person.hair == "curly" else 0.03
    line = HAIRLINE[person.hair] + float(rng.uniform(-0.07, 0.07))
    temple = -0.75 if person.hair == "receding" else max(line, -0.62)
    middle, top = (line + temple) / 2 + 0.08, -1.68 - volume
    inner = curve((0, line), (0.4, line + 0.02), (0.75 * w, middle), (0.9 * w, temple + 0.3), (0.95 * w, 0.05))
    outer = curve((1.02 * w, 0.05), (1.06 * w + volume, -0.5), (w + volume, -1.15), (0.6 * w, top + 0.1), (0, top))
    hair = relief.fill(closed(np.concatenate([inner, outer])))
    side = int(rng.choice((-1, 1)))
    if person.hair == "parted":
        sweep = curve((-0.6, -1.25), (-0.1, -0.95), (0.4, -0.62), (0.95, -0.45), (1, -1), (0.5, -1.4), (-0.6, -1.4))
        hair = np.maximum(hair, relief.fill(mirrored(sweep, side)))
    if person.hair == "long":
        part = float(rng.uniform(0, 0.4))
        for lock_side, start in ((side, -part), (-side, part)):
            lock = curve(
                (start, -1.55),
                (0.62 + 0.3 * start, -1.0),
                (0.9 * w, -0.4),
                (0.93 * w, 0.4),
                (0.85 * w, 1.2),
                (0.9, 2.5),
                (1.3, 2.5),
                (1.25, 0.4),
                (1.15, -0.7),
                (0.7, -1.6),
                (start, -1.72),
            )
            hair = np.maximum(hair, relief.fill(mirrored(lock, lock_side)))
    relief.darken(blur(hair, 0.07) * (1 - hair), 0.3)  # its shadow on the skin
    ragged = np.clip(3 * (blur(hair, 0.035) - 0.5 + 0.12 * _noise(relief, rng, 0.07, 0.3)) + 0.5, 0, 1)
    relief.paint(ragged, _strands(relief, person, rng))
    np.maximum(relief.cover, ragged, out=relief.cover)
    relief.height += 0.1 * blur(ragged, 0.06)


def light_up(relief: Relief, view: View) -> Plane:
    """The lit head from the front, (height, width), about 0..1: Lambert's law with ambient light.

    Hollows get less light from around: where the relief lies below its smoothed self it darkens.
    """
    right = cv2.Sobel(relief.height, cv2.CV_32F, 1, 0, ksize=3, scale=PITCH / 8)
    down = cv2.Sobel(relief.height, cv2.CV_32F, 0, 1, ksize=3, scale=PITCH / 8)
    x, y, z = np.array([*view.light, 1], np.float32) / np.float32(np.hypot(1, np.hypot(*view.light)))
    lambert = np.maximum(0, (z - right * x - down * y) / np.sqrt(1 + right**2 + down**2))
    hollow = np.clip(3 * (relief.height - blur(relief.height, 0.16)), -0.6, 0.25)
    shade = (view.ambient + (1.08 - view.ambient) * lambert + 0.12 * lambert**12) * np.exp(hollow)
    return relief.albedo * (shade + 0.75 * relief.unlit * (1 - shade))


def draw_glasses(relief: Relief, lit: Plane, person: Identity, rng: np.random.Generator) -> None:
    """Lay frames over the lit head, with a tinge of reflection in the glass."""
    if person.glasses == "none":
        return
    power, tall = (1.0, 0.29) if person.glasses == "round" else (0.45, 0.26)
    angle = np.linspace(0, 2 * np.pi, 33)
    cos, sin = np.cos(angle), np.sin(angle)
    rim = np.stack([0.33 * np.sign(cos) * np.abs(cos) ** power, tall * np.sign(sin) * np.abs(sin) ** power], 1)
    rims = [np.add(rim, (side * (person.eye_distance + 0.01), 0.04)) for side in (-1, 1)]
    arm = curve((person.eye_distance + 0.33, -0.02), (1.0, -0.06))
    for outline in rims:
        lit += relief.fill(outline) * np.float32(rng.uniform(0, 0.06))
    bridge = curve((-0.13, 0), (0, -0.04), (0.13, 0))
    frame = relief.stroke([*rims, bridge, arm, mirrored(arm, -1)], float(rng.uniform(0.025, 0.06)))
    lit += frame * (float(rng.uniform(0.02, 0.4)) - lit)


def take_picture(relief: Relief, lit: Plane, view: View, rng: np.random.Generator) -> np.ndarray:
    """Turn the lit head, put it before a background and reduce it to FER2013's (48, 48) uint8.

    Orthographic: a point (u, v) of height h is seen at u cos(yaw) + h sin(yaw), and so for v and pitch; the height
    under each pixel is found by fixed-point iteration.
    """
    height, width = (SUPERSAMPLING * n for n in IMAGE_SHAPE)
    x = (np.arange(width, dtype=np.float32) + 0.5)[None] / SUPERSAMPLING - IMAGE_SHAPE[1] / 2 - view.shift[0]
    y = (np.arange(height, dtype=np.float32) + 0.5)[:, None] / SUPERSAMPLING - IMAGE_SHAPE[0] / 2 - view.shift[1]
    cos, sin = np.float32(np.cos(view.roll) / view.scale), np.float32(np.sin(view.roll) / view.scale)
    u, v = cos * x + sin * y, cos * y - sin * x
    centre, pivot = np.float32(0.27), np.float32(0.6)  # the face's middle, and the depth it turns about
    yaw, pitch = np.float32(view.yaw), np.float32(view.pitch)
    seen_u, seen_v, depth = u, v + centre, blur(relief.height, 0.02)
    for _ in range(3):
        h = _sample(depth, seen_u, seen_v) - pivot
        seen_u, seen_v = (u - h * np.sin(yaw)) / np.cos(yaw), (v - h * np.sin(pitch)) / np.cos(pitch) + centre
    picture = _draw_background(rng, height, width)
    picture += _sample(relief.cover, seen_u, seen_v) * (_sample(lit, seen_u, seen_v) - picture)
    if view.blur:
        picture = cv2.GaussianBlur(picture, (0, 0), view.blur * SUPERSAMPLING)
    grey = cv2.resize(picture, IMAGE_SHAPE[::-1], interpolation=cv2.INTER_AREA) * 230
    grey = (grey - 128) * view.contrast + 128 + view.brightness
    grey += view.noise * rng.standard_normal(IMAGE_SHAPE, np.float32)
    return np.clip(np.round(grey), 0, 255).astype(np.uint8)


def _sample(image: Plane, u: Plane, v: Plane) -> Plane:
    """The values of one of a relief's layers at these points."""
    x, y = (u - LEFT) * PITCH - 0.5, (v - TOP) * PITCH - 0.5
    return cv2.remap(image, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def _draw_background(rng: np.random.Generator, height: int, width: int) -> Plane:
    """A plain, graded or cluttered wall, out of focus."""
    clutter = float(rng.choice([0.02, 0.15, 0.3], p=[0.5, 0.3, 0.2]))
    coarse = np.clip(rng.uniform(0.05, 1) + clutter * rng.standard_normal((4, 4)), 0, 1)
    return cv2.resize(coarse.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)


def draw_portrait(person: Identity, units: dict[int, float], view: View, rng: np.random.Generator) -> np.ndarray:
    """Draw one face, (48, 48) uint8. `rng` draws what carries no meaning: strands, frames, background, noise."""
    relief = draw_relief(person, units, view.gaze, rng)
    lit = light_up(relief, view)
    draw_glasses(relief, lit, person, rng)
    return take_picture(relief, lit, view, rng)
