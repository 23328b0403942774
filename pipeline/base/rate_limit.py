"""How much one client may ask for."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass

ROUNDING = 1e-6  # tokens: who waited as long as was said is not sent away again
MAX_CLIENTS = 10_000  # that are remembered: those who asked last


@dataclass
class _Bucket:
    """left: tokens at `time`, seconds of the clock. told: that there were too few has been said."""

    left: float
    time: float
    told: bool = False


class RateLimit:
    """A token bucket for each client: `burst` tokens at once, refilled by `rate` a second. Several threads may take.

    The clients that asked longest ago are forgotten beyond `clients`, so that memory is bounded.
    """

    def __init__(
        self, rate: float, burst: int, clock: Callable[[], float] = time.monotonic, clients: int = MAX_CLIENTS
    ) -> None:
        self.rate = rate
        self.burst = burst
        self.clock = clock
        self.clients = clients
        self._buckets: OrderedDict[Hashable, _Bucket] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """How many clients are remembered."""
        return len(self._buckets)

    def take(self, client: Hashable, tokens: float = 1) -> float:
        """Take so many tokens, or all that there ever are at once; 0.0, or the seconds to wait if there are too few.

        What is refused costs nothing.
        """
        with self._lock:
            now = self.clock()
            bucket = self._buckets.setdefault(client, _Bucket(self.burst, now))
            self._buckets.move_to_end(client)
            if len(self._buckets) > self.clients:
                self._buckets.popitem(last=False)
            bucket.left = min(self.burst, bucket.left + (now - bucket.time) * self.rate)
            bucket.time = now
            cost = min(tokens, self.burst)
            missing = cost - bucket.left
            if missing > ROUNDING:
                return missing / self.rate
            bucket.left -= cost
            bucket.told = False
            return 0.0

    def first_refusal(self, client: Hashable) -> bool:
        """Whether a refusal has yet to be told: once, or the answers would be a flood themselves."""
        with self._lock:
            bucket = self._buckets[client]
            told, bucket.told = bucket.told, True
            return not told
