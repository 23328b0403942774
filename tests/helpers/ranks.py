"""Runs a command train in several processes that train together, as torchrun does, but from one import of torch."""

import importlib
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist

Patches = Mapping[str, object]  # what a rank has in the place of what, by its dotted name
APPLY_UPDATE = "pipeline.caffe.solver.solver.Solver.apply_update"


@dataclass(frozen=True)
class Rank:
    """What one rank is started with: words of the command line, and what it has in the place of what."""

    words: tuple[str, ...]
    patches: Patches


@dataclass(frozen=True)
class Ended:
    """Each rank's status, negative for a signal, and what all of them said."""

    statuses: list[int]
    log: str

    @property
    def errors(self) -> list[str]:
        return [line.split("] ", 1)[1] for line in self.log.splitlines() if line.startswith("F")]


def run_ranks(
    count: int, *words: str, others: Mapping[int, Rank] | None = None, module: str = "pipeline.caffe"
) -> Ended:
    """Run `python -m MODULE WORDS` in `count` ranks in the working folder; `others` are started otherwise."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pipeline.caffe.tools.train"])
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # torchrun keeps it for its ranks too
    said = Path("ranks.log")
    said.write_text("")
    processes = []
    for number in range(count):
        environment = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port), "WORLD_SIZE": str(count)}
        environment |= {"LOCAL_WORLD_SIZE": str(count), "RANK": str(number), "LOCAL_RANK": str(number)}
        environment["TORCHELASTIC_USE_AGENT_STORE"] = "True"
        rank = (others or {}).get(number, Rank(words, {}))
        processes.append(context.Process(target=_run, args=(environment, rank, str(said.absolute()), module)))
    for process in processes:
        process.start()
    statuses = []
    for process in processes:
        process.join(600)
        process.kill()
        process.join()
        assert process.exitcode is not None
        statuses.append(process.exitcode)
    return Ended(statuses, said.read_text())


def _run(environment: Mapping[str, str], rank: Rank, said: str, module: str) -> None:
    main = importlib.import_module(f"{module}.__main__").main
    os.environ.update(environment)
    sys.argv = ["caffe", *rank.words]
    os.chdir(Path(said).parent)
    os.dup2(os.open(said, os.O_WRONLY | os.O_APPEND), 2)
    torch.set_num_threads(1)
    with ExitStack() as stack:
        sys.stderr = stack.enter_context(open(2, "w", buffering=1, closefd=False))
        for name, value in rank.patches.items():
            stack.enter_context(patch(name, value))
        main()


def signalled(number: signal.Signals, iteration: int) -> Patches:
    """What sends a rank a signal before an update."""
    from pipeline.caffe.solver import Solver

    return {APPLY_UPDATE: _Signalled(number, iteration, Solver.apply_update)}


@dataclass(frozen=True)
class _Signalled:
    """Stands for Solver.apply_update."""

    number: signal.Signals
    iteration: int
    update: Callable[..., float]

    def __get__(self, solver: Any, owner: object) -> Callable[[], float]:
        return partial(self, solver)

    def __call__(self, solver: Any) -> float:
        if solver.iteration == self.iteration:
            os.kill(os.getpid(), self.number)
        return self.update(solver)
