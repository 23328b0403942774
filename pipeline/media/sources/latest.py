"""Hand-over from a thread that reads a camera or stream by the clock to whoever is ready for a frame."""

import threading
from typing import Generic, TypeVar

T = TypeVar("T")


class Latest(Generic[T]):
    """Holds the newest item only; one that a newer one took the place of is counted in `dropped`."""

    def __init__(self) -> None:
        self.dropped = 0
        self._changed = threading.Condition()
        self._items: list[T] = []  # none or one
        self._ended = False
        self._error: BaseException | None = None

    def put(self, item: T) -> None:
        with self._changed:
            self.dropped += len(self._items)
            self._items = [item]
            self._changed.notify()

    def end(self, error: BaseException | None = None) -> None:
        """No item comes any more, for a reason or without one."""
        with self._changed:
            self._ended, self._error = True, error
            self._changed.notify()

    def take(self, seconds: float | None = None) -> T | None:
        """Wait for an item not taken yet; None at the end, at which an error is raised.

        Raises TimeoutError after `seconds`; None waits for as long as it takes.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._items or self._ended, seconds):
                raise TimeoutError
            if self._items:
                return self._items.pop()
            if self._error is not None:
                raise self._error
            return None
