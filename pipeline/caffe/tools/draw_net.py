"""Draw a net: draw_net INPUT_NET_PROTO OUTPUT_IMAGE, as SVG, PNG, PDF or Graphviz's .dot by the image's suffix."""

from argparse import Namespace
from pathlib import Path

from pipeline.base.console import log
from pipeline.base.errors import InputError
from pipeline.caffe.draw import draw_net_to_file
from pipeline.caffe.proto.caffe_pb2 import TEST, TRAIN
from pipeline.caffe.proto.files import read_net
from pipeline.caffe.tools.flags import FlagParser

PHASES = {"TRAIN": TRAIN, "TEST": TEST, "ALL": None}


def add_arguments(parser: FlagParser) -> None:
    parser.add_flag("rankdir", "LR", "where the net grows: LR, TB, RL or BT")
    parser.add_flag("phase", "ALL", "the layers to draw: TRAIN, TEST or ALL")
    parser.add_flag("display_lrm", False, "tell the learning rate multipliers")
    parser.add_argument("net", metavar="INPUT_NET_PROTO", type=Path, help="the net's prototxt")
    parser.add_argument("image", metavar="OUTPUT_IMAGE", type=Path, help="picture to write: .svg, .png, .pdf or .dot")


def run(args: Namespace) -> None:
    if args.phase not in PHASES:
        raise InputError(f"phase '{args.phase}' where {', '.join(PHASES)} was expected")
    log.info("Drawing net to %s", args.image)
    draw_net_to_file(read_net(args.net), args.image, args.rankdir, PHASES[args.phase], args.display_lrm)
