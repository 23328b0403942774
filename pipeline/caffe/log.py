"""A training log in glog's form, which Caffe's parse_log.py and plot_training_log.py read."""

import os
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from time import monotonic
from types import TracebackType

import torch

from pipeline.caffe.net import Net
from pipeline.caffe.solver import Solver
from pipeline.caffe.training import Event, Finished, Iterated, Snapshotted, Tested


class TrainingLog:
    """Writes what a training did as `caffe train` logs it; a context manager. A resumed run's lines are appended."""

    def __init__(self, path: Path, solver: Solver) -> None:
        self.solver = solver
        path.parent.mkdir(parents=True, exist_ok=True)
        self.file = open(path, "a", encoding="utf-8")  # noqa: SIM115 - closed by __exit__
        self.last = (monotonic(), solver.iteration)
        self.write(f"Solving {solver.net.name}")
        self.write(f"Learning Rate Policy: {solver.param.lr_policy}")
        if solver.iteration:
            self.write(f"Resuming at iteration {solver.iteration}")

    def write(self, message: str, severity: str = "I") -> None:
        """Write one line under glog's prefix: severity, month, day, time, thread, file and line."""
        now = datetime.now()
        self.file.write(f"{severity}{now:%m%d %H:%M:%S.%f} {os.getpid():5d} solver.py:0] {message}\n")
        self.file.flush()

    def record(self, event: Event) -> None:
        """Write the lines of one event."""
        if isinstance(event, Tested):
            self.write(f"Iteration {event.iteration}, Testing net (#{event.net})")
            self._write_all(event.debug_lines)
            if self.solver.param.test_compute_loss:
                self.write(f"Test loss: {event.loss:.6g}")
            self._outputs("Test", self.solver.test_nets[event.net], event.outputs.items())
        elif isinstance(event, Snapshotted):
            kind = "HDF5" if event.snapshot.hdf5 else "binary proto"
            self.write(f"Snapshotting to {kind} file {event.snapshot.weights}")
            self.write(f"Snapshotting solver state to {kind} file {event.snapshot.state}")
        elif isinstance(event, Finished):
            self.write(f"Iteration {event.iteration}, loss = {event.loss:.6g}")
        else:
            self._iterated(event)

    def _iterated(self, event: Iterated) -> None:
        self._write_all(event.debug_lines)
        if event.displayed:
            now, (then, iteration) = monotonic(), self.last
            self.last = (now, event.iteration)
            seconds = max(now - then, 1e-9)
            rate = (event.iteration - iteration) / seconds
            self.write(f"Iteration {event.iteration} ({rate:.6g} iter/s, {seconds:.6g}s/{self.solver.param.display} "
                       f"iters), loss = {event.loss:.6g}")
            net = self.solver.net
            self._outputs("Train", net, ((name, net.blobs[name]) for name in net.outputs))
        if event.step is not None:
            self.write(f"MultiStep Status: Iteration {event.iteration}, step = {event.step}")
        if event.displayed:
            self.write(f"Iteration {event.iteration}, lr = {event.rate:.6g}")
        if event.gradient_norm is not None:
            limit = self.solver.param.clip_gradients
            self.write(f"Gradient clipping: scaling down gradients (L2 norm {event.gradient_norm:.6g} > {limit:.6g}) "
                       f"by scale factor {limit / event.gradient_norm:.6g}")

    def _write_all(self, messages: Iterable[str]) -> None:
        for message in messages:
            self.write(message)

    def _outputs(self, phase: str, net: Net, outputs: Iterable[tuple[str, torch.Tensor]]) -> None:
        weights = {top: weight for layer in net.layers
                   for top, weight in zip(layer.param.top, layer.param.loss_weight, strict=False)}
        number = 0
        for name, values in outputs:
            for value in values.flatten().tolist():
                loss = f" (* {weights[name]:g} = {weights[name] * value:.6g} loss)" if weights.get(name) else ""
                self.write(f"    {phase} net output #{number}: {name} = {value:.6g}{loss}")
                number += 1

    def __enter__(self) -> "TrainingLog":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
                 ) -> None:
        if error is None and self.solver.iteration >= self.solver.param.max_iter:
            self.write("Optimization Done.")
        self.file.close()
