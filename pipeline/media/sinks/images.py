"""Readings drawn over their frames, a picture each."""

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.base.atomic import atomic_file
from pipeline.base.console import printable
from pipeline.base.errors import InputError
from pipeline.media.frames import Frame
from pipeline.media.sinks.sink import Sink
from pipeline.readings import Reading

if TYPE_CHECKING:
    from pipeline.drawing.overlay import Overlay


MAX_NAME = 200  # letters of an address, of the 255 bytes that a file's name may have


class AnnotatedImages(Sink):
    """Every frame, with its reading drawn over it, as a PNG under `folder`.

    A file keeps its path below `root`, or its whole path when it lies elsewhere; of an address, what is no letter or
    digit becomes "-". ".png" is added to a name that has it not. single: `folder` is the file of the only image. Raises
    InputError when `folder` is `root`, where images would be written over.
    """

    def __init__(self, folder: Path, root: Path, overlay: "Overlay", *, single: bool = False) -> None:
        if folder.resolve() == root.resolve():
            raise InputError(
                f"{printable(folder)}: holds the images that are read; give another folder for the annotated ones"
            )
        self.folder = folder
        self.single = single
        self.root = Path(os.path.normpath(root.absolute()))
        self.overlay = overlay
        self.taken: set[Path] = set()

    def write(self, frame: Frame, reading: Reading) -> None:
        from PIL import Image

        path = self.folder if self.single else self.folder / self._place(frame.name)
        if path.is_symlink() and path.resolve().is_relative_to(self.root.resolve()):
            raise InputError(
                f"{printable(path)}: a link among the images that are read, of which one would be lost; remove the link"
            )
        with atomic_file(path) as file:
            Image.fromarray(self.overlay.draw(frame.image, reading)).save(file, format="PNG", compress_level=1)

    def _place(self, name: str) -> Path:
        if "://" in name:
            place = Path(re.sub(r"[^\w.-]+", "-", name)[-MAX_NAME:])
        else:
            path = Path(os.path.normpath(Path(name).absolute()))
            place = path.relative_to(self.root if path.is_relative_to(self.root) else path.anchor)
        if place.suffix.lower() != ".png":
            place = place.with_name(f"{place.name}.png")
        while place in self.taken:  # a.jpg and a.jpg.png are two images
            place = place.with_name(f"{place.name}.png")
        self.taken.add(place)
        return place
