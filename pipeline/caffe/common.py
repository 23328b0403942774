"""What a process has been told about the nets it makes: where they compute, how they draw, whether Python may run."""

from argparse import Namespace
from dataclasses import dataclass

import torch

from pipeline.base.console import log
from pipeline.base.errors import InputError
from pipeline.caffe import glog

_ALONE = "a script trains on one GPU or the CPU, the command train on several"


class ModeError(InputError):
    """A device that the machine does not have, or several processes where there is one."""


@dataclass
class Mode:
    """What the functions below set, for nets made afterwards."""

    on_gpu: bool = False
    gpu: int = 0
    python_layers: bool = False
    solver_count: int = 1
    solver_rank: int = 0
    seeds: torch.Generator | None = None  # None: each net draws its own seed

    def device(self) -> str:
        """The torch device that nets are made on."""
        return f"cuda:{self.gpu}" if self.on_gpu else "cpu"

    def next_seed(self) -> int | None:
        """The seed of the next net."""
        return None if self.seeds is None else int(torch.randint(2**31, (), generator=self.seeds))


mode = Mode()


def set_mode_cpu() -> None:
    """Make nets on the CPU, as they are unless set_mode_gpu was called."""
    mode.on_gpu = False


def set_mode_gpu() -> None:
    """Make nets on the GPU that set_device says, the first unless it was called. Raises ModeError without one."""
    _check_gpu(mode.gpu)
    mode.on_gpu = True


def set_device(gpu: int) -> None:
    """Choose the GPU for set_mode_gpu, by its number. Raises ModeError when there is none of that number."""
    _check_gpu(gpu)
    mode.gpu = gpu


def check_device(device: torch.device | str) -> None:
    """Raise ModeError for a GPU that the machine does not have."""
    asked = torch.device(device)
    count = torch.cuda.device_count()
    if asked.type == "cuda" and (asked.index or 0) >= count:
        there = f"only {count} GPUs, from 0," if count else "no GPU"
        raise ModeError(f"device {device}: torch {torch.__version__} finds {there} here; choose cpu")


def _check_gpu(gpu: int) -> None:
    count = torch.cuda.device_count()
    if not 0 <= gpu < count:
        raise ModeError(f"GPU {gpu} where torch finds {count or 'none'} on this machine; call set_mode_cpu instead")


def set_random_seed(seed: int) -> None:
    """Let what the nets made from now on draw follow from `seed`, at least 0."""
    mode.seeds = torch.Generator().manual_seed(seed)


def allow_python_layers(allowed: bool = True) -> None:
    """Let nets have Python layers. Their prototxt says which module is imported, and so which code runs."""
    mode.python_layers = allowed


def solver_count() -> int:
    """How many solvers train together: one, but for those that torchrun starts."""
    return mode.solver_count


def solver_rank() -> int:
    """Which of the solvers that train together this one is, from 0."""
    return mode.solver_rank


def set_solver_count(count: int) -> None:
    """Say how many solvers train together. Raises ModeError for more than this one."""
    if count != 1:
        raise ModeError(f"{count} solvers where a script's net is trained by one; {_ALONE}")


def set_solver_rank(rank: int) -> None:
    """Say which of the solvers that train together this one is. Raises ModeError for any but the first."""
    if rank != 0:
        raise ModeError(f"solver {rank} where there is but the first, 0; {_ALONE}")


def set_multiprocess(several: bool) -> None:
    """Say whether several processes train together. Raises ModeError when they are to."""
    if several:
        raise ModeError(f"several processes where a script's net is trained by one; {_ALONE}")


def has_nccl() -> bool:
    """Whether several GPUs can train a script's net together: they cannot, the command train can."""
    return False


def write_log(message: str) -> None:
    """Log a line, once init_log was called."""
    log.info("%s", message)


def init_log(level: int = 0, stderr: bool = True) -> None:
    """Log what is done, how nets are built too, to standard error in glog's form.

    level: 0 INFO, 1 WARNING, 2 ERROR, 3 FATAL; lines below it, or below GLOG_minloglevel, are left out. stderr: other
    than Caffe's, which by default logs to files.
    """
    flags = {name: value for name, (value, _) in glog.defaults().items()}
    flags["minloglevel"] = max(level, int(flags["minloglevel"]))
    flags["alsologtostderr"] = stderr
    if not log.handlers:
        glog.set_up(Namespace(**flags), "pycaffe")
