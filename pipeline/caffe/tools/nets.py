"""What the commands that run nets share: the device, and the net of -model."""

from argparse import Namespace
from pathlib import Path
from typing import TypeVar

import torch

from pipeline.base.console import log
from pipeline.base.errors import InputError
from pipeline.caffe.common import allow_python_layers
from pipeline.caffe.memory_budget import keep_freed_memory
from pipeline.caffe.net import Net, build_read_net
from pipeline.caffe.proto.caffe_pb2 import Phase
from pipeline.caffe.proto.files import read_net

N = TypeVar("N", bound=Net)


def prepare(args: Namespace) -> None:
    """Set the process up for nets."""
    keep_freed_memory()
    allow_python_layers(args.allow_python_layers)


def gpus(flag: str) -> list[int]:
    """The GPUs that -gpu names: none, one, several with commas between them, or all that there are.

    Raises InputError for what is no number, and where torch finds no such GPU.
    """
    if not flag:
        return []
    count = torch.cuda.device_count()
    if flag == "all":
        named = list(range(count))
    else:
        try:
            named = [int(text) for text in flag.split(",")]
        except ValueError:
            raise InputError(f"-gpu {flag}: a number, several with commas between them, or all was expected") from None
    if not named or not all(0 <= gpu < count for gpu in named):
        there = f"only {count}, from 0" if count else "none"
        raise InputError(f"-gpu {flag}: torch finds {there} here; leave -gpu out to run on the CPU")
    return named


def choose_device(args: Namespace) -> str:
    """The torch device of a command that runs on one: the first GPU of -gpu, else the CPU."""
    named = gpus(args.gpu)
    if not named:
        log.info("Use CPU.")
        return "cpu"
    log.info("Use GPU with device ID %d", named[0])
    log.info("GPU device name: %s", torch.cuda.get_device_name(named[0]))
    return f"cuda:{named[0]}"


def build_model(args: Namespace, phase: Phase, device: str, net_type: type[N], seed: int | None = None) -> N:
    """Build the net of -model, as Net or a class made from it, in the state that -level and -stage say."""
    path = Path(args.model)
    message = read_net(path)
    message.state.phase, message.state.level = phase, args.level
    message.state.stage.extend(args.stage.split(","))
    return build_read_net(
        path, message, phase, net_type, device=device, level=args.level, stages=[*message.state.stage], seed=seed
    )


def zeros(net: Net) -> dict[str, torch.Tensor]:
    """What the net's inputs hold in Caffe before somebody fills them."""
    return {name: torch.zeros(net.shapes[name]) for name in net.inputs}
