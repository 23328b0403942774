"""A picture of what alignment did: images with box and landmarks beside the faces that came out."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.base.atomic import atomic_file

COLUMNS = 6
_GAP, _CELL = 0.06, (2.36, 1.34)  # in heights of a picture: between the pair; from one pair to the next
_INK, _FOUND, _MISSED = "#22262b", "#12b886", "#e8590c"


@dataclass(frozen=True, eq=False)
class Tile:
    """image: (H, W, 3) uint8 RGB. aligned: (S, S) uint8, or None where the image was dropped. box: (4,) left, top,
    right, bottom, and landmarks: (5, 2) x and y, in pixels of the image; None where there are none. caption: one line.
    """

    image: np.ndarray
    aligned: np.ndarray | None
    box: np.ndarray | None
    landmarks: np.ndarray | None
    caption: str


def draw_sheet(path: Path, tiles: Sequence[Tile], title: str) -> None:
    """Draw the tiles in rows of COLUMNS, under a title, as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    rows = max(1, -(-len(tiles) // COLUMNS))
    width, height = COLUMNS * _CELL[0], rows * _CELL[1] + 0.5
    figure = Figure(figsize=(width, height), dpi=120, facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
    axes.axis("off")
    axes.text(0.15, 0.3, title, color=_INK, fontsize=15, weight="bold", va="center")
    for index, tile in enumerate(tiles):
        left, top = (index % COLUMNS) * _CELL[0] + 0.15, index // COLUMNS * _CELL[1] + 0.55
        color = _MISSED if tile.box is None else _FOUND
        scale = 1 / max(tile.image.shape[:2])
        w, h = tile.image.shape[1] * scale, tile.image.shape[0] * scale
        x, y = left + (1 - w) / 2, top + (1 - h) / 2
        axes.imshow(tile.image, extent=(x, x + w, y + h, y), interpolation="bilinear")
        if tile.aligned is not None:
            other = left + 1 + _GAP
            axes.imshow(
                tile.aligned,
                extent=(other, other + 1, top + 1, top),
                cmap="gray",
                vmin=0,
                vmax=255,
                interpolation="bilinear",
            )
            axes.add_patch(Rectangle((other, top), 1, 1, fill=False, color=color, linewidth=1.5))
        if tile.box is not None:
            # Coordinates count from the first pixel's centre, extents from its edge.
            box = (tile.box + 0.5) * scale
            axes.add_patch(
                Rectangle(
                    (x + box[0], y + box[1]), box[2] - box[0], box[3] - box[1], fill=False, color=color, linewidth=1.5
                )
            )
        if tile.landmarks is not None:
            points = (tile.landmarks + 0.5) * scale
            axes.scatter(
                x + points[:, 0], y + points[:, 1], s=13, color="#ffd43b", edgecolors=_INK, linewidths=0.6, zorder=3
            )
        axes.text(
            left, top + 1.13, tile.caption, color=_INK if tile.box is not None else _MISSED, fontsize=9, va="center"
        )
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    axes.set_aspect("auto")
    with atomic_file(path) as file:
        FigureCanvasAgg(figure).print_png(file)
