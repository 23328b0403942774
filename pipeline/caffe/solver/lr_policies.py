"""Caffe's learning rate policies (caffe/solvers/sgd_solver.cpp, GetLearningRate), and plateau, which forks have."""

import math
from collections.abc import Callable

from pipeline.caffe.proto.caffe_pb2 import SolverParameter
from pipeline.caffe.solver.errors import SolverError

_LARGEST_EXPONENT = 700.0  # exp of more than 709 raises in Python, where C answers infinity and the rate is 0


def _power(base: float, exponent: float) -> float:
    """C's pow, which answers infinity or NaN where Python raises."""
    try:
        return math.pow(base, exponent)
    except OverflowError:
        return math.inf
    except ValueError:
        return math.nan


# The rate at iteration `it`; step policies also know the current step.
POLICIES: dict[str, Callable[[SolverParameter, int, int], float]] = {
    "fixed": lambda p, it, step: p.base_lr,
    "step": lambda p, it, step: p.base_lr * _power(p.gamma, it // p.stepsize),
    "exp": lambda p, it, step: p.base_lr * _power(p.gamma, it),
    "inv": lambda p, it, step: p.base_lr * _power(1 + p.gamma * it, -p.power),
    "multistep": lambda p, it, step: p.base_lr * _power(p.gamma, step),
    "poly": lambda p, it, step: p.base_lr * _power(1 - it / p.max_iter, p.power),
    "sigmoid": lambda p, it, step: p.base_lr / (1 + math.exp(min(-p.gamma * (it - p.stepsize), _LARGEST_EXPONENT))),
}


# With the one that only forks of Caffe have; Progress says when its step comes.
ALL_POLICIES = POLICIES | {"plateau": POLICIES["multistep"]}


def warmed_up(param: SolverParameter, iteration: int, rate: float) -> float:
    """A policy's rate with the warm-up: in the first warmup_iter iterations it rises linearly to what the policy says.

    Iteration i, counted from 0, has (i + 1) / warmup_iter of the policy's rate, so the last one has all of it.
    """
    return rate * min(1.0, (iteration + 1) / param.warmup_iter) if param.warmup_iter else rate


def check_policy(param: SolverParameter) -> None:
    """Raise SolverError for an unknown lr_policy, for a gamma or stepsize that Caffe refuses for it, and for a
    warmup_iter below 0.
    """
    if param.warmup_iter < 0:
        raise SolverError(f"warmup_iter {param.warmup_iter} where at least 0 was expected")
    policy = param.lr_policy
    if policy not in ALL_POLICIES:
        raise SolverError(f"lr_policy '{policy}' is unknown; one of {', '.join(ALL_POLICIES)} was expected")
    if policy in ("step", "sigmoid") and param.stepsize < 1:
        raise SolverError(f"lr_policy '{policy}' needs a stepsize of at least 1")
    if policy not in ("fixed", "poly") and param.gamma < 0:
        raise SolverError(f"gamma {param.gamma:g} where lr_policy '{policy}' takes at least 0")
