"""The course of a training, as Solver::Solve and Solver::Step have it (caffe/solver.cpp): a stream of events."""

import math
from collections.abc import Callable, Generator
from dataclasses import dataclass
from enum import Enum
from typing import Any

import torch

from pipeline.caffe.common import solver_rank
from pipeline.caffe.solver import Solver, parallel
from pipeline.caffe.solver.snapshot import Snapshot, save


class Action(Enum):
    """What somebody outside, a signal for one, asks of a training."""

    NONE = "none"
    SNAPSHOT = "snapshot"
    STOP = "stop"


@dataclass(frozen=True)
class TestBegun:
    """A test net is about to run."""

    iteration: int
    net: int


@dataclass(frozen=True)
class TestInterrupted:
    """A test was left before its end, because the training is to stop."""

    iteration: int
    net: int


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

    step: multistep's or plateau's, where it has just moved on to it. gradient_norm: where clip_gradients had to clip.
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
class StoppedEarly:
    """The last `tests` tests were no better than the best before them, and early_stopping ends the training."""

    iteration: int
    tests: int
    best: float


@dataclass(frozen=True)
class Finished:
    """All updates are made, and a last batch has run forward. iteration: max_iter. loss: smoothed."""

    iteration: int
    loss: float


@dataclass(frozen=True)
class Ended:
    """Nothing comes after this. early: whether it stopped before max_iter, asked to or by early_stopping."""

    iteration: int
    early: bool


Event = TestBegun | TestInterrupted | Tested | Iterated | Snapshotted | StoppedEarly | Finished | Ended
Requests = Callable[[], Action]  # what is asked now; to be asked once, it must be NONE the next time


def nothing() -> Action:
    """Ask for nothing."""
    return Action.NONE


def solve(solver: Solver, requests: Requests = nothing) -> Generator[Event, None, None]:
    """Train until max_iter, until early_stopping ends the training, or until a request to stop.

    Tests come before the update of every test_interval-th iteration, snapshots after every snapshot-th, and both once
    more at the end where Caffe has them; there a last batch of the train net runs forward where display divides
    max_iter, and moves BatchNorm's statistics before the last test. Of several solvers the first alone tests, writes
    snapshots and is asked; the others heed it. Requests are heard after every update and before
    every batch of a test. Yields what happened as it happens.
    """
    param = solver.param
    stopped = yield from steps(solver, param.max_iter - solver.iteration, requests)
    if param.snapshot_after_train and not (param.snapshot and solver.iteration % param.snapshot == 0):
        yield from _snapshot(solver)
    if not stopped:
        if solver.displays:
            yield Finished(solver.iteration, solver.forward())
        if param.test_interval and solver.iteration % param.test_interval == 0:
            yield from _tests(solver, requests)
    yield Ended(solver.iteration, stopped)


def steps(solver: Solver, count: int, requests: Requests = nothing) -> Generator[Event, None, bool]:
    """Make `count` updates, with the tests and snapshots among them; return whether they were stopped before."""
    solver.heed_param()
    param, progress = solver.param, solver.progress
    for _ in range(count):
        if (
            not progress.stops
            and param.test_interval
            and solver.iteration % param.test_interval == 0
            and (solver.iteration > 0 or param.test_initialization)
        ):
            stopped = yield from _tests(solver, requests)
            if stopped:
                return True
        if progress.stops:
            best = math.nan if progress.best is None else progress.best
            yield StoppedEarly(solver.iteration, progress.stale, best)
            return True
        displayed, step = solver.displays, solver.current_step
        rate = solver.step()
        moved_on = param.lr_policy in ("multistep", "plateau") and solver.current_step != step
        yield Iterated(
            solver.iteration - 1,
            solver.smoothed_loss(),
            rate,
            displayed,
            solver.current_step if moved_on else None,
            solver.gradient_norm,
            _debug_lines(solver),
        )
        action = _asked(requests)
        if (param.snapshot and solver.iteration % param.snapshot == 0) or action is Action.SNAPSHOT:
            yield from _snapshot(solver)
        if action is Action.STOP:
            return True
    return False


def _asked(requests: Requests) -> Action:
    """What is asked of the first solver, in every solver."""
    actions = list(Action)
    [number] = parallel.from_first(actions.index(requests()))
    return actions[int(number)]


def _snapshot(solver: Solver) -> Generator[Event, None, None]:
    """Write a snapshot, if this is the first solver."""
    solver.states_of_others = parallel.states_of_others(solver.net)
    if solver_rank() == 0:
        yield Snapshotted(save(solver, solver.param.snapshot_prefix))


def _tests(solver: Solver, requests: Requests) -> Generator[Event, None, bool]:
    """Run all test nets, in the first solver alone; return whether a request stopped them."""
    stopped, metric = False, math.nan
    solver.states_of_others = parallel.states_of_others(solver.net)
    if solver_rank() == 0:
        stopped, metric = yield from _tests_of_first(solver, requests)
    stops, metric = parallel.from_first(stopped, metric)
    if not stops and solver.iteration > 0 and solver.progress.needs_tests:  # of iteration 0 there is no snapshot
        solver.progress.tested(metric)
    return bool(stops)


def _tests_of_first(solver: Solver, requests: Requests) -> Generator[Event, None, tuple[bool, float]]:
    """Run all test nets; return whether a request stopped them, and the test_metric if something goes by it.

    Who resumes a snapshot from amidst tests runs them all: in it the test nets stand where they stood before.
    """
    before = _states(solver)
    metric = math.nan
    for index, batches in enumerate(solver.param.test_iter):
        yield TestBegun(solver.iteration, index)
        sums: dict[str, torch.Tensor] = {}
        loss = torch.zeros((), device=solver.net.device)
        for _ in range(batches):
            while (action := requests()) is Action.SNAPSHOT:
                yield Snapshotted(_save_with(solver, before))
            if action is Action.STOP:
                _restore(solver, before)
                _debug_lines(solver)
                yield TestInterrupted(solver.iteration, index)
                return True, metric
            outputs, batch_loss = solver.test_batch(index)
            sums = {name: sums[name] + value if name in sums else value.clone() for name, value in outputs.items()}
            loss += batch_loss
        means = {name: value / batches for name, value in sums.items()}
        if index == 0 and solver.progress.needs_tests:
            metric = means[solver.param.test_metric].item()
        yield Tested(solver.iteration, index, means, loss.item() / max(1, batches), _debug_lines(solver))
    return False, metric


def _save_with(solver: Solver, states: list[dict[str, Any]]) -> Snapshot:
    """Write a snapshot in which the test nets stand in other states than they do."""
    now = _states(solver)
    _restore(solver, states)
    saved = save(solver, solver.param.snapshot_prefix)
    _restore(solver, now)
    return saved


def _states(solver: Solver) -> list[dict[str, Any]]:
    return [net.state() for net in solver.test_nets]


def _restore(solver: Solver, states: list[dict[str, Any]]) -> None:
    for net, state in zip(solver.test_nets, states, strict=True):
        net.restore(state)


def _debug_lines(solver: Solver) -> tuple[str, ...]:
    lines, solver.debug_lines = tuple(solver.debug_lines), []
    return lines
