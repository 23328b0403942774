"""Work on two threads at once, for what spends its time outside the interpreter's lock: decoding, files, numpy."""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from queue import Empty, SimpleQueue
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

THREADS = 2
AHEAD = 4  # items a thread


def map_ahead(function: Callable[[T], R], items: Iterable[T], threads: int = THREADS) -> Iterator[R]:
    """Results of `function` in the order of `items`, of which no more than a few are taken ahead.

    Unlike ThreadPoolExecutor.map, which takes them all at once, this keeps a stream's memory bounded. An error in
    `function` or `items` comes out at its place.
    """
    with ThreadPoolExecutor(threads) as pool:
        pending: deque[Future[R]] = deque()
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) > AHEAD * threads:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def poll_while_waiting(items: Iterable[T], seconds: float, meanwhile: Callable[[], bool]) -> Iterator[T]:
    """Pass `items` on, and call `meanwhile` again and again, after so many `seconds`, while one is waited for.

    For items that may take long, such as the frames of a camera, beside a person who must be heard. Ends with the items
    or as soon as `meanwhile` says True. They are taken in a thread of its own, each only once it is asked for.
    """
    asked: SimpleQueue[bool] = SimpleQueue()
    given: SimpleQueue[tuple[list[T], BaseException | None]] = SimpleQueue()

    def take() -> None:
        iterator = iter(items)
        while asked.get():
            try:
                given.put(([next(iterator)], None))
            except BaseException as error:
                given.put(([], error))
                return

    # A daemon: when nobody waits for the item any more, the end of the program does not either.
    threading.Thread(target=take, daemon=True).start()
    try:
        while True:
            asked.put(True)
            while True:
                try:
                    found, error = given.get(timeout=seconds)
                    break
                except Empty:
                    if meanwhile():
                        return
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield from found
    finally:
        asked.put(False)
