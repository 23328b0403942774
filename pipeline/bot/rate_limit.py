"""How much one user may send."""

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

ROUNDING = 1e-6  # pictures: who waited as long as was said is not sent away again
MAX_USERS = 10_000  # of whom it is remembered what they sent: those who wrote last


@dataclass
class _Bucket:
    """left: what may still be sent at `time`, seconds of the clock. told: that it was too much has been said."""

    left: float
    time: float
    told: bool = False


class RateLimit:
    """A token bucket for each user: `per_minute` pictures at once, and as many a minute in the long run."""

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.per_minute = per_minute
        self.clock = clock
        self.buckets: OrderedDict[int, _Bucket] = OrderedDict()

    def take(self, user: int, pictures: int) -> int:
        """Let a user send so many pictures, or all that ever go at once; 0, or the seconds to wait if that is too much.

        What is refused costs nothing.
        """
        now = self.clock()
        bucket = self.buckets.setdefault(user, _Bucket(self.per_minute, now))
        self.buckets.move_to_end(user)
        if len(self.buckets) > MAX_USERS:
            self.buckets.popitem(last=False)
        bucket.left = min(self.per_minute, bucket.left + (now - bucket.time) * self.per_minute / 60)
        bucket.time = now
        cost = min(pictures, self.per_minute)
        missing = cost - bucket.left
        if missing > ROUNDING:
            return math.ceil(missing * 60 / self.per_minute)
        bucket.left -= cost
        bucket.told = False
        return 0

    def first_refusal(self, user: int) -> bool:
        """Whether a refusal has yet to be told: once, or the answers would be a flood themselves."""
        bucket = self.buckets[user]
        told, bucket.told = bucket.told, True
        return not told
