"""Renders the SVG sources to the pictures beside them: python -m pipeline.drawing.emoji.render (needs resvg-py)."""

from pathlib import Path

from pipeline.base.atomic import atomic_file
from pipeline.drawing.emoji import FOLDER, NAMES

SIZE = 512  # pixels; on a frame of 4K the panel's emoji is half as large again


def render(source: Path) -> bytes:
    """A PNG of SIZE x SIZE pixels with alpha."""
    import resvg_py

    return bytes(resvg_py.svg_to_bytes(svg_path=str(source), width=SIZE, height=SIZE, skip_system_fonts=True))


if __name__ == "__main__":
    for name in NAMES:
        with atomic_file(FOLDER / f"{name}.png") as file:
            file.write(render(FOLDER / f"{name}.svg"))
