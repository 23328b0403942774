"""Score a net: test -model FILE -weights FILE [-iterations N] [-gpu N]; logs every batch's outputs and their means."""

from argparse import Namespace
from pathlib import Path

import torch

from pipeline.base.console import log
from pipeline.base.errors import InputError
from pipeline.caffe.net import Net
from pipeline.caffe.proto.caffe_pb2 import TEST
from pipeline.caffe.solver.train_log_writer import described
from pipeline.caffe.tools.flags import FlagParser
from pipeline.caffe.tools.nets import build_model, choose_device, prepare, zeros


def add_arguments(parser: FlagParser) -> None:
    parser.add_caffe_flags(("model", "weights", "iterations", "gpu", "level", "stage", "allow_python_layers"))


def run(args: Namespace) -> None:
    """Run the net in TEST for -iterations batches."""
    if not args.model:
        raise InputError("Need a model definition to score: give -model FILE")
    if not args.weights:
        raise InputError("Need model weights to score: give -weights FILE")
    if args.iterations < 1:
        raise InputError(f"-iterations {args.iterations} where at least 1 was expected")
    prepare(args)
    net = build_model(args, TEST, choose_device(args), Net)
    net.copy_from(Path(args.weights))
    log.info("Running for %d iterations.", args.iterations)
    sums = {name: torch.zeros(net.shapes[name], dtype=torch.float64) for name in net.outputs}
    loss = 0.0
    inputs = zeros(net)
    with torch.no_grad():
        for iteration in range(args.iterations):
            outputs = net.forward(**inputs)
            loss += net.loss.item()
            for name, value in outputs.items():
                for number in value.flatten().tolist():
                    log.info("Batch %d, %s = %.6g", iteration, name, number)
                sums[name] += value.cpu().double()
    log.info("Loss: %.6g", loss / args.iterations)
    for line in described(net, ((name, values / args.iterations) for name, values in sums.items())):
        log.info("%s", line)
