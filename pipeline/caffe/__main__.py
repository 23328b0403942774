"""python -m pipeline.caffe COMMAND …: Caffe's commands with Caffe's own words and flags."""

import importlib
import sys

from pipeline import __version__
from pipeline.base.console import program
from pipeline.base.errors import InputError
from pipeline.base.extras import naming_missing_package
from pipeline.base.signals import end_cleanly
from pipeline.caffe import glog
from pipeline.caffe.tools.flags import CAFFE_FLAGS, FlagParser

COMMANDS = {
    "train": "train or finetune a model",
    "test": "score a model",
    "time": "benchmark a model, layer by layer",
    "device_query": "show what GPUs there are",
    "convert_imageset": "write the images of a list into a database",
    "compute_image_mean": "average the images of a database",
    "extract_features": "write a net's blobs into databases",
    "upgrade_net_proto_text": "bring a net's prototxt into the form of Caffe 1.0",
    "upgrade_net_proto_binary": "bring a .caffemodel into the form of Caffe 1.0",
    "upgrade_solver_proto_text": "bring a solver's prototxt into the form of Caffe 1.0",
    "average_snapshots": "average the weights of several snapshots",
    "draw_net": "draw a net",
    "summary": "count a net's parameters and multiply-adds",
    "parse_log": "turn a training's log into tables",
    "plot_training_log": "plot a training's log",
    "export_onnx": "write a net and its weights as ONNX",
}


@naming_missing_package()
def main() -> None:
    """Run the command that the command line names."""
    end_cleanly()
    arguments = sys.argv[1:]
    name, arguments = _command(arguments)
    # Only the command asked for is imported: some import torch, which takes seconds.
    module = importlib.import_module(f"pipeline.caffe.tools.{name}")
    parser = FlagParser(prog=f"{_program()} {name}", description=module.__doc__)
    module.add_arguments(parser)
    for flag, (default, about) in glog.defaults().items():
        parser.add_flag(flag, default, about)
    args = parser.parse(arguments)
    try:
        glog.set_up(args, f"caffe.{name}")
        for flag in args.unused:
            glog.log.warning("%s has no use for %s: it is ignored", name, flag)
        module.run(args)
    except (InputError, OSError) as error:
        glog.log.critical("%s", error)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def _program() -> str:
    return program("caffe-torch", "pipeline.caffe")


def _command(arguments: list[str]) -> tuple[str, list[str]]:
    """The command and what is left; the flags of Caffe's own four actions may stand before the action."""
    if not arguments or arguments[0] in ("-help", "--help"):
        lines = [
            f"usage: {_program()} COMMAND ..., where COMMAND --help tells of its flags",
            "",
            *(f"  {name:26}{summary}" for name, summary in COMMANDS.items()),
        ]
        print("\n".join(lines))
        raise SystemExit(0)
    if arguments[0] in ("-version", "--version"):
        print(f"caffe-expressions {__version__}, for the files of Caffe 1.0.0")
        raise SystemExit(0)
    parser = FlagParser(prog=_program())
    name, rest = arguments[0], arguments[1:]
    if name.startswith("-"):
        parser.add_caffe_flags(CAFFE_FLAGS)
        for flag, (default, about) in glog.FLAGS.items():
            parser.add_flag(flag, default, about)
        flags, words = parser.split(arguments)
        name, rest = (words or [""])[0], [*flags, *words[1:]]
    if name not in COMMANDS:
        parser.error(f"unknown command '{name}'; there are {', '.join(COMMANDS)}" if name else "no command is given")
    return name, rest


if __name__ == "__main__":
    main()
