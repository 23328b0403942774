"""Streams from the network: RTSP, MJPEG and others over HTTP, HLS, through FFmpeg."""

import threading
import time
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Self

from pipeline.base.console import log
from pipeline.base.errors import SourceError
from pipeline.media.fetch import without_credentials
from pipeline.media.frames import Frame
from pipeline.media.sources.latest import Latest
from pipeline.media.sources.video import (
    NETWORK_PROTOCOLS,
    BrokenOffError,
    Damage,
    UprightRgb,
    decoded,
    open_container,
    video_stream,
)

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

PAUSES = (1, 2, 4, 8, 15, 30, 30, 30, 30, 30)  # seconds before each try to connect again; after the last it is given up
OPTIONS = {
    "protocol_whitelist": NETWORK_PROTOCOLS,
    "rtsp_transport": "tcp",  # passes routers and loses nothing; over UDP, frames arrive damaged
    "fflags": "nobuffer",
    "flags": "low_delay",
    "analyzeduration": "3000000",  # microseconds
    "fpsprobesize": "0",
}


class Stream:
    """A stream's newest frame, each time one is asked for; those in between are counted in `dropped`.

    When the connection drops, or nothing comes for a while (video.READ_SECONDS), it is made again, with a pause before
    every try as PAUSES says; `reconnections` counts those that came off. Its name leaves out user, password and query.
    """

    moving = True
    live = True
    total: int | None = None

    def __init__(self, url: str) -> None:
        self.url = url
        self.name = without_credentials(url)
        self.failed = 0
        self.dropped = 0
        self.reconnections = 0
        self._tries = 0  # since the latest frame

    def __enter__(self) -> Self:
        """Raises SourceError when the first connection fails: the address is more likely wrong than the network."""
        container, stream = self._connect()
        self._damage = Damage(self.name)
        self._newest: Latest[tuple[float, VideoFrame, VideoStream]] = Latest()
        self._stop = threading.Event()
        self._opened = time.monotonic()
        self._thread = threading.Thread(target=self._read, args=(container, stream), name=self.name, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(1.0)  # one that waits for the network closes the connection when that answers

    def __iter__(self) -> Iterator[Frame]:
        convert = UprightRgb(self.name)
        index = 0
        while (taken := self._newest.take()) is not None:
            at, frame, stream = taken
            self.dropped = self._newest.dropped
            self.failed = self._damage.count
            yield Frame(self.name, convert(frame, stream), index, at)
            index += 1

    def _connect(self) -> tuple["InputContainer", "VideoStream"]:
        container = open_container(self.url, OPTIONS, self.name)
        try:
            stream = video_stream(container, self.name)
        except SourceError:
            container.close()
            raise
        stream.thread_type = "SLICE"  # frame threads would hold the newest frames back
        return container, stream

    def _read(self, container: "InputContainer", stream: "VideoStream") -> None:
        """In the thread: pass frames on, connecting again whenever they cease."""
        try:
            while True:
                reason = self._pass_on(container, stream)
                if self._stop.is_set() or reason is None:
                    break
                log.warning("%s: %s; connecting again", self.name, reason)
                again = self._connect_again()
                if again is None:
                    break
                container, stream = again
        except Exception as error:  # whatever it is, it comes out where frames are taken
            self._newest.end(error)
        else:
            self._newest.end()

    def _pass_on(self, container: "InputContainer", stream: "VideoStream") -> str | None:
        """Why frames ceased, or None where that was the end of something that has one."""
        with container:
            try:
                for frame in decoded(container, stream, self._damage):
                    self._newest.put((time.monotonic() - self._opened, frame, stream))
                    self._tries = 0
                    if self._stop.is_set():
                        return None
            except BrokenOffError as broken:
                return f"the connection broke off: {broken}"
            return None if container.duration is not None else "the server closed the connection"

    def _connect_again(self) -> tuple["InputContainer", "VideoStream"] | None:
        """A connection that came off, None when it is no more wanted. Raises SourceError when it is given up."""
        reason = "it closed at once, each time"
        while self._tries < len(PAUSES):
            pause = PAUSES[self._tries]
            self._tries += 1
            if self._stop.wait(pause):
                return None
            try:
                opened = self._connect()
            except SourceError as error:
                reason = str(error).removeprefix(f"{self.name}: ")
                log.warning("%s: try %d of %d: %s", self.name, self._tries, len(PAUSES), reason)
                continue
            self.reconnections += 1
            log.info("%s: connected again", self.name)
            return opened
        raise SourceError(f"{self.name}: lost, and not there again after {len(PAUSES)} tries: {reason}")


def has_an_end(url: str) -> bool:
    """Whether a playlist is that of a whole video, not of what is being sent. Raises SourceError."""
    with open_container(url, OPTIONS, without_credentials(url)) as container:
        return container.duration is not None
