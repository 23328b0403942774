"""What one client, and all of them together, may ask of the server."""

import asyncio
import ipaddress
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from pipeline.server.problems import Problem

T = TypeVar("T")


@dataclass(frozen=True)
class Limits:
    """Bytes, pixels, numbers and seconds; what goes beyond is refused with an answer that says so.

    body_bytes: of one request. held_bytes: of all bodies in memory at once. pixels: of one image, looked at before it
    is decoded. images: of one batch. workers: threads that read images; waiting: images that wait for one.
    rate: images a second from one client, in the long run; burst: at once. sessions: WebSockets at once;
    frame_bytes, frame_pixels, frame_rate (a second): what one of them may send. connections: open at once.
    head_seconds, body_seconds: for a request to arrive; send_seconds: for an answer to be taken; idle_seconds: for
    the next frame to come.
    """

    body_bytes: int = 16 << 20
    held_bytes: int = 256 << 20
    pixels: int = 40_000_000
    images: int = 32
    workers: int = 2
    waiting: int = 64
    rate: float = 20.0
    burst: int = 100
    sessions: int = 16
    frame_bytes: int = 2 << 20
    frame_pixels: int = 4_000_000
    frame_rate: float = 120.0
    connections: int = 512
    head_seconds: float = 10.0
    body_seconds: float = 30.0
    send_seconds: float = 20.0
    idle_seconds: float = 60.0


class RateLimit:
    """A token bucket for each client: `burst` at once, refilled by `rate` a second.

    The clients that have been away longest are forgotten beyond `clients`, so that memory is bounded.
    """

    def __init__(self, rate: float, burst: int, clock: Callable[[], float] = time.monotonic, clients: int = 4096):
        self.rate = rate
        self.burst = burst
        self.clock = clock
        self.clients = clients
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # what is left, and when that was

    def take(self, client: str, number: int = 1) -> float:
        """Take `number` for the client; gives 0.0, or the seconds to wait, and then nothing was taken."""
        now = self.clock()
        left, then = self._buckets.pop(client, (float(self.burst), now))
        left = min(self.burst, left + (now - then) * self.rate)
        wait = max(0.0, (number - left) / self.rate)
        self._buckets[client] = (left if wait else left - number, now)
        while len(self._buckets) > self.clients:
            self._buckets.popitem(last=False)
        return wait

    def charge(self, client: str, number: int = 1) -> None:
        """Take, or raise Problem `too_often` with a Retry-After header."""
        if wait := self.take(client, number):
            raise Problem(
                "too_often",
                f"Each client may ask for {self.rate:g} images a second, and {self.burst} at once.",
                {"Retry-After": str(math.ceil(wait))},
            )


def client_of(address: str | None) -> str:
    """The client that an address stands for: itself, and for IPv6 its /64, all of which one household has."""
    try:
        parsed = ipaddress.ip_address(address or "")
    except ValueError:
        return address or ""
    if parsed.version == 6:
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)


class Memory:
    """Counts the bytes of the bodies that are held at once."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0

    @contextmanager
    def body(self) -> Iterator[Callable[[int], None]]:
        """Give a function that counts bytes, which are let go of at the end; beyond the limit it raises `busy`."""
        mine = 0

        def hold(number: int) -> None:
            nonlocal mine
            if self.held + number > self.limit:
                raise Problem("busy", "Too many images are being sent at this moment.", {"Retry-After": "2"})
            self.held += number
            mine += number

        try:
            yield hold
        finally:
            self.held -= mine


class Workers:
    """A fixed number of threads, and so many calls that wait for one."""

    def __init__(self, threads: int, waiting: int) -> None:
        self.limit = threads + waiting
        self.pool = ThreadPoolExecutor(threads, thread_name_prefix="read")
        self.pending = 0  # calls that run or wait
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
        with self._lock:
            self.pending += 1
        future = self.pool.submit(function, *arguments)
        future.add_done_callback(self._done)
        return await asyncio.wrap_future(future)

    def _done(self, _: "Future[Any]") -> None:
        with self._lock:
            self.pending -= 1

    def close(self) -> None:
        self.pool.shutdown(wait=False, cancel_futures=True)
