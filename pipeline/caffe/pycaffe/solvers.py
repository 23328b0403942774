"""The solvers under the names, and with the order of events, of Caffe's Python interface (pycaffe)."""

import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import ClassVar, cast

import torch

from pipeline.base.console import log
from pipeline.caffe.common import init_log, mode
from pipeline.caffe.net import Net as EngineNet
from pipeline.caffe.proto.caffe_pb2 import SolverParameter
from pipeline.caffe.proto.files import read_solver
from pipeline.caffe.pycaffe.net import Net
from pipeline.caffe.pycaffe.stepwise import StepwiseNet
from pipeline.caffe.solver import check_type, naming_solver, snapshot, upgrade_solver
from pipeline.caffe.solver import get_solver as get_engine_solver
from pipeline.caffe.solver import solve as training
from pipeline.caffe.solver.train_log_writer import TrainingLog


class Solver:
    """A net in training. SGDSolver(file) and its siblings are of their type, whatever type the file names.

    file: a solver's prototxt; files that it names are found from the working folder. What a training logs goes to
    standard error, as GLOG_minloglevel lets it. net: the train net; test_nets: those that are tested, with its blobs.
    param: the solver's message; a script may change it while it trains, as base_lr, which alone Caffe's lets it.
    Raises PrototxtError, SolverError, OSError.
    """

    type: ClassVar[str]

    def __init__(self, solver_file: str) -> None:
        with naming_solver(Path(solver_file)):
            self._make(upgrade_solver(read_solver(Path(solver_file))))

    def _make(self, param: SolverParameter) -> None:
        if not log.handlers:
            init_log()
            log.setLevel(max(log.level, logging.INFO))
        seeded = SolverParameter()
        seeded.CopyFrom(param)
        seeded.type = self.type
        if seeded.random_seed < 0 and (seed := mode.next_seed()) is not None:
            seeded.random_seed = seed
        self._solver = get_engine_solver(seeded, mode.device(), net_type=StepwiseNet)
        self._solver.keeps_updates = True
        self.param = self._solver.param  # what is written there holds from the next iteration on
        self._net = _stepwise(self._solver.net)
        self.net = Net.of(self._net)
        self.test_nets = [Net.of(_stepwise(net)) for net in self._solver.test_nets]
        self._log: TrainingLog | None = None

    @property
    def iter(self) -> int:
        """How many updates were made."""
        return self._solver.iteration

    @property
    def lr(self) -> float:
        """The learning rate of the next update."""
        return self._solver.learning_rate()

    def step(self, count: int) -> None:
        """Make `count` updates, with the tests, snapshots and lines in the log that come among them."""
        self._follow(training.steps(self._solver, count))

    def solve(self, resume_file: str | None = None) -> None:
        """Train to max_iter, from a .solverstate where one is given."""
        if resume_file is not None:
            self.restore(resume_file)
        self._follow(training.solve(self._solver))

    def _follow(self, events: Iterable[training.Event]) -> None:
        self._log = self._log or TrainingLog(self._solver, log)
        for event in events:
            if isinstance(event, training.Iterated):
                self._keep_updates()
            self._log.record(event)

    @torch.no_grad()
    def _keep_updates(self) -> None:
        """Leave in the diff of every blob what the update took off its data, as Caffe does."""
        for learnable, update in zip(self._net.learnable, self._solver.updates, strict=True):
            if learnable.blob.grad is not None:
                learnable.blob.grad.copy_(update)

    def apply_update(self) -> None:
        """Move the weights by the diff of the net's blobs; the number of updates made stays."""
        self._net.hand_blobs_to_engine()
        self._solver.apply_update()
        self._keep_updates()

    def snapshot(self) -> None:
        """Write a snapshot."""
        snapshot.save(self._solver, self._solver.param.snapshot_prefix)

    def restore(self, state_file: str) -> None:
        """Go back to a snapshot, a .solverstate and the weights beside it."""
        self._net.hand_blobs_to_engine()
        snapshot.restore(self._solver, Path(state_file))

    def add_callback(self, on_start: Callable[[], object], on_gradient: Callable[[], object]) -> None:
        """Call `on_start` before the batches of every update, and `on_gradient` after them, before the update."""

        def ready() -> None:
            on_gradient()
            self._net.hand_blobs_to_engine()  # it may have written to diff

        self._solver.on_start.append(lambda: cast("None", on_start()))
        self._solver.on_gradients_ready.append(ready)

    def share_weights(self, net: Net) -> None:
        """Let `net` use the values of the train net's layers of the same name."""
        net.share_with(self.net)


class SGDSolver(Solver):
    """Stochastic gradient descent with momentum."""

    type = "SGD"


class NesterovSolver(Solver):
    """Nesterov's accelerated gradient."""

    type = "Nesterov"


class AdaGradSolver(Solver):
    """AdaGrad (Duchi et al., 2011)."""

    type = "AdaGrad"


class RMSPropSolver(Solver):
    """RMSProp (Tieleman and Hinton, 2012)."""

    type = "RMSProp"


class AdaDeltaSolver(Solver):
    """AdaDelta (Zeiler, 2012)."""

    type = "AdaDelta"


class AdamSolver(Solver):
    """Adam (Kingma and Ba, 2015)."""

    type = "Adam"


def get_solver(solver_file: str) -> Solver:
    """The solver of the type that the file names. Raises SolverError when it is unknown, and as Solver does."""
    with naming_solver(Path(solver_file)):
        param = upgrade_solver(read_solver(Path(solver_file)))
        classes = {solver.type: solver for solver in Solver.__subclasses__()}
        check_type(param)
        made = object.__new__(classes[param.type])
        made._make(param)
    return made


def _stepwise(net: EngineNet) -> StepwiseNet:
    return cast("StepwiseNet", net)
