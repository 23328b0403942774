"""Several processes behind one port: a parent holds it, starts them, and replaces one that dies."""

import multiprocessing
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from multiprocessing import connection
from typing import Any, NoReturn

from pipeline.base import console
from pipeline.base.console import log
from pipeline.base.errors import InputError

STOP_SECONDS = 10.0  # for a process to end by itself
LOOK_SECONDS = 0.2  # from one look at the signals that came to the next
AGAIN_SECONDS = 1.0  # before another process takes the place of one that never served
SIGNALS = (signal.SIGINT, signal.SIGTERM)

Work = Callable[[socket.socket, Callable[[], None]], None]


class Worker:
    """One process. work: serves the listener until SIGTERM; it calls its second argument once it takes requests."""

    def __init__(self, work: Work, listener: socket.socket) -> None:
        # Not forked: threads of ONNX Runtime would not be in the fork.
        context = multiprocessing.get_context("spawn")
        self.serving = context.Event()
        self.process = context.Process(target=_run, args=(work, listener, self.serving))
        self.process.start()

    def end(self) -> None:
        """Have it end, at once if it does not within STOP_SECONDS."""
        self.process.join(STOP_SECONDS)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


def _run(work: Work, listener: socket.socket, serving: Any) -> None:
    """In the new process."""
    console.set_up(None)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        work(listener, serving.set)
    except (InputError, OSError) as error:
        log.error("error: %s", console.in_words(error))
        raise SystemExit(1) from None


def _end_with_parent() -> None:
    """Nobody would end or replace the process once its parent is gone."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)


def supervise(work: Work, listener: socket.socket, count: int, started: Callable[[], None]) -> NoReturn:
    """Serve with `count` processes until SIGINT or SIGTERM. started: is called when all of them take requests.

    They share one listening socket, so connections that wait when a process dies go to the others: nothing is lost but
    the requests that it was answering. Raises SystemExit: with 128 and the signal's number, or with 1 when the
    first process ends before it serves, which has said why.
    """
    received: list[int] = []
    before = {number: signal.signal(number, lambda got, _: received.append(got)) for number in SIGNALS}
    workers = [Worker(work, listener)]
    told = False
    try:
        while not received:
            connection.wait([worker.process.sentinel for worker in workers], LOOK_SECONDS)
            if len(workers) < count and workers[0].serving.is_set():
                workers += [Worker(work, listener) for _ in range(count - 1)]
            if not told and len(workers) == count and all(worker.serving.is_set() for worker in workers):
                started()
                told = True
            for index, worker in enumerate(workers):
                if received or worker.process.is_alive():
                    continue
                if not worker.serving.is_set():
                    if len(workers) < count:
                        raise SystemExit(1)
                    time.sleep(AGAIN_SECONDS)
                log.error("error: a process ended (%s); another takes its place", worker.process.exitcode)
                workers[index] = Worker(work, listener)
    finally:
        for worker in workers:
            worker.process.terminate()
        for worker in workers:
            worker.end()
        for number, handler in before.items():
            signal.signal(number, handler)
    raise SystemExit(128 + received[0])
