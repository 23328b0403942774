"""What the server needs of whoever reads expressions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from pipeline.media.frames import Frame
from pipeline.readings import Reading


class Session(Protocol):
    """One moving picture: faces are followed from frame to frame."""

    def read(self, frame: Frame) -> Reading: ...


class Reader(Protocol):
    """Reads expressions; several threads may call it at once."""

    def read(self, frames: Sequence[Frame]) -> list[Reading]: ...

    def session(self) -> Session: ...


@dataclass(frozen=True)
class Model:
    """What the server tells of the model. sha256: of the net's file. card: what it can and cannot do, in Markdown."""

    name: str
    version: str
    sha256: str
    labels: tuple[str, ...]
    card: str

    def to_json(self) -> dict[str, str]:
        return {"name": self.name, "version": self.version}
