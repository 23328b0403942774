"""Bring a net's prototxt into the form of Caffe 1.0: upgrade_net_proto_text OLD NEW."""

from argparse import Namespace
from pathlib import Path

from pipeline.base.console import log
from pipeline.caffe.proto.caffe_pb2 import NetParameter
from pipeline.caffe.proto.files import read_prototxt, upgrade_read_net, write_prototxt
from pipeline.caffe.tools.flags import FlagParser


def add_arguments(parser: FlagParser) -> None:
    parser.add_argument("old", metavar="v0_net_proto_file_in", type=Path, help="prototxt of a net")
    parser.add_argument("new", metavar="net_proto_file_out", type=Path, help="prototxt to write")


def run(args: Namespace) -> None:
    net = read_prototxt(args.old, NetParameter)
    if not upgrade_read_net(net, args.old):
        log.warning("File already in latest proto format: %s", args.old)
    write_prototxt(args.new, net)
    log.info("Wrote upgraded NetParameter text proto to %s", args.new)
