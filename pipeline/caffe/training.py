"""The course of a training, as Solver::Solve and Solver::Step have it (caffe/solver.cpp): a stream of events."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from pipeline.caffe.snapshot import Snapshot, save
from pipeline.caffe.solver import Solver


@dataclass(frozen=True)
class Tested:
    """A test net has run. outputs: the mean of each of its outputs."""

    iteration: int
    net: int
    outputs: dict[str, torch.Tensor]


@dataclass(frozen=True)
class Iterated:
    """An update was made. iteration: its number, from 0. loss: smoothed. displayed: whether Caffe would print it."""

    iteration: int
    loss: float
    rate: float
    displayed: bool


@dataclass(frozen=True)
class Snapshotted:
    """A snapshot was written."""

    snapshot: Snapshot


def solve(solver: Solver, should_stop: Callable[[], bool] = lambda: False) -> Iterator[Tested | Iterated | Snapshotted]:
    """Train until max_iter, or until `should_stop` says so after an update; a snapshot is written then as well.

    Tests come before the update of every test_interval-th iteration, snapshots after every snapshot-th, and both once
    more at the end where Caffe has them. Yields what happened as it happens.
    """
    param = solver.param
    saved = -1
    while solver.iteration < param.max_iter:
        if param.test_interval and solver.iteration % param.test_interval == 0 and (
                solver.iteration > 0 or param.test_initialization):
            yield from _tests(solver)
        rate = solver.step()
        yield Iterated(solver.iteration - 1, solver.smoothed_loss(), rate,
                       bool(param.display) and (solver.iteration - 1) % param.display == 0)
        if param.snapshot and solver.iteration % param.snapshot == 0:
            saved = solver.iteration
            yield Snapshotted(save(solver, param.snapshot_prefix))
        if should_stop():
            break
    if saved != solver.iteration and (param.snapshot_after_train or solver.iteration < param.max_iter):
        yield Snapshotted(save(solver, param.snapshot_prefix))
    if solver.iteration == param.max_iter and param.test_interval and solver.iteration % param.test_interval == 0:
        yield from _tests(solver)


def _tests(solver: Solver) -> Iterator[Tested]:
    for index in range(len(solver.test_nets)):
        yield Tested(solver.iteration, index, solver.test(index))
