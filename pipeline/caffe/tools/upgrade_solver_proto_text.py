"""Bring a solver's prototxt into the form of Caffe 1.0: upgrade_solver_proto_text OLD NEW."""

from argparse import Namespace
from pathlib import Path

from pipeline.base.console import log
from pipeline.caffe.proto.caffe_pb2 import SolverParameter
from pipeline.caffe.proto.files import read_prototxt, write_prototxt
from pipeline.caffe.solver.solver import SolverError, upgrade_solver
from pipeline.caffe.tools.flags import FlagParser


def add_arguments(parser: FlagParser) -> None:
    parser.add_argument("old", metavar="old_solver_proto_file_in", type=Path, help="prototxt of a solver")
    parser.add_argument("new", metavar="solver_proto_file_out", type=Path, help="prototxt to write")


def run(args: Namespace) -> None:
    old = read_prototxt(args.old, SolverParameter)
    try:
        new = upgrade_solver(old)
    except SolverError as error:
        raise SolverError(f"{args.old}: {error}") from None
    if new == old:
        log.warning("File already in latest proto format: %s", args.old)
    write_prototxt(args.new, new)
    log.info("Wrote upgraded SolverParameter text proto to %s", args.new)
