"""Average snapshots: average_snapshots -model FILE [-iterations N] [-seed N] [-gpu N] WEIGHTS [WEIGHTS ...] OUTPUT.

The weights are .caffemodel or .caffemodel.h5 files of one net; -model is the prototxt that they were trained by. Where
the net has BatchNorm layers, -iterations batches of its phase TRAIN run forward, and their statistics replace the
snapshots'. The output is a .caffemodel.
"""

from argparse import Namespace
from pathlib import Path

from pipeline.base.console import log
from pipeline.base.errors import InputError
from pipeline.caffe.averaging import average_snapshots
from pipeline.caffe.net import Net
from pipeline.caffe.proto.caffe_pb2 import TRAIN
from pipeline.caffe.tools.flags import FlagParser
from pipeline.caffe.tools.nets import build_model, choose_device, prepare


def add_arguments(parser: FlagParser) -> None:
    parser.add_caffe_flags(("model", "iterations", "gpu", "level", "stage", "allow_python_layers"))
    parser.add_flag("seed", 1, "of what those batches draw: crops, mirrors, dropout")
    parser.add_argument("weights", metavar="WEIGHTS", type=Path, nargs="+", help=".caffemodel or .caffemodel.h5")
    parser.add_argument("output", metavar="OUTPUT", type=Path, help=".caffemodel to write")


def run(args: Namespace) -> None:
    if not args.model:
        raise InputError("Need the net that the snapshots are of: give -model FILE")
    if args.iterations < 1:
        raise InputError(f"-iterations {args.iterations} where at least 1 was expected")
    prepare(args)
    net = build_model(args, TRAIN, choose_device(args), Net, args.seed)
    average_snapshots(net, args.weights, args.iterations)
    net.save(args.output)
    log.info("Wrote the average of %d snapshots to %s", len(args.weights), args.output)
