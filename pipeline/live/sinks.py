"""Where readings go: JSON Lines, CSV, annotated images. Each is a context manager that is written to."""

import csv
import json
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from pipeline.atomic import atomic_file
from pipeline.live.frames import Frame
from pipeline.live.readings import Reading, columns, rows


class Sink:
    """Takes every frame with its reading, inside a with block; files appear whole when it ends without an error."""

    def __enter__(self) -> Self:
        self.stack = ExitStack()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stack.__exit__(kind, error, trace)

    def write(self, frame: Frame, reading: Reading) -> None:
        raise NotImplementedError


class JsonLines(Sink):
    """A line of JSON a frame, to `path` or, with None, at once to standard output."""

    def __init__(self, path: Path | None) -> None:
        self.path = path

    def __enter__(self) -> Self:
        super().__enter__()
        self.file: IO[str] = sys.stdout
        if self.path:
            self.file = self.stack.enter_context(atomic_file(self.path, "w", encoding="utf-8"))
        return self

    def write(self, frame: Frame, reading: Reading) -> None:
        self.file.write(json.dumps(reading.to_json()) + "\n")
        if not self.path:
            self.file.flush()


class Csv(Sink):
    """A row a face to `path`; a frame without one has a single row of status `none`."""

    def __init__(self, path: Path, labels: Sequence[str]) -> None:
        self.path = path
        self.labels = labels

    def __enter__(self) -> Self:
        super().__enter__()
        file = self.stack.enter_context(
            # Names that are not UTF-8 stay what they are on the disk.
            atomic_file(self.path, "w", encoding="utf-8", errors="surrogateescape", newline="")
        )
        self.writer = csv.DictWriter(file, columns(self.labels), lineterminator="\n")
        self.writer.writeheader()
        return self

    def write(self, frame: Frame, reading: Reading) -> None:
        self.writer.writerows(rows(reading))


class AnnotatedImages(Sink):
    """Every frame as a PNG under `folder`, with boxes, labels and probability bars drawn over it.

    A frame keeps its path below `root`; ".png" is added to the name of one that is no PNG.
    """

    def __init__(self, folder: Path, root: Path) -> None:
        self.folder = folder
        self.root = root

    def write(self, frame: Frame, reading: Reading) -> None:
        from PIL import Image

        from pipeline.live.overlay import draw

        relative = Path(frame.name).absolute().relative_to(self.root)
        name = relative if relative.suffix.lower() == ".png" else relative.with_name(f"{relative.name}.png")
        with atomic_file(self.folder / name) as file:
            Image.fromarray(draw(frame.image, reading)).save(file, format="PNG", compress_level=1)
