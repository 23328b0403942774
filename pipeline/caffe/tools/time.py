"""Benchmark a net layer by layer, forward and backward: time -model FILE [-iterations N] [-phase TEST] [-gpu N]."""

from argparse import Namespace
from time import perf_counter
from typing import Any

import numpy as np
import torch

from pipeline.base.console import log
from pipeline.base.errors import InputError
from pipeline.caffe.layers import Layer
from pipeline.caffe.need_backward import find_needs
from pipeline.caffe.net import Net
from pipeline.caffe.proto.caffe_pb2 import TEST, TRAIN, NetParameter, Phase
from pipeline.caffe.tools.flags import FlagParser
from pipeline.caffe.tools.nets import build_model, choose_device, prepare, zeros

_PHASES = {"": TRAIN, "TRAIN": TRAIN, "TEST": TEST}


def add_arguments(parser: FlagParser) -> None:
    parser.add_caffe_flags(("model", "iterations", "phase", "gpu", "level", "stage", "allow_python_layers"))


def run(args: Namespace) -> None:
    """Time -iterations batches after one to warm up."""
    if not args.model:
        raise InputError("Need a model definition to time: give -model FILE")
    if args.phase not in _PHASES:
        raise InputError(f'-phase {args.phase}: phase must be "TRAIN" or "TEST"')
    if args.iterations < 1:
        raise InputError(f"-iterations {args.iterations} where at least 1 was expected")
    prepare(args)
    net = build_model(args, _PHASES[args.phase], choose_device(args), TimedNet)
    inputs = zeros(net)
    log.info("Performing Forward")
    net.forward(**inputs)
    log.info("Initial loss: %.6g", net.loss.item())
    log.info("Performing Backward")
    net.backward()
    net.reset()
    log.info("*** Benchmark begins ***")
    log.info("Testing for %d iterations.", args.iterations)
    begin = perf_counter()
    for iteration in range(1, args.iterations + 1):
        start = perf_counter()
        net.forward(**inputs)
        net.backward()
        log.info("Iteration: %d forward-backward time: %.6g ms.", iteration, 1000 * (perf_counter() - start))
    total = 1000 * (perf_counter() - begin)
    _report(net, total, args.iterations)


class TimedNet(Net):
    """A net whose layers stand each on a graph of its own, so that backward too runs them one by one; times both.

    forward_seconds, backward_seconds: by layer, added up over batches. As in Caffe, a layer's blobs get gradients even
    where no loss comes after it, and bottoms where one does.
    """

    def __init__(self, param: NetParameter, phase: Phase, **options: Any) -> None:
        super().__init__(param, phase, **options)
        self.needs = find_needs(self.layers)
        self.watch = self._layer_ran
        self.reset()

    def reset(self) -> None:
        """Forget what was added up."""
        self.forward_seconds = [0.0] * len(self.layers)
        self.backward_seconds = [0.0] * len(self.layers)

    def forward(self, **inputs: np.ndarray | torch.Tensor) -> dict[str, torch.Tensor]:
        self.ran: list[tuple[list[torch.Tensor], list[torch.Tensor]]] = []
        self.then = self._now()
        return super().forward(**inputs)

    def _bottoms(self, layer: Layer) -> list[torch.Tensor]:
        needs = self.needs[len(self.ran)].bottoms
        return [
            bottom.detach().requires_grad_(need) for bottom, need in zip(super()._bottoms(layer), needs, strict=True)
        ]

    def _layer_ran(self, layer: Layer, bottoms: list[torch.Tensor], tops: list[torch.Tensor]) -> None:
        now = self._now()
        self.forward_seconds[len(self.ran)] += now - self.then
        self.then = now
        self.ran.append((bottoms, tops))

    def backward(self) -> None:
        """Run the layers of the last forward backward, the last one first."""
        gradients: dict[str, torch.Tensor] = {}
        for index in reversed(range(len(self.ran))):
            start = self._now()
            self._layer_backward(index, gradients)
            self.backward_seconds[index] += self._now() - start

    def _layer_backward(self, index: int, gradients: dict[str, torch.Tensor]) -> None:
        """Run a layer backward, from the gradients of its tops to those of its bottoms, by the blobs' names."""
        layer, (bottoms, tops) = self.layers[index], self.ran[index]
        wanted = {
            name: bottom for name, bottom in zip(layer.param.bottom, bottoms, strict=True) if bottom.requires_grad
        }
        leaves = [*wanted.values(), *(blob for blob in layer.blobs if blob.requires_grad)]
        weights = [*layer.param.loss_weight, *[0.0] * len(tops)]
        seeds = [gradients.pop(name, None) for name in layer.param.top]
        ends = [
            (top, torch.full_like(top, weight) if seed is None else seed)
            for top, seed, weight in zip(tops, seeds, weights, strict=False)
            if top.requires_grad
        ]
        if leaves and ends:
            found = torch.autograd.grad([top for top, _ in ends], leaves, [seed for _, seed in ends], allow_unused=True)
            gradients.update(
                (name, gradient) for name, gradient in zip(wanted, found, strict=False) if gradient is not None
            )

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return perf_counter()


def _report(net: TimedNet, total: float, iterations: int) -> None:
    log.info("Average time per layer: ")
    forward = [1000 * seconds / iterations for seconds in net.forward_seconds]
    backward = [1000 * seconds / iterations for seconds in net.backward_seconds]
    for layer, there, back in zip(net.layers, forward, backward, strict=True):
        log.info("%10s\tforward: %.6g ms.", layer.param.name, there)
        log.info("%10s\tbackward: %.6g ms.", layer.param.name, back)
    log.info("Average Forward pass: %.6g ms.", sum(forward))
    log.info("Average Backward pass: %.6g ms.", sum(backward))
    log.info("Average Forward-Backward: %.6g ms.", total / iterations)
    log.info("Total Time: %.6g ms.", total)
    log.info("*** Benchmark ends ***")
