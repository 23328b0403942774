"""What every solver is: a train net, its test nets, and the course of one update (caffe/solver.cpp)."""

import math
import os
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from pipeline.base.console import log
from pipeline.caffe.common import solver_rank
from pipeline.caffe.net import Net
from pipeline.caffe.proto.caffe_pb2 import SolverParameter
from pipeline.caffe.proto.files import to_text
from pipeline.caffe.proto.prototxt_errors import suggest
from pipeline.caffe.solver import nets, parallel
from pipeline.caffe.solver.debug_info import DebugInfo
from pipeline.caffe.solver.errors import SolverError
from pipeline.caffe.solver.lr_policies import ALL_POLICIES, check_policy, warmed_up
from pipeline.caffe.solver.progress import Progress, check_progress
from pipeline.caffe.weights import check_hdf5_names

SOLVERS: dict[str, type["Solver"]] = {}

# The enum that named a solver's type until 2015 (caffe/util/upgrade_proto.cpp, UpgradeSolverType).
_LEGACY_TYPES = {
    SolverParameter.SGD: "SGD",
    SolverParameter.NESTEROV: "Nesterov",
    SolverParameter.ADAGRAD: "AdaGrad",
    SolverParameter.RMSPROP: "RMSProp",
    SolverParameter.ADADELTA: "AdaDelta",
    SolverParameter.ADAM: "Adam",
}


def register(name: str) -> Callable[[type["Solver"]], type["Solver"]]:
    """Enter a class in the registry as the solver type `name`."""

    def enter(solver_class: type["Solver"]) -> type["Solver"]:
        SOLVERS[name] = solver_class
        return solver_class

    return enter


def upgrade_solver(param: SolverParameter) -> SolverParameter:
    """The message with its type by name, where the solver_type of before 2015 gives it.

    Raises SolverError when both are there.
    """
    upgraded = SolverParameter()
    upgraded.CopyFrom(param)
    if param.HasField("solver_type"):
        if param.HasField("type"):
            raise SolverError(f"both type '{param.type}' and the solver_type of before 2015 are given; keep type")
        upgraded.type = _LEGACY_TYPES[param.solver_type]
        upgraded.ClearField("solver_type")
    return upgraded


def check_type(param: SolverParameter) -> None:
    """Raise SolverError when there is no solver of param.type."""
    if param.type not in SOLVERS:
        hint = suggest(param.type, SOLVERS) or f"; the engine has {', '.join(sorted(SOLVERS))}"
        raise SolverError(f"solver type '{param.type}' is unknown{hint}")


def get_solver(
    param: SolverParameter, device: str = "cpu", precision: str = "float32", net_type: type[Net] = Net
) -> "Solver":
    """Make the solver of param.type. Raises SolverError when it is unknown, and as Solver does."""
    param = upgrade_solver(param)
    check_type(param)
    if param.HasField("layer_wise_reduce"):
        log.info("layer_wise_reduce is ignored: several GPUs exchange all gradients at once, which gives the same")
    return SOLVERS[param.type](param, device, precision, net_type)


