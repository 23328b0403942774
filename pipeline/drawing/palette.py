"""The expressions' colours, alike in everything that is drawn, and ink that is legible on them."""

import colorsys
from collections.abc import Iterator
from functools import cache
from itertools import chain, count, islice

import numpy as np

# Okabe and Ito's colours, which colour-blind people tell apart (jfly.uni-koeln.de/color); a grey stands for their
# black, which would be lost on dark panels.
COLOURS = {
    "angry": "#D55E00",
    "disgust": "#009E73",
    "fear": "#CC79A7",
    "happy": "#F0E442",
    "sad": "#0072B2",
    "surprise": "#E69F00",
    "neutral": "#BBBBBB",
    "contempt": "#56B4E9",
}
GOLDEN_RATIO = 0.618034  # steps by it around the circle of hues never come close to one another
SYNONYMS = {"anger": "angry", "happiness": "happy", "sadness": "sad"}  # FER+'s names


def expression(label: str) -> str | None:
    """The one of COLOURS that a model's label means; None for a label of the model's own."""
    name = label.lower()
    name = SYNONYMS.get(name, name)
    return name if name in COLOURS else None


@cache
def colours(labels: tuple[str, ...]) -> dict[str, str]:
    """A colour, "#RRGGBB", for each of a model's labels: its expression's or, for any other, one not yet taken."""
    known = {label: COLOURS[name] for label in labels if (name := expression(label))}
    own = [label for label in labels if label not in known]
    free = (colour for colour in chain(COLOURS.values(), _more()) if colour not in known.values())
    return known | dict(zip(own, islice(free, len(own)), strict=True))


def _more() -> Iterator[str]:
    """Colours without end, for sets of many classes: hues all around, by turns lighter and darker."""
    for number in count():
        channels = colorsys.hls_to_rgb(number * GOLDEN_RATIO % 1, (0.72, 0.42)[number % 2], 0.75)
        yield "#" + "".join(f"{round(255 * channel):02X}" for channel in channels)


def rgb(colour: str) -> tuple[int, int, int]:
    """Red, green and blue, 0..255, of "#RRGGBB"."""
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def luminance(colour: str) -> float:
    """Relative luminance of WCAG 2.2, 0 for black to 1 for white."""
    channels = np.array(rgb(colour)) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))


def ink(ground: str) -> str:
    """Black or white, whichever has more contrast on `ground`: both have the same at a luminance of 0.179."""
    return "#000000" if luminance(ground) > 0.179 else "#FFFFFF"
