"""Bring a .caffemodel into the form of Caffe 1.0: upgrade_net_proto_binary OLD NEW."""

from argparse import Namespace
from pathlib import Path

from pipeline.base.console import log
from pipeline.caffe.proto.caffe_pb2 import NetParameter
from pipeline.caffe.proto.files import BinaryError, read_binary, write_binary
from pipeline.caffe.proto.upgrade_proto import UpgradeError, upgrade_net
from pipeline.caffe.tools.flags import FlagParser


def add_arguments(parser: FlagParser) -> None:
    parser.add_argument("old", metavar="v0_net_proto_file_in", type=Path, help=".caffemodel")
    parser.add_argument("new", metavar="net_proto_file_out", type=Path, help=".caffemodel to write")


def run(args: Namespace) -> None:
    net = read_binary(args.old, NetParameter)
    try:
        upgraded = upgrade_net(net, str(args.old))
    except UpgradeError as error:
        raise BinaryError(f"{args.old}: {error}") from None
    if not upgraded:
        log.warning("File already in latest proto format: %s", args.old)
    write_binary(args.new, net)
    log.info("Wrote upgraded NetParameter binary proto to %s", args.new)
