"""What the server and the bot need of whoever reads expressions; predictor.Predictor is one."""

from collections.abc import Sequence
from typing import Protocol

from pipeline.media.frames import Frame
from pipeline.readings import Reading


class FrameReader(Protocol):
    """Reads one moving picture frame by frame and follows its faces. explain: whether a frame's faces are explained."""

    def read(self, frame: Frame, *, explain: bool = False) -> Reading: ...


class Reader(Protocol):
    """Reads expressions; several threads may call it at once."""

    def read(self, frames: Sequence[Frame]) -> list[Reading]: ...

    def session(self) -> FrameReader: ...
