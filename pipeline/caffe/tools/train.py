"""Train a net with a solver: train -solver FILE [-weights FILE,FILE | -snapshot FILE] [-gpu N | N,N | all].

Several processes train together on several GPUs, or on CPUs where torchrun starts them:
torchrun --nproc-per-node 2 -m pipeline.caffe train -solver FILE. `-snapshot latest` resumes from the newest snapshot.

SIGINT and SIGHUP do what -sigint_effect and -sighup_effect say after the iteration, or the batch of a test, that runs.
"""

import os
import signal
from argparse import Namespace
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

import torch
import torch.distributed as dist

from pipeline.base.console import log
from pipeline.base.errors import InputError
from pipeline.caffe.proto.caffe_pb2 import SolverParameter
from pipeline.caffe.proto.files import read_solver
from pipeline.caffe.solver import get_solver, naming_solver, parallel
from pipeline.caffe.solver.nets import weights
from pipeline.caffe.solver.snapshot import find_snapshots, restore
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
    if "WORLD_SIZE" not in os.environ and len(named := gpus(args.gpu)) > 1:
        _train_on_gpus(len(named))
    with parallel.together():
        _train(args)


def _train_on_gpus(count: int) -> NoReturn:
    """Start the same command in a process for each GPU."""
    if not dist.is_available() or not dist.is_nccl_available():
        raise InputError(
            f"training on {count} GPUs needs NCCL, which torch {torch.__version__} has not; install a torch for CUDA, "
            "or give the number of one GPU"
        )
    parallel.launch(count, "pipeline.caffe")


def _train(args: Namespace) -> None:
    param = read_solver(Path(args.solver))
    _set_state(param, args.level, args.stage)
    device = _choose_device(args.gpu, param)
    with _signal_requests(
        {
            signal.SIGHUP: _action("sighup_effect", args.sighup_effect),
            signal.SIGINT: _action("sigint_effect", args.sigint_effect),
        }
    ) as requests:
        state = _snapshot_state(args.snapshot, param)
        if state:
            param.ClearField("weights")
        elif args.weights:
            param.weights[:] = [args.weights]
        with naming_solver(Path(args.solver)):
            parallel.check_alike(param, [state] if state else [*weights(param)])
            solver = get_solver(param, device)
        if state:
            log.info("Resuming from %s", state)
            restore(solver, state)
        parallel.start(solver)
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


def _snapshot_state(flag: str, param: SolverParameter) -> Path | None:
    """The .solverstate that -snapshot names; None where it names none, or the latest before there is any."""
    if flag != "latest":
        return Path(flag) if flag else None
    snapshots = find_snapshots(param.snapshot_prefix)
    return snapshots[-1].state if snapshots else None


def _choose_device(flag: str, param: SolverParameter) -> str:
    """The torch device: that of -gpu, else that of solver_mode GPU where the solver says so itself, else the CPU.

    Of several processes each takes the GPU of -gpu that its number on the machine says.
    """
    if not flag and param.HasField("solver_mode") and param.solver_mode == SolverParameter.GPU:
        if not torch.cuda.is_available():
            raise InputError("solver_mode is GPU, and torch finds none here; give solver_mode: CPU to train on the CPU")
        flag = str(param.device_id)
    named = gpus(flag)
    if not named:
        log.info("Use CPU.")
        return "cpu"
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if len(named) != processes:
        raise InputError(f"-gpu {flag}: {len(named)} GPUs for {processes} processes on this machine; name one for each")
    log.info("Using GPUs %s", ", ".join(map(str, named)))
    for gpu in named:
        log.info("GPU %d: %s", gpu, torch.cuda.get_device_name(gpu))
    own = named[int(os.environ.get("LOCAL_RANK", "0"))]
    torch.cuda.set_device(own)
    return f"cuda:{own}"


def _action(flag: str, effect: str) -> Action:
    try:
        return Action(effect)
    except ValueError:
        raise InputError(f'-{flag}: invalid signal effect "{effect}"; snapshot, stop or none was expected') from None


@contextmanager
def _signal_requests(effects: Mapping[int, Action]) -> Iterator[Requests]:
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
