"""Work on two threads at once, for what spends its time outside the interpreter's lock: decoding, files, numpy."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
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
