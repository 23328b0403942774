"""Several solvers that train one net, a process each: what Caffe's NCCL class does (caffe/parallel.cpp), on torch.

torchrun starts the processes and says in the environment which is which. Each reads its own part of the data, the
gradients are averaged before every update, and the first solver alone tests, logs and writes. What solvers tell one
another goes over gloo, and gradients on GPUs go over NCCL. A solver that trains alone passes through all of it.
"""

import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import torch
import torch.distributed as dist

from pipeline import __version__
from pipeline.base.console import log
from pipeline.base.errors import InputError
from pipeline.base.hashing import sha256
from pipeline.caffe.common import mode, solver_count, solver_rank
from pipeline.caffe.layers import LayerError
from pipeline.caffe.net import Net
from pipeline.caffe.proto.caffe_pb2 import TEST, TRAIN, NetParameter, Phase, SolverParameter
from pipeline.caffe.proto.files import to_text
from pipeline.caffe.solver.nets import test_nets, train_net

if TYPE_CHECKING:
    from pipeline.caffe.solver.solver import Solver

# A solver that ends closes its connections, which the others notice at once; the limit is for one that hangs. Tests,
# for which the others wait, may take hours.
_PATIENCE = timedelta(days=1)
# What says where a layer's data stands, and so is the same for all solvers; the rest of its state is its own draws.
_PLACES = ("position", "taken", "mirror_seed", "seed", "turn", "file", "row")


class RankError(InputError):
    """Several solvers cannot train together, or one of them has ended."""


class NetOfRank(Net):
    """A net whose batch_size is that of all solvers together: this one is given its share of each training batch."""

    def __init__(self, param: NetParameter, phase: Phase, **options: Any) -> None:
        own = NetParameter()
        own.CopyFrom(param)
        for layer in own.layer if phase == TRAIN else ():
            for field in ("data_param", "image_data_param", "hdf5_data_param"):
                if layer.HasField(field):
                    data = getattr(layer, field)
                    if data.batch_size % solver_count() and not any(rule.phase == TEST for rule in layer.include):
                        raise LayerError(
                            layer.name, f"batch_size {data.batch_size} does not divide among {solver_count()} processes"
                        )
                    data.batch_size //= solver_count()
        super().__init__(own, phase, **options)


def launch(count: int, module: str) -> NoReturn:
    """Let torchrun start this command's words, `python -m MODULE ...`, in `count` processes, and end as they do.

    Raises SystemExit with the status that one process has: 128 and the number of a signal, which they all get, or that
    of the process which ended first with an error; RankError where that was killed and could not say so.
    """
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main as torchrun

    # Behind "--", for otherwise torchrun takes --log for one of its own options.
    words = ["--standalone", f"--nproc-per-node={count}", "-m", "--", module, *sys.argv[1:]]
    logging.disable()  # torchrun's own words: the processes say in one line what has happened
    try:
        torchrun(words)
    except SignalException as error:
        raise SystemExit(128 + error.sigval) from None
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode < 0:
            name = signal.Signals(-failure.exitcode).name
            raise RankError(
                f"rank {rank} was killed ({name}), as happens where memory runs out; resume from the last snapshot"
            ) from None
        raise SystemExit(failure.exitcode) from None
    finally:
        logging.disable(logging.NOTSET)
    raise SystemExit(0)


