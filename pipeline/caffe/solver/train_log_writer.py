"""What a training logs, in the words that Caffe's parse_log.py and plot_training_log.py read."""

import logging
from collections.abc import Iterable, Iterator
from time import monotonic

import torch

from pipeline.caffe.net import Net
from pipeline.caffe.solver import Solver
from pipeline.caffe.solver.solve import (
    Ended,
    Event,
    Finished,
    Iterated,
    Snapshotted,
    StoppedEarly,
    TestBegun,
    Tested,
    TestInterrupted,
)


class TrainingLog:
    """Writes what a training does to a logger, as `caffe train` logs it."""

    def __init__(self, solver: Solver, logger: logging.Logger) -> None:
        self.solver = solver
        self.write = logger.info
        self.last = (monotonic(), solver.iteration)
        self.write("Solving %s", solver.net.name)
        self.write("Learning Rate Policy: %s", solver.param.lr_policy)

    def record(self, event: Event) -> None:
        """Write the lines of one event."""
        match event:
            case TestBegun():
                self.write(f"Iteration {event.iteration}, Testing net (#{event.net})")
            case TestInterrupted():
                self.write("Test interrupted.")
            case Tested():
                self._write_all(event.debug_lines)
                if self.solver.param.test_compute_loss:
                    self.write(f"Test loss: {event.loss:.6g}")
                self._outputs("Test", self.solver.test_nets[event.net], event.outputs.items())
            case Snapshotted():
                kind = "HDF5" if event.snapshot.hdf5 else "binary proto"
                self.write(f"Snapshotting to {kind} file {event.snapshot.weights}")
                self.write(f"Snapshotting solver state to {kind} file {event.snapshot.state}")
            case StoppedEarly():
                self.write(
                    f"Early stopping: Iteration {event.iteration}, {event.tests} tests no better than "
                    f"{self.solver.param.test_metric} = {event.best:.6g}"
                )
            case Finished():
                self.write(f"Iteration {event.iteration}, loss = {event.loss:.6g}")
            case Ended():
                self.write("Optimization stopped early." if event.early else "Optimization Done.")
            case Iterated():
                self._iterated(event)

    def _iterated(self, event: Iterated) -> None:
        self._write_all(event.debug_lines)
        if event.displayed:
            now, (then, iteration) = monotonic(), self.last
            self.last = (now, event.iteration)
            seconds = max(now - then, 1e-9)
            rate = (event.iteration - iteration) / seconds
            self.write(
                f"Iteration {event.iteration} ({rate:.6g} iter/s, {seconds:.6g}s/{self.solver.param.display} "
                f"iters), loss = {event.loss:.6g}"
            )
            net = self.solver.net
            self._outputs("Train", net, ((name, net.blobs[name]) for name in net.outputs))
        if event.step is not None:
            policy = "Plateau" if self.solver.param.lr_policy == "plateau" else "MultiStep"
            self.write(f"{policy} Status: Iteration {event.iteration}, step = {event.step}")
        if event.displayed:
            self.write(f"Iteration {event.iteration}, lr = {event.rate:.6g}")
        if event.gradient_norm is not None:
            limit = self.solver.param.clip_gradients
            self.write(
                f"Gradient clipping: scaling down gradients (L2 norm {event.gradient_norm:.6g} > {limit:.6g}) "
                f"by scale factor {limit / event.gradient_norm:.6g}"
            )

    def _write_all(self, messages: Iterable[str]) -> None:
        for message in messages:
            self.write("%s", message)

    def _outputs(self, phase: str, net: Net, outputs: Iterable[tuple[str, torch.Tensor]]) -> None:
        for number, line in enumerate(described(net, outputs)):
            self.write("    %s net output #%d: %s", phase, number, line)


def described(net: Net, outputs: Iterable[tuple[str, torch.Tensor]]) -> Iterator[str]:
    """A line for each value of a net's outputs: "loss = 2.2 (* 0.5 = 1.1 loss)", the weight only where it has one."""
    weights = {
        top: weight
        for layer in net.layers
        for top, weight in zip(layer.param.top, layer.param.loss_weight, strict=False)
    }
    for name, values in outputs:
        for value in values.flatten().tolist():
            loss = f" (* {weights[name]:g} = {weights[name] * value:.6g} loss)" if weights.get(name) else ""
            yield f"{name} = {value:.6g}{loss}"
