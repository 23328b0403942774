"""What all sinks have in common."""

from contextlib import ExitStack
from types import TracebackType
from typing import Self

from pipeline.media.frames import Frame
from pipeline.readings import Reading


class Sink:
    """Takes every frame with its reading, inside a with block; files appear whole when it ends without an error.

    done: the sink wants no more frames, since a person closed it; whoever feeds it stops.
    """

    done: bool = False

    def __enter__(self) -> Self:
        self.stack = ExitStack()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stack.__exit__(kind, error, trace)

    def write(self, frame: Frame, reading: Reading) -> None:
        raise NotImplementedError

    def idle(self) -> None:
        """Called now and then while no frame comes, for a sink that a person deals with."""