@contextmanager
def together() -> Iterator[None]:
    """Be one of the solvers that torchrun started, if it started several.

    Of the errors by which they end the first is raised; the solvers that end after it do so without a word.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield
        return
    rank = int(os.environ["RANK"])
    on_gpu = torch.cuda.is_available() and dist.is_nccl_available()
    try:
        store = next(dist.rendezvous("env://", timeout=timedelta(minutes=5)))[0]
        backend = "cpu:gloo,cuda:nccl" if on_gpu else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=_PATIENCE)
    except (RuntimeError, ValueError) as error:
        raise RankError(f"rank {rank}: the {count} ranks do not find one another: {error}") from None
    mode.solver_rank, mode.solver_count = rank, count
    try:
        yield
        dist.destroy_process_group()
    except (InputError, OSError, SystemExit) as error:
        if not _is_first(store):
            raise SystemExit(1) from None
        if isinstance(error, SystemExit):
            log.critical("rank %d was told to end (status %s), as torchrun does where another ended", rank, error.code)
        raise
    finally:
        mode.solver_rank, mode.solver_count = 0, 1


def _is_first(store: "dist.Store") -> bool:
    """Whether no other solver has ended with an error before this one."""
    try:
        return store.add("caffe/ended", 1) == 1
    except RuntimeError:  # who kept the count has ended
        return True


def check_alike(param: SolverParameter, files: Sequence[Path]) -> None:
    """Raise RankError unless all solvers have this version, solver, nets and the same `files` to start from."""
    if solver_count() == 1:
        return
    lines = [f"caffe-expressions {__version__}", f"torch {torch.__version__}", *"".join(to_text(param)).splitlines()]
    for net in (train_net(param), *test_nets(param)):
        lines += [f"{net.field}:", *"".join(to_text(net.read())).splitlines()]
    lines += [f"{path} with SHA-256 {sha256(path)}" for path in files]
    of_ranks = [json.loads(text) for text in _gather(json.dumps(lines))]
    for rank, theirs in enumerate(of_ranks):
        for first, other in zip_longest(of_ranks[0], theirs, fillvalue="nothing more"):
            if first != other:
                raise RankError(
                    f"rank {rank} has '{other.strip()}' where rank 0 has '{first.strip()}'; start all ranks with the "
                    "same version, solver, nets and weights"
                )


def start(solver: "Solver") -> None:
    """Bring a solver to where the first one is, and let its updates take the mean of all solvers' gradients."""
    if solver_count() == 1:
        return
    with torch.no_grad():
        _exchange([learnable.blob for learnable in solver.net.learnable], lambda values: dist.broadcast(values, 0))
    state = solver.net.state()
    first = json.loads(_gather(json.dumps(state))[0])
    for name, own in state["layers"].items():
        own.update({key: value for key, value in first["layers"][name].items() if key in _PLACES})
    solver.net.restore(state)
    solver.on_gradients_ready.append(lambda: _average(solver.gradients()))


def _average(gradients: list[torch.Tensor]) -> None:
    def mean(values: torch.Tensor) -> None:
        dist.all_reduce(values)
        values /= solver_count()

    _exchange(gradients, mean)


def average_ranks(value: float) -> float:
    """The mean of a number over all solvers."""
    if solver_count() == 1:
        return value
    numbers = torch.tensor([value], dtype=torch.float64)
    _average([numbers])
    return numbers.item()


def from_first(*numbers: float) -> list[float]:
    """The first solver's numbers, in every solver."""
    if solver_count() == 1:
        return list(numbers)
    told = torch.tensor(numbers, dtype=torch.float64)
    _exchange([told], lambda values: dist.broadcast(values, 0))
    said: list[float] = told.tolist()
    return said


def states_of_others(net: Net) -> list[dict[str, Any]]:
    """What Net.state() gives in each solver after the first."""
    return [json.loads(text) for text in _gather(json.dumps(net.state()))[1:]] if solver_count() > 1 else []


def _gather(text: str) -> list[str]:
    """The texts of all solvers, by rank."""
    data = torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8)
    lengths = torch.zeros(solver_count(), dtype=torch.int64)
    lengths[solver_rank()] = len(data)
    _exchange([lengths], dist.all_reduce)
    texts = torch.zeros(solver_count(), int(lengths.max()), dtype=torch.uint8)
    texts[solver_rank(), : len(data)] = data
    _exchange([texts], dist.all_reduce)
    return [bytes(row[:length].tolist()).decode() for row, length in zip(texts, lengths.tolist(), strict=True)]


def _exchange(tensors: list[torch.Tensor], collective: Callable[[torch.Tensor], object]) -> None:
    """Let a collective change tensors, which go as one. Raises RankError when a solver is no longer there."""
    values = torch.cat([tensor.reshape(-1) for tensor in tensors])
    try:
        collective(values)
    except RuntimeError:
        raise RankError(
            f"rank {solver_rank()} of {solver_count()} has lost another rank: its process was killed, or its machine "
            "is out of reach; all ranks end, and with -snapshot latest the same command resumes"
        ) from None
    for tensor, part in zip(tensors, values.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(part.view_as(tensor))
