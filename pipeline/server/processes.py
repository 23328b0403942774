"""Several processes behind one port: a parent holds it, starts them, and replaces one that dies."""

import multiprocessing
import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable
from functools import partial
from multiprocessing import connection
from pathlib import Path
from typing import Any, NoReturn

from prometheus_client.multiprocess import mark_process_dead

from pipeline.base import console
from pipeline.base.console import log
from pipeline.base.errors import InputError
from pipeline.server.metrics import common_figures

STOP_SECONDS = 10.0  # for a process to end by itself
LOOK_SECONDS = 0.2  # from one look at the signals that came to the next
AGAIN_SECONDS = 1.0  # before another process takes the place of one that never served
SIGNALS = (signal.SIGINT, signal.SIGTERM)

Work = Callable[[socket.socket, Callable[[], None]], None]


class Worker:
    """One process. work: serves the listener until SIGTERM; it calls its second argument once it takes requests.

    figures: the folder of the figures that it shares with the others.
    """

    def __init__(self, work: Work, listener: socket.socket, figures: Path) -> None:
        # Not forked: threads of ONNX Runtime would not be in the fork.
        context = multiprocessing.get_context("spawn")
        self.serving = context.Event()
        self.process = context.Process(target=_run, args=(work, listener, self.serving, figures))
        self.process.start()
        self._figures = figures

    def forget(self) -> None:
        """Take what the process held when it died, its sessions and its queue, out of the figures."""
        mark_process_dead(self.process.pid, self._figures)

    def end(self) -> None:
        """Have it end, at once if it does not within STOP_SECONDS."""
        self.process.join(STOP_SECONDS)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


def _run(work: Work, listener: socket.socket, serving: Any, figures: Path) -> None:
    """In the new process."""
    console.set_up(None)
    threading.Thread(target=_end_with_parent, args=[figures], daemon=True).start()
    try:
        work(listener, serving.set)
    except (InputError, OSError) as error:
        log.error("error: %s", console.in_words(error))
        raise SystemExit(1) from None


def _end_with_parent(figures: Path) -> None:
    """End the process once its parent is gone, even by SIGKILL: nobody else would, nor remove the figures."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])  # ready when the parent has ended, however it ended
    os.kill(os.getpid(), signal.SIGTERM)
    shutil.rmtree(figures, ignore_errors=True)
    time.sleep(STOP_SECONDS)
    os._exit(1)


def supervise(work: Work, listener: socket.socket, count: int, started: Callable[[], None]) -> NoReturn:
    """Serve with `count` processes until SIGINT or SIGTERM. started: is called when all of them take requests.

    They share one listening socket, so connections that wait when a process dies go to the others: nothing is lost but
    the requests that it was answering. Raises SystemExit: with 128 and the signal's number, or with 1 when the
    first process ends before it serves, which has said why.
    """
    received: list[int] = []
    before = {number: signal.signal(number, lambda got, _: received.append(got)) for number in SIGNALS}
    try:
        with common_figures() as figures:
            _watch(partial(Worker, work, listener, figures), count, started, received)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    raise SystemExit(128 + received[0])


def _watch(start: Callable[[], Worker], count: int, started: Callable[[], None], received: list[int]) -> None:
    """Keep `count` processes alive until a signal is in `received`, and then end them."""
    workers = [start()]
    told = False
    try:
        while not received:
            connection.wait([worker.process.sentinel for worker in workers], LOOK_SECONDS)
            if len(workers) < count and workers[0].serving.is_set():
                workers += [start() for _ in range(count - 1)]
            if not told and len(workers) == count and all(worker.serving.is_set() for worker in workers):
                started()
                told = True
            for index, worker in enumerate(workers):
                if received or worker.process.is_alive():
                    continue
                worker.forget()
                if not worker.serving.is_set():
                    if len(workers) < count:
                        raise SystemExit(1)
                    time.sleep(AGAIN_SECONDS)
                log.error("error: a process ended (%s); another takes its place", worker.process.exitcode)
                workers[index] = start()
    finally:
        for worker in workers:
            worker.process.terminate()
        for worker in workers:
            worker.end()
