"""Train a net with a solver: train -solver FILE [-weights FILE,FILE | -snapshot FILE] [-gpu N].

SIGINT and SIGHUP do what -sigint_effect and -sighup_effect say after the iteration, or the batch of a test, that runs.
"""

import signal
from argparse import Namespace
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import torch

from pipeline.base.console import log
from pipeline.base.errors import InputError
from pipeline.caffe.proto.caffe_pb2 import SolverParameter
from pipeline.caffe.proto.files import read_solver
from pipeline.caffe.solver import get_solver, naming_solver
from pipeline.caffe.solver.snapshot import restore
from pipeline.caffe.solver.solve import Action, Requests, solve
from pipeline.caffe.solver.train_log_writer import TrainingLog
from pipeline.caffe.tools.flags import FlagParser
from pipeline.caffe.tools.nets import gpus, prepare


def add_arguments(parser: FlagParser) -> None:
    parser.add_caffe_flags(
        (
            "solver",
            "weights",
            "snapshot",
            "gpu",
            "level",
            "stage",
            "sigint_effect",
            "sighup_effect",
            "allow_python_layers",
        )
    )


def run(args: Namespace) -> None:
    """Train to max_iter, or until a signal stops it."""
    if not args.solver:
        raise InputError("Need a solver definition to train: give -solver FILE")
    if args.snapshot and args.weights:
        raise InputError("Give a snapshot to resume training or weights to finetune but not both.")
    prepare(args)
    param = read_solver(Path(args.solver))
    _set_state(param, args.level, args.stage)
    device = _choose_device(args.gpu, param)
    with _signals(
        {
            signal.SIGHUP: _action("sighup_effect", args.sighup_effect),
            signal.SIGINT: _action("sigint_effect", args.sigint_effect),
        }
    ) as requests:
        if args.snapshot:
            param.ClearField("weights")
        elif args.weights:
            param.weights[:] = [args.weights]
        with naming_solver(Path(args.solver)):
            solver = get_solver(param, device)
        if args.snapshot:
            log.info("Resuming from %s", args.snapshot)
            restore(solver, Path(args.snapshot))
        log.info("Starting Optimization")
        training_log = TrainingLog(solver, log)
        for event in solve(solver, requests):
            training_log.record(event)
        log.info("Optimization Done.")


def _set_state(param: SolverParameter, level: int, stages: str) -> None:
    """Put -level and -stage into the state of the train net, where -level replaces the solver's, given or not."""
    if param.train_state.HasField("level") and param.train_state.level != level:
        log.warning(
            "train_state's level %d becomes %d, as in Caffe: give -level %d to keep it",
            param.train_state.level,
            level,
            param.train_state.level,
        )
    param.train_state.level = level
    param.train_state.stage.extend(stages.split(","))


def _choose_device(flag: str, param: SolverParameter) -> str:
    """The torch device: that of -gpu, else that of solver_mode GPU where the solver says so itself, else the CPU."""
    if not flag and param.HasField("solver_mode") and param.solver_mode == SolverParameter.GPU:
        if not torch.cuda.is_available():
            raise InputError("solver_mode is GPU, and torch finds none here; give solver_mode: CPU to train on the CPU")
        flag = str(param.device_id)
    named = gpus(flag)
    if len(named) > 1:
        raise InputError(f"-gpu {flag}: a net is trained on one GPU here; give the number of one of {len(named)}")
    if not named:
        log.info("Use CPU.")
        return "cpu"
    log.info("Using GPUs %d", named[0])
    log.info("GPU %d: %s", named[0], torch.cuda.get_device_name(named[0]))
    return f"cuda:{named[0]}"


def _action(flag: str, effect: str) -> Action:
    try:
        return Action(effect)
    except ValueError:
        raise InputError(f'-{flag}: invalid signal effect "{effect}"; snapshot, stop or none was expected') from None


@contextmanager
def _signals(effects: Mapping[int, Action]) -> Iterator[Requests]:
    """Turn signals into requests: each that has come is heard once, the first of `effects` first."""
    received: set[int] = set()

    def note(number: int, frame: FrameType | None) -> None:
        received.add(number)

    def requests() -> Action:
        for number, action in effects.items():
            if number in received:
                received.discard(number)
                return action
        return Action.NONE

    before = {number: signal.signal(number, note) for number in effects}
    try:
        yield requests
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
