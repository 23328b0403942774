"""Readings drawn over their frames, a picture each."""

from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.atomic import atomic_file
from pipeline.errors import InputError
from pipeline.live.frames import Frame
from pipeline.live.readings import Reading
from pipeline.live.sinks.sink import Sink

if TYPE_CHECKING:
    from pipeline.live.overlay import Overlay


class AnnotatedImages(Sink):
    """Every frame, with its reading drawn over it, as a PNG under `folder`.

    A frame keeps its path below `root`; ".png" is added to the name of one that is no PNG. Raises InputError when
    `folder` is `root`, where images would be written over.
    """

    def __init__(self, folder: Path, root: Path, overlay: "Overlay") -> None:
        if folder.resolve() == root.resolve():
            raise InputError(f"{folder}: holds the images that are read; give another folder for the annotated ones")
        self.folder = folder
        self.root = root
        self.overlay = overlay

    def write(self, frame: Frame, reading: Reading) -> None:
        from PIL import Image

        relative = Path(frame.name).absolute().relative_to(self.root)
        name = relative if relative.suffix.lower() == ".png" else relative.with_name(f"{relative.name}.png")
        with atomic_file(self.folder / name) as file:
            Image.fromarray(self.overlay.draw(frame.image, reading)).save(file, format="PNG", compress_level=1)
