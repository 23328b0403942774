"""Caffe's solvers: a train net, its test nets, and the rule that moves the weights (caffe/solver.cpp)."""

import math
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

from pipeline.caffe.caffe_pb2 import TEST, TRAIN, NetParameter, NetState, Phase, SolverParameter
from pipeline.caffe.net import Net, build_net
from pipeline.caffe.proto import PrototxtError

SOLVERS: dict[str, type["Solver"]] = {}

# The rate at iteration `it`; step policies also know the current step. Formulas: caffe/solvers/sgd_solver.cpp,
# GetLearningRate.
POLICIES: dict[str, Callable[[SolverParameter, int, int], float]] = {
    "fixed": lambda p, it, step: p.base_lr,
    "step": lambda p, it, step: p.base_lr * p.gamma ** (it // p.stepsize),
    "exp": lambda p, it, step: p.base_lr * p.gamma**it,
    "inv": lambda p, it, step: p.base_lr * (1 + p.gamma * it) ** -p.power,
    "multistep": lambda p, it, step: p.base_lr * p.gamma**step,
    "poly": lambda p, it, step: p.base_lr * (1 - it / p.max_iter) ** p.power,
    "sigmoid": lambda p, it, step: p.base_lr / (1 + math.exp(-p.gamma * (it - p.stepsize))),
}


class SolverError(PrototxtError):
    """A solver's prototxt that says what no solver can do."""


def register(name: str) -> Callable[[type["Solver"]], type["Solver"]]:
    """Enter a class in the registry as the solver type `name`."""

    def enter(solver_class: type["Solver"]) -> type["Solver"]:
        SOLVERS[name] = solver_class
        return solver_class

    return enter


def get_solver(param: SolverParameter, device: str = "cpu", precision: str = "float32") -> "Solver":
    """Make the solver of param.type. Raises SolverError when it is unknown, and as Solver does."""
    if param.type not in SOLVERS:
        raise SolverError(f"solver type '{param.type}' is unknown; the engine has {', '.join(sorted(SOLVERS))}")
    return SOLVERS[param.type](param, device, precision)


class Solver:
    """A net in training.

    param: the solver's message. net: the train net; test_nets share its blobs. iteration: updates made so far.
    history: one tensor a learnable blob and slot, in the order of a .solverstate. losses: the last average_loss losses.
    """

    slots = 1  # history blobs a learnable blob

    def __init__(self, param: SolverParameter, device: str = "cpu", precision: str = "float32") -> None:
        self.param = param
        self.iteration = 0
        self.current_step = 0
        self.losses: deque[float] = deque(maxlen=max(1, param.average_loss))
        self._check()
        build = partial(self._net, device=device, precision=precision,
                        seed=param.random_seed if param.random_seed >= 0 else None)
        self.net = build(TRAIN, param.train_state, param.train_net, param.train_net_param)
        self.test_nets: list[Net] = []
        states = list(param.test_state) or [NetState()] * len(param.test_iter)
        for index, state in enumerate(states):
            path = param.test_net[index] if index < len(param.test_net) else ""
            message = param.test_net_param[index] if index < len(param.test_net_param) else NetParameter()
            test_net = build(TEST, state, path, message)
            test_net.share_with(self.net)
            self.test_nets.append(test_net)
        self.history = [torch.zeros_like(learnable.blob, requires_grad=False)
                        for _ in range(self.slots) for learnable in self.net.learnable]

    def _check(self) -> None:
        param = self.param
        if param.lr_policy not in POLICIES:
            raise SolverError(f"lr_policy '{param.lr_policy}' is unknown; one of {', '.join(POLICIES)} was expected")
        if param.lr_policy == "step" and param.stepsize < 1:
            raise SolverError("lr_policy 'step' needs a stepsize of at least 1")
        if param.max_iter < 0 or param.iter_size < 1:
            raise SolverError(f"max_iter {param.max_iter}, iter_size {param.iter_size}: at least 0 and 1 were expected")
        if param.regularization_type not in ("L1", "L2"):
            raise SolverError(f"regularization_type '{param.regularization_type}' is unknown; L1 or L2 was expected")
        if param.test_state and len(param.test_state) != len(param.test_iter):
            raise SolverError(f"{len(param.test_iter)} test_iter for {len(param.test_state)} test_state")
        if param.test_iter and param.test_interval < 1:
            raise SolverError("test_iter needs a test_interval of at least 1")

    def _net(self, phase: Phase, state: NetState, path: str, message: NetParameter, **options: Any) -> Net:
        options |= {"level": state.level, "stages": tuple(state.stage)}
        if message.layer:
            return Net(message, phase, **options)
        path = path or self.param.net
        if path:
            return build_net(Path(path), phase, **options)
        if self.param.HasField("net_param"):
            return Net(self.param.net_param, phase, **options)
        raise SolverError("no net is named; set net, or train_net and test_net")

    def learning_rate(self) -> float:
        """The rate of the next update; multistep moves on by at most one step an iteration, as Caffe does."""
        param = self.param
        if (param.lr_policy == "multistep" and self.current_step < len(param.stepvalue)
                and self.iteration >= param.stepvalue[self.current_step]):
            self.current_step += 1
        return POLICIES[param.lr_policy](param, self.iteration, self.current_step)

    def step(self) -> float:
        """Run one iteration: iter_size batches forward and backward, then one update. Returns its rate."""
        for learnable in self.net.learnable:
            learnable.blob.grad = None
        loss = 0.0
        for _ in range(self.param.iter_size):
            self.net.forward()
            if self.net.loss.requires_grad:
                self.net.loss.backward()
            loss += self.net.loss.item()
        self.losses.append(loss / self.param.iter_size)
        rate = self.learning_rate()
        with torch.no_grad():
            self._prepare_gradients()
            self.update(rate)
        self.iteration += 1
        return rate

    def _prepare_gradients(self) -> None:
        for learnable in self.net.learnable:
            if learnable.lr_mult and learnable.blob.grad is None:  # what the loss does not reach decays all the same
                learnable.blob.grad = torch.zeros_like(learnable.blob)
        gradients = [learnable.blob.grad for learnable in self.net.learnable if learnable.blob.grad is not None]
        clip = self.param.clip_gradients
        if clip > 0:
            norm = math.sqrt(sum(gradient.double().square().sum().item() for gradient in gradients))
            if norm > clip:
                torch._foreach_mul_(gradients, clip / norm)
        if self.param.iter_size > 1:
            torch._foreach_mul_(gradients, 1 / self.param.iter_size)
        if self.param.regularization_type == "L1":
            for learnable in self.net.learnable:
                decay = self.param.weight_decay * learnable.decay_mult
                if decay and learnable.blob.grad is not None:
                    learnable.blob.grad.add_(learnable.blob.sign(), alpha=decay)

    def update(self, rate: float) -> None:
        """Move the history and the weights by the gradients, which are clipped and averaged already."""
        raise NotImplementedError

    def smoothed_loss(self) -> float:
        """The mean of the last average_loss losses, as Caffe displays it."""
        return sum(self.losses) / len(self.losses)

    def test(self, index: int) -> dict[str, torch.Tensor]:
        """Run test net `index` for its test_iter batches; return the mean of each of its outputs, alphabetically."""
        net, batches = self.test_nets[index], self.param.test_iter[index]
        sums: dict[str, torch.Tensor] = {}
        with torch.no_grad():
            for _ in range(batches):
                for name, value in net.forward().items():
                    sums[name] = sums[name] + value if name in sums else value.clone()
        return {name: value / batches for name, value in sums.items()}

    def groups(self) -> Iterator[tuple[float, float, list[int]]]:
        """The learnable blobs that have a gradient, by index, grouped by (lr_mult, decay_mult)."""
        grouped: dict[tuple[float, float], list[int]] = {}
        for index, learnable in enumerate(self.net.learnable):
            if learnable.blob.grad is not None:
                grouped.setdefault((learnable.lr_mult, learnable.decay_mult), []).append(index)
        for (lr_mult, decay_mult), indices in grouped.items():
            yield lr_mult, decay_mult, indices

    def decay(self, decay_mult: float) -> float:
        """The L2 decay of a blob; L1's is already in its gradient."""
        return self.param.weight_decay * decay_mult if self.param.regularization_type == "L2" else 0.0


@register("SGD")
class SGDSolver(Solver):
    """history = momentum * history + rate * lr_mult * (gradient + decay * weight); weight -= history."""

    def update(self, rate: float) -> None:
        for lr_mult, decay_mult, indices in self.groups():
            blobs = [self.net.learnable[index].blob for index in indices]
            gradients = [blob.grad for blob in blobs if blob.grad is not None]
            history = [self.history[index] for index in indices]
            local_rate = rate * lr_mult
            if local_rate == 0 or self.param.momentum == 0:  # what torch's fused kernel does not do
                torch._foreach_mul_(history, self.param.momentum)
                torch._foreach_add_(history, gradients, alpha=local_rate)
                torch._foreach_add_(history, blobs, alpha=local_rate * self.decay(decay_mult))
                torch._foreach_sub_(blobs, history)
                continue
            # torch's fused kernel does all of it in one pass over memory. Its own rate stays 1 and the gradients are
            # divided by 1/rate, so that the rate is inside the momentum history, where Caffe has it.
            torch._fused_sgd_(
                blobs, gradients, history,
                weight_decay=local_rate * self.decay(decay_mult), momentum=self.param.momentum, lr=1.0, dampening=0.0,
                nesterov=False, maximize=False, is_first_step=False,
                grad_scale=torch.tensor(1 / local_rate, device=blobs[0].device),
            )