class Solver:
    """A net in training.

    param: the solver's message. net: the train net; test_nets share its blobs. iteration: updates made so far.
    progress: what plateau and early stopping go by.
    history: one tensor a learnable blob and slot, in the order of a .solverstate. losses: the last average_loss losses.
    gradient_norm: what clip_gradients found too long in the last update, else None. updates: what each learnable blob
    lost in the last update; empty before the first and, for all but SGD, unless keeps_updates, which snapshot_diff
    sets. debug_lines: what debug_info logs of the batches since they were last taken away. on_start and
    on_gradients_ready: called in every iteration before its batches and before its update. states_of_others: of the
    train nets of the solvers that train with this one, as they stood at its last test or snapshot.
    """

    slots = 1  # history blobs a learnable blob

    def __init__(
        self, param: SolverParameter, device: str = "cpu", precision: str = "float32", net_type: type[Net] = Net
    ) -> None:
        self.param = param
        self.iteration = 0
        self.current_step = 0
        self.progress = Progress(param)
        self.losses: deque[float] = deque(maxlen=max(1, param.average_loss))
        self.gradient_norm: float | None = None
        self.updates: list[torch.Tensor] = []
        self.keeps_updates = param.snapshot_diff
        self.debug_lines: list[str] = []
        self.on_start: list[Callable[[], None]] = []
        self.on_gradients_ready: list[Callable[[], None]] = []
        self.states_of_others: list[dict[str, Any]] = []
        self.check()
        log.debug("Initializing solver from parameters: \n%s", "".join(to_text(param)).rstrip())
        options = {
            "device": device,
            "precision": precision,
            "seed": param.random_seed + solver_rank() if param.random_seed >= 0 else None,
        }
        test_nets, train_net = nets.test_nets(param), nets.train_net(param)
        built = []
        for index, named in enumerate((train_net, *test_nets)):
            log.debug(
                "Creating %s",
                f"test net (#{index - 1}) specified by {named}"
                if index
                else f"training net from {named}"
                if isinstance(named.source, str)
                else f"training net specified in {named}.",
            )
            net = named.build(net_type, **options)
            for weights in nets.weights(param):
                log.debug("Finetuning from %s", weights)
                net.copy_from(weights)
            built.append(net)
        self.net, *self.test_nets = built
        if param.snapshot_format == SolverParameter.HDF5:
            check_hdf5_names(self.net)
        for test_net in self.test_nets:
            test_net.share_with(self.net)
        if self.progress.needs_tests:
            self._check_test_metric()
        self.history = [
            torch.zeros_like(learnable.blob, requires_grad=False)
            for _ in range(self.slots)
            for learnable in self.net.learnable
        ]
        log.debug("Solver scaffolding done.")

    def check(self) -> None:
        """Raise SolverError for fields that no solver, or not this one, can follow."""
        param = self.param
        check_policy(param)
        check_progress(param)
        if param.max_iter < 0 or param.iter_size < 1:
            raise SolverError(f"max_iter {param.max_iter}, iter_size {param.iter_size}: at least 0 and 1 were expected")
        if param.average_loss < 1:
            raise SolverError(f"average_loss {param.average_loss} where at least 1 was expected")
        if param.regularization_type not in ("L1", "L2"):
            raise SolverError(f"regularization_type '{param.regularization_type}' is unknown; L1 or L2 was expected")
        if param.snapshot > 0:
            _check_snapshot_prefix(param.snapshot_prefix)

    def heed_param(self) -> None:
        """Take in what was changed in `param` since the last iterations. Raises SolverError as the making does."""
        self.check()
        if self.progress.needs_tests:
            self._check_test_metric()
        if self.losses.maxlen != self.param.average_loss:
            self.losses = deque(self.losses, maxlen=self.param.average_loss)

    def _check_test_metric(self) -> None:
        metric = self.param.test_metric
        if not self.test_nets:
            raise SolverError(
                "early_stopping and plateau_patience go by tests, and there is no test net; give one by "
                "test_iter and test_interval"
            )
        if math.prod(self.test_nets[0].shapes.get(metric, (0,))) != 1 or metric not in self.test_nets[0].outputs:
            raise SolverError(
                f"test_metric '{metric}' where the outputs of the test net are "
                f"{', '.join(self.test_nets[0].outputs)}; one number called {metric} was expected"
            )

    def learning_rate(self) -> float:
        """The rate of the next update; multistep and plateau move on by at most one step an iteration."""
        param = self.param
        if param.lr_policy == "step":  # not needed for the rate, but it stands in a .solverstate
            self.current_step = self.iteration // param.stepsize
        if param.lr_policy == "plateau" and self.losses:
            self.current_step = self.progress.plateau_step(self.current_step, self.iteration, self.smoothed_loss())
        if (
            param.lr_policy == "multistep"
            and self.current_step < len(param.stepvalue)
            and self.iteration >= param.stepvalue[self.current_step]
        ):
            self.current_step += 1
        rate = ALL_POLICIES[param.lr_policy](param, self.iteration, self.current_step)
        return warmed_up(param, self.iteration, rate)

    @property
    def displays(self) -> bool:
        """Whether Caffe would print the iteration that comes next."""
        return bool(self.param.display) and self.iteration % self.param.display == 0

    def step(self) -> float:
        """Run one iteration: iter_size batches forward and backward, then one update. Returns its rate."""
        self.net.clear_gradients()
        for start in self.on_start:
            start()
        loss = 0.0
        for _ in range(self.param.iter_size):
            with DebugInfo(self.net, self.debug_lines, self.param.debug_info and self.displays):
                self.net.forward()
                self.net.backward()
            loss += self.net.loss.item()
        self.losses.append(parallel.average_ranks(loss / self.param.iter_size))
        for ready in self.on_gradients_ready:
            ready()
        return self.apply_update()

    def apply_update(self) -> float:
        """Move the weights by the gradients that the net has, which counts as an iteration. Returns the rate."""
        rate = self.learning_rate()
        with torch.no_grad():
            self._prepare_gradients()
            self.update(rate)
        self.iteration += 1
        return rate

    def gradients(self) -> list[torch.Tensor]:
        """The gradients of all blobs that learn; of those that the loss does not reach, which decay all the same, 0."""
        for learnable in self.net.learnable:
            if learnable.lr_mult and learnable.blob.grad is None:
                learnable.blob.grad = torch.zeros_like(learnable.blob)
        return [learnable.blob.grad for learnable in self.net.learnable if learnable.blob.grad is not None]

    def _prepare_gradients(self) -> None:
        gradients = self.gradients()
        clip = self.param.clip_gradients
        self.gradient_norm = None
        if clip >= 0:
            norm = math.sqrt(sum(gradient.double().square().sum().item() for gradient in gradients))
            if norm > clip:
                self.gradient_norm = norm
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

    def forward(self) -> float:
        """Run a batch of the train net forward only, its loss joining the others; return the smoothed loss."""
        with torch.no_grad():
            self.net.forward()
        self.losses.append(parallel.average_ranks(self.net.loss.item()))
        return self.smoothed_loss()

    def test_batch(self, index: int) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """Run a batch of test net `index`; return its outputs, by name, and its loss."""
        net = self.test_nets[index]
        with torch.no_grad(), DebugInfo(net, self.debug_lines, self.param.debug_info):
            return net.forward(), net.loss

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


def _check_snapshot_prefix(prefix: str) -> None:
    """Say before the training, and not at its first snapshot, that none can be written."""
    if not prefix:
        raise SolverError("snapshot needs a snapshot_prefix")
    folder = Path(prefix).absolute().parent
    while not folder.exists():  # what is missing is made with the first snapshot
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise SolverError(f"snapshot_prefix '{prefix}': {folder} is no folder that can be written to")
