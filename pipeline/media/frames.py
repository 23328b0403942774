"""A frame, and what gives frames one after the other."""

from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

import numpy as np


@dataclass(frozen=True, eq=False)
class Frame:
    """name: as results call it. image: (H, W, 3) uint8, RGB, upright. index: its number in its source, from 0.

    time: seconds from the start of a video, or since a camera or stream was opened; None for an image.
    """

    name: str
    image: np.ndarray
    index: int = 0
    time: float | None = None


class FrameSource(Protocol):
    """Gives frames, once, inside a with block.

    name: of the whole, as a person would say it. moving: its frames follow one another, so that a face can be followed.
    live: frames come by the clock; the newest is taken and those that nobody was ready for are counted in `dropped`.
    total: frames there are, where that is known. failed: those that could not be read, each told in the log.
    """

    name: str
    moving: bool
    live: bool
    total: int | None
    failed: int
    dropped: int

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def __iter__(self) -> Iterator[Frame]: ...
