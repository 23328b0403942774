"""Whether a training still gets better: what lr_policy plateau and early stopping go by.

Caffe has neither. The windows of plateau are those of the forks that have it (sgd_solver.cpp of weiliu89's branch ssd,
GetLearningRate); patience counts tests, as Keras's ReduceLROnPlateau and EarlyStopping count epochs.
"""

import math
from typing import Any

from pipeline.caffe.proto.caffe_pb2 import SolverParameter
from pipeline.caffe.solver.errors import SolverError

TEST_METRICS = ("accuracy", "loss")


def check_progress(param: SolverParameter) -> None:
    """Raise SolverError for fields of plateau and early stopping that do not go together."""
    if param.early_stopping < 0 or param.plateau_patience < 0 or not param.min_delta >= 0:
        raise SolverError(
            f"early_stopping {param.early_stopping}, plateau_patience {param.plateau_patience}, "
            f"min_delta {param.min_delta:g}: at least 0 was expected"
        )
    if param.test_metric not in TEST_METRICS:
        raise SolverError(f"test_metric '{param.test_metric}' where {' or '.join(TEST_METRICS)} was expected")
    if any(size < 1 for size in param.plateau_winsize):
        raise SolverError(f"plateau_winsize {list(param.plateau_winsize)} where iterations, at least 1, were expected")
    if param.lr_policy == "plateau" and bool(param.plateau_winsize) == bool(param.plateau_patience):
        raise SolverError(
            "lr_policy 'plateau' needs either plateau_winsize (iterations without a lower training loss) "
            "or plateau_patience (tests without a better test_metric)"
        )


class Progress:
    """What the losses and tests of a training have come to.

    best: the best test_metric so far, None before the first test. stale: tests in a row that did not better it by more
    than min_delta. waited: the same, but counted anew after each step of plateau. minimum_loss: the lowest smoothed
    training loss, and last_event the iteration of it or of a step after it.
    """

    def __init__(self, param: SolverParameter) -> None:
        self.param = param
        self.best: float | None = None
        self.stale = 0
        self.waited = 0
        self.minimum_loss: float | None = None
        self.last_event = 0

    @property
    def needs_tests(self) -> bool:
        """Whether the training goes by what its first test net says."""
        return self.param.early_stopping > 0 or (self.param.lr_policy == "plateau" and self.param.plateau_patience > 0)

    @property
    def stops(self) -> bool:
        """Whether as many tests as early_stopping says were no better than the best before them."""
        return 0 < self.param.early_stopping <= self.stale

    def tested(self, value: float) -> None:
        """Note the test_metric of a test after the first update."""
        sign = 1 if self.param.test_metric == "accuracy" else -1
        if not math.isnan(value) and (self.best is None or sign * (value - self.best) > self.param.min_delta):
            self.best = value
            self.stale = self.waited = 0
        else:
            self.stale += 1
            self.waited += 1

    def plateau_step(self, step: int, iteration: int, loss: float) -> int:
        """The step of lr_policy plateau for an update, from the step before it and the smoothed loss."""
        if self.param.plateau_patience:
            if self.waited < self.param.plateau_patience:
                return step
            self.waited = 0
            return step + 1
        if self.minimum_loss is None or loss < self.minimum_loss:
            self.minimum_loss, self.last_event = loss, iteration
        windows = self.param.plateau_winsize
        if step < len(windows) and iteration - self.last_event >= windows[step]:
            self.last_event = iteration
            return step + 1
        return step

    def state(self) -> dict[str, Any]:
        """What a resumed training must have back, fit for JSON; empty where nothing goes by it."""
        if not self.param.early_stopping and self.param.lr_policy != "plateau":
            return {}
        return {name: value for name, value in vars(self).items() if name != "param"}

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to a state. Raises TypeError or KeyError for what is none."""
        for name in self.state():
            value = state[name]
            if not isinstance(value, int | float) and not (value is None and name in ("best", "minimum_loss")):
                raise TypeError(f"{name} {value!r} where a number was expected")
            setattr(self, name, value)
