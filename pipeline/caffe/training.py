"""The course of a training, as Solver::Solve and Solver::Step have it (caffe/solver.cpp): a stream of events."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from pipeline.caffe.snapshot import Snapshot, save
from pipeline.caffe.solver import Solver


@dataclass(frozen=True)
class Tested:
    """A test net has run. outputs: the mean of each of its outputs. loss: the mean of the weighted sum of its losses.

    debug_lines: what debug_info logs of it.
    """

    iteration: int
    net: int
    outputs: dict[str, torch.Tensor]
    loss: float
    debug_lines: tuple[str, ...] = ()


@dataclass(frozen=True)
class Iterated:
    """An update was made. iteration: its number, from 0. loss: smoothed. displayed: whether Caffe would print it.

    step: multistep's, where it has just moved on to it. gradient_norm: where clip_gradients had to clip it.
    debug_lines: what debug_info logs of the batches.
    """

    iteration: int
    loss: float
    rate: float
    displayed: bool
    step: int | None = None
    gradient_norm: float | None = None
    debug_lines: tuple[str, ...] = ()


@dataclass(frozen=True)
class Snapshotted:
    """A snapshot was written."""

    snapshot: Snapshot


@dataclass(frozen=True)
class Finished:
    """All updates are made, and a last batch has run forward. iteration: max_iter. loss: smoothed."""

    iteration: int
    loss: float


Event = Tested | Iterated | Snapshotted | Finished


def solve(solver: Solver, should_stop: Callable[[], bool] = lambda: False) -> Iterator[Event]:
    """Train until max_iter, or until `should_stop` says so after an update; a snapshot is written then as well.

    Tests come before the update of every test_interval-th iteration, snapshots after every snapshot-th, and both once
    more at the end where Caffe has them; there a last batch of the train net runs forward where display divides
    max_iter, and moves BatchNorm's statistics before the last test. Yields what happened as it happens.
    """
    param = solver.param
    saved = -1
    for event in steps(solver, param.max_iter - solver.iteration, should_stop):
        if isinstance(event, Snapshotted):
            saved = event.snapshot.iteration
        yield event
    if saved != solver.iteration and (param.snapshot_after_train or solver.iteration < param.max_iter):
        yield Snapshotted(save(solver, param.snapshot_prefix))
    if solver.iteration < param.max_iter:
        return
    if solver.displays:
        yield Finished(solver.iteration, solver.forward())
    if param.test_interval and solver.iteration % param.test_interval == 0:
        yield from _tests(solver)


def steps(solver: Solver, count: int, should_stop: Callable[[], bool] = lambda: False) -> Iterator[Event]:
    """Make `count` updates, or as many as until `should_stop` says so, with the tests and snapshots among them."""
    param = solver.param
    for _ in range(count):
        if param.test_interval and solver.iteration % param.test_interval == 0 and (
                solver.iteration > 0 or param.test_initialization):
            yield from _tests(solver)
        displayed, step = solver.displays, solver.current_step
        rate = solver.step()
        moved_on = param.lr_policy == "multistep" and solver.current_step != step
        yield Iterated(solver.iteration - 1, solver.smoothed_loss(), rate, displayed,
                       solver.current_step if moved_on else None, solver.gradient_norm, _debug_lines(solver))
        if param.snapshot and solver.iteration % param.snapshot == 0:
            yield Snapshotted(save(solver, param.snapshot_prefix))
        if should_stop():
            break


def _tests(solver: Solver) -> Iterator[Tested]:
    for index in range(len(solver.test_nets)):
        outputs, loss = solver.test(index)
        yield Tested(solver.iteration, index, outputs, loss, _debug_lines(solver))


def _debug_lines(solver: Solver) -> tuple[str, ...]:
    lines, solver.debug_lines = tuple(solver.debug_lines), []
    return lines
