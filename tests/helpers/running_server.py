"""A server that really listens, on a port of this machine, and a reader that needs no model."""

import io
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from PIL import Image

from pipeline.media.frames import Frame
from pipeline.media.reader import Reader
from pipeline.readings import Explanation, FaceReading, Reading
from pipeline.server.app import build
from pipeline.server.guard import Access
from pipeline.server.limits import Limits
from pipeline.server.model import Model
from pipeline.server.transport import Listen, bind, server

LABELS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
MANY = Limits(
    rate=1e6, burst=1_000_000, client_connections=250, client_sessions=16
)  # for tests of anything else than the rate


ending: list[tuple[threading.Thread, socket.socket]] = []


@dataclass
class Running:
    """A server that listens. connections: open at this moment."""

    port: int
    uvicorn: uvicorn.Server

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def connections(self) -> int:
        return len(self.uvicorn.server_state.connections)

    def client(self, **options: Any) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=20, trust_env=False, **options)

    def get(self, path: str, **options: Any) -> httpx.Response:
        return httpx.get(f"{self.url}{path}", timeout=20, trust_env=False, **options)

    def post(self, path: str, **options: Any) -> httpx.Response:
        return httpx.post(f"{self.url}{path}", timeout=20, trust_env=False, **options)

    def figure(self, name: str) -> float:
        """One of /metrics, by its name and labels."""
        lines = self.get("/metrics").text.splitlines()
        return next((float(line.rpartition(" ")[2]) for line in lines if line.rpartition(" ")[0] == name), 0.0)


@contextmanager
def running(
    reader: Reader,
    limits: Limits = MANY,
    access: Access | None = None,
    *,
    urls: bool = False,
    explaining: Reader | None = None,
    tls: tuple[Path, Path] | tuple[None, None] = (None, None),
) -> Iterator[Running]:
    """tls: the PEM files of a certificate and its key."""
    listen = Listen("127.0.0.1", 0, *tls)
    model = Model("TestNet", "7", "0" * 64, LABELS, "# A card\n")
    app = build(reader, model, access or Access(), limits, urls=urls, explaining=explaining)
    listener = bind(listen)
    served = server(app, listen, limits)
    thread = threading.Thread(target=served.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not served.started and thread.is_alive():
        time.sleep(0.01)
    try:
        yield Running(listener.getsockname()[1], served)
    finally:
        served.should_exit = True
        ending.append((thread, listener))


def wait_for_the_end() -> None:
    """All servers must have ended, which takes each a few tenths of a second."""
    for thread, listener in ending:
        thread.join(15)
        assert not thread.is_alive(), "the server does not end"
        listener.close()
    ending.clear()


@dataclass
class Painted:
    """Reads one face, as wide as the picture and happy, from every frame; `gate` lets it go on.

    explanation: of the face in images, and in frames where it is asked for.
    """

    gate: threading.Event = field(default_factory=threading.Event)
    frames: list[Frame] = field(default_factory=list)
    opened: int = 0
    uncertain: bool = False
    conditions: tuple[str, ...] = ()
    explanation: Explanation | None = None

    def __post_init__(self) -> None:
        self.gate.set()

    def read(self, frames: Sequence[Frame]) -> list[Reading]:
        assert self.gate.wait(20)
        self.frames += frames
        return [self.happy(frame, None) for frame in frames]

    def happy(self, frame: Frame, track: int | None) -> Reading:
        height, width = frame.image.shape[:2]
        probabilities = dict.fromkeys(LABELS, 0.0) | {"happy": 0.75, "neutral": 0.25}
        face = FaceReading(
            (0.0, 0.0, width - 1.0, height - 1.0),
            0.99,
            {},
            probabilities,
            "found",
            track,
            self.uncertain,
            self.conditions,
            self.explanation,
        )
        return Reading(frame.name, width, height, (face,), frame.index, frame.time)

    def session(self) -> "PaintedSession":
        self.opened += 1
        return PaintedSession(self)


@dataclass
class PaintedSession:
    painted: Painted

    def read(self, frame: Frame, *, explain: bool = False) -> Reading:
        assert self.painted.gate.wait(20)
        self.painted.frames.append(frame)
        reading = self.painted.happy(frame, 1)
        return reading if explain else replace(reading, faces=(replace(reading.faces[0], explanation=None),))


def picture(width: int = 32, height: int = 24, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), (90, 120, 150)).save(file, kind)
    return file.getvalue()
