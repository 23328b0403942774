"""Runs one of Caffe's commands as its command line does, in this process."""

import importlib

from pipeline.caffe.tools.flags import FlagParser


def run_tool(name: str, *arguments: object) -> None:
    """Run `python -m pipeline.caffe NAME ARGUMENTS`; its errors come out as they are."""
    module = importlib.import_module(f"pipeline.caffe.tools.{name}")
    parser = FlagParser(prog=name)
    module.add_arguments(parser)
    module.run(parser.parse([str(argument) for argument in arguments]))
