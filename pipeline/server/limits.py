"""What one client, and all of them together, may ask of the server."""

import asyncio
import ipaddress
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from starlette.requests import HTTPConnection

from pipeline.server.problems import Problem

T = TypeVar("T")


@dataclass(frozen=True)
class Limits:
    """Bytes, pixels, numbers and seconds; what goes beyond is refused with an answer that says so.

    body_bytes: of one request. held_bytes: of all bodies in memory at once; client_bytes: of one client's. pixels: of
    one image, looked at before it is decoded; side: of its longer side; ratio: of that to the shorter one.
    searched_pixels: to which a larger image is scaled down before faces are searched. faces: read in one image or
    frame. images: of one batch. workers: threads that read images; waiting: images that wait for one.
    rate: images of up to a megapixel a second from one client, in the long run; burst: at once; a larger image counts
    as its megapixels. sessions: WebSockets at once; client_sessions: of one client;
    frame_bytes, frame_pixels, frame_rate (a second): what one of them may send. connections: open at once;
    client_connections: of one client. head_seconds, body_seconds: for a request to arrive; send_seconds: for an answer
    to be taken; idle_seconds: for the next frame to come.
    """

    body_bytes: int = 16 << 20
    held_bytes: int = 256 << 20
    client_bytes: int = 64 << 20
    pixels: int = 40_000_000
    side: int = 20_000
    ratio: float = 20.0
    searched_pixels: int = 4_000_000
    faces: int = 100
    images: int = 32
    workers: int = 2
    waiting: int = 64
    rate: float = 20.0
    burst: int = 100
    sessions: int = 16
    client_sessions: int = 4
    frame_bytes: int = 2 << 20
    frame_pixels: int = 4_000_000
    frame_rate: float = 120.0
    connections: int = 512
    client_connections: int = 32
    head_seconds: float = 10.0
    body_seconds: float = 30.0
    send_seconds: float = 20.0
    idle_seconds: float = 60.0


def client_of(address: str | None) -> str:
    """The client that an address stands for: itself, and for IPv6 its /64, all of which one household has."""
    try:
        parsed = ipaddress.ip_address(address or "")
    except ValueError:
        return address or ""
    if parsed.version == 6:
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)


def asker(connection: HTTPConnection) -> str:
    """The client that asks, behind a proxy the one that this tells of."""
    return client_of(connection.client.host if connection.client else None)


class BodyMemory:
    """Counts the bytes of the bodies that are held at once: all of them, and each client's."""

    def __init__(self, limit: int, client_limit: int) -> None:
        self.limit = limit
        self.client_limit = client_limit
        self.held: Counter[str] = Counter()

    @contextmanager
    def body(self, client: str) -> Iterator[Callable[[int], None]]:
        """Give a function that counts bytes, which are let go of at the end; beyond a limit it raises `busy`."""
        mine = 0

        def hold(number: int) -> None:
            nonlocal mine
            if self.held.total() + number > self.limit:
                raise Problem("busy", "Too many images are being sent at this moment.", {"Retry-After": "2"})
            if self.held[client] + number > self.client_limit:
                raise Problem("busy", f"Each client may send {self.client_limit} bytes at once.", {"Retry-After": "2"})
            self.held[client] += number
            mine += number

        try:
            yield hold
        finally:
            self.held[client] -= mine
            if not self.held[client]:
                del self.held[client]


class Workers:
    """A fixed number of threads, and a bounded queue of calls that wait. tell: called with each new `pending`."""

    def __init__(self, threads: int, waiting: int, tell: Callable[[int], object] = lambda _: None) -> None:
        self.limit = threads + waiting
        self.pool = ThreadPoolExecutor(threads, thread_name_prefix="read")
        self.pending = 0  # calls that run or wait
        self._tell = tell
        self._lock = threading.Lock()

    @property
    def full(self) -> bool:
        return self.pending >= self.limit

    async def run(self, function: Callable[..., T], *arguments: Any, expected: bool = False) -> T:
        """Call `function` in a thread. Raises Problem `busy` where too many wait already, unless it is `expected`.

        A call that nobody awaits any longer is not begun.
        """
        if self.full and not expected:
            raise Problem("busy", "Too many images wait to be read.", {"Retry-After": "2"})
        self._count(1)
        future = self.pool.submit(function, *arguments)
        future.add_done_callback(lambda _: self._count(-1))
        return await asyncio.wrap_future(future)

    def _count(self, change: int) -> None:
        with self._lock:
            self.pending += change
            self._tell(self.pending)

    def close(self) -> None:
        self.pool.shutdown(wait=False, cancel_futures=True)
