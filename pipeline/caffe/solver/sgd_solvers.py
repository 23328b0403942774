"""The six rules by which Caffe's solvers move the weights (caffe/solvers/*_solver.cpp).

g is a blob's gradient with its decay, h a history blob, m is momentum and r the rate times the blob's lr_mult.
"""

import math

import torch

from pipeline.caffe.solver.errors import SolverError
from pipeline.caffe.solver.solver import Solver, register

Tensors = list[torch.Tensor] | tuple[torch.Tensor, ...]


@register("SGD")
class SGDSolver(Solver):
    """h = m h + r g; weight -= h."""

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
                blobs,
                gradients,
                history,
                weight_decay=local_rate * self.decay(decay_mult),
                momentum=self.param.momentum,
                lr=1.0,
                dampening=0.0,
                nesterov=False,
                maximize=False,
                is_first_step=False,
                grad_scale=torch.tensor(1 / local_rate, device=blobs[0].device),
            )
        self.updates = self.history


class _WholeGradientSolver(Solver):
    """A rule that is given every learnable blob's g, also where lr_mult is 0: its history gathers decay all the same.

    That holds for BatchNorm's statistics as well, as in Caffe; what comes out for them is multiplied by an r of 0.
    """

    def update(self, rate: float) -> None:
        blobs = [learnable.blob for learnable in self.net.learnable]
        gradients = [torch.zeros_like(blob) if blob.grad is None else blob.grad for blob in blobs]
        decays = [self.decay(learnable.decay_mult) for learnable in self.net.learnable]
        if any(decays):
            torch._foreach_add_(gradients, torch._foreach_mul(blobs, decays))
        rates = [rate * learnable.lr_mult for learnable in self.net.learnable]
        updates = self.rule(gradients, rates)
        torch._foreach_sub_(blobs, updates)
        self.updates = list(updates) if self.keeps_updates else []

    def rule(self, gradients: Tensors, rates: list[float]) -> Tensors:
        """Move the history by the gradients, one a learnable blob, and return what the weights lose."""
        raise NotImplementedError


@register("Nesterov")
class NesterovSolver(_WholeGradientSolver):
    """before = h; h = m h + r g; weight -= (1 + m) h - m before."""

    def rule(self, gradients: Tensors, rates: list[float]) -> Tensors:
        momentum = self.param.momentum
        updates = torch._foreach_mul(self.history, -momentum)
        torch._foreach_mul_(self.history, momentum)
        torch._foreach_add_(self.history, torch._foreach_mul(gradients, rates))
        torch._foreach_add_(updates, self.history, alpha=1 + momentum)
        return updates


@register("AdaGrad")
class AdaGradSolver(_WholeGradientSolver):
    """h += g^2; weight -= r g / (sqrt(h) + delta)."""

    def check(self) -> None:
        super().check()
        if self.param.momentum != 0:
            raise SolverError(f"momentum {self.param.momentum:g} where AdaGrad takes none; leave it out")

    def rule(self, gradients: Tensors, rates: list[float]) -> Tensors:
        torch._foreach_addcmul_(self.history, gradients, gradients)
        return _divided_by_root(gradients, self.history, self.param.delta, rates)


@register("RMSProp")
class RMSPropSolver(_WholeGradientSolver):
    """h = rms_decay h + (1 - rms_decay) g^2; weight -= r g / (sqrt(h) + delta)."""

    def check(self) -> None:
        super().check()
        if self.param.momentum != 0:
            raise SolverError(f"momentum {self.param.momentum:g} where RMSProp takes none; leave it out")
        if not 0 <= self.param.rms_decay < 1:
            raise SolverError(f"rms_decay {self.param.rms_decay:g} where at least 0 and less than 1 was expected")

    def rule(self, gradients: Tensors, rates: list[float]) -> Tensors:
        _average_squares(self.history, gradients, self.param.rms_decay)
        return _divided_by_root(gradients, self.history, self.param.delta, rates)


@register("AdaDelta")
class AdaDeltaSolver(_WholeGradientSolver):
    """h1 = m h1 + (1 - m) g^2; u = g sqrt((delta + h2) / (delta + h1)); h2 = m h2 + (1 - m) u^2; weight -= r u."""

    slots = 2

    def rule(self, gradients: Tensors, rates: list[float]) -> Tensors:
        momentum, delta, count = self.param.momentum, self.param.delta, len(gradients)
        of_gradients, of_updates = self.history[:count], self.history[count:]
        _average_squares(of_gradients, gradients, momentum)
        updates = torch._foreach_add(of_updates, delta)
        torch._foreach_div_(updates, torch._foreach_add(of_gradients, delta))
        torch._foreach_sqrt_(updates)
        torch._foreach_mul_(updates, gradients)
        _average_squares(of_updates, updates, momentum)
        torch._foreach_mul_(updates, rates)
        return updates


@register("Adam")
class AdamSolver(_WholeGradientSolver):
    """h1 = m h1 + (1 - m) g; h2 = n h2 + (1 - n) g^2; weight -= r c h1 / (sqrt(h2) + delta).

    n is momentum2 and c, for the t-th update, sqrt(1 - n^t) / (1 - m^t).
    """

    slots = 2

    def check(self) -> None:
        super().check()
        for name in ("momentum", "momentum2"):
            if not 0 <= (value := getattr(self.param, name)) < 1:  # Caffe's weights become NaN
                raise SolverError(f"{name} {value:g} where Adam takes at least 0 and less than 1")

    def rule(self, gradients: Tensors, rates: list[float]) -> Tensors:
        momentum, momentum2, count = self.param.momentum, self.param.momentum2, len(gradients)
        of_gradients, of_squares = self.history[:count], self.history[count:]
        torch._foreach_mul_(of_gradients, momentum)
        torch._foreach_add_(of_gradients, gradients, alpha=1 - momentum)
        _average_squares(of_squares, gradients, momentum2)
        number = self.iteration + 1
        correction = math.sqrt(1 - momentum2**number) / (1 - momentum**number)
        return _divided_by_root(of_gradients, of_squares, self.param.delta, [rate * correction for rate in rates])


def _average_squares(averages: Tensors, values: Tensors, share: float) -> None:
    """average = share * average + (1 - share) * value^2."""
    torch._foreach_mul_(averages, share)
    torch._foreach_addcmul_(averages, values, values, 1 - share)


def _divided_by_root(values: Tensors, squares: Tensors, delta: float, rates: list[float]) -> Tensors:
    """rate * value / (sqrt(square) + delta)."""
    roots = torch._foreach_sqrt(squares)
    torch._foreach_add_(roots, delta)
    divided = torch._foreach_div(values, roots)
    torch._foreach_mul_(divided, rates)
    return divided
