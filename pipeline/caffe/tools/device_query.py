"""Show what GPUs there are, or those that are named: device_query [-gpu N,N | all]."""

from argparse import Namespace

import torch

from pipeline.base.console import log
from pipeline.caffe.tools.flags import FlagParser
from pipeline.caffe.tools.nets import gpus


def add_arguments(parser: FlagParser) -> None:
    parser.add_caffe_flags(("gpu",))


def run(args: Namespace) -> None:
    """Log what torch knows of each GPU."""
    log.info("Querying GPUs %s", args.gpu)
    if not args.gpu and not torch.cuda.is_available():
        log.warning("torch %s finds no GPU here; nets run on the CPU", torch.__version__)
        return
    for gpu in gpus(args.gpu or "all"):
        properties = torch.cuda.get_device_properties(gpu)
        log.info("Device id:                     %d", gpu)
        log.info("Major revision number:         %d", properties.major)
        log.info("Minor revision number:         %d", properties.minor)
        log.info("Name:                          %s", properties.name)
        log.info("Total global memory:           %d", properties.total_memory)
        log.info("Number of multiprocessors:     %d", properties.multi_processor_count)
