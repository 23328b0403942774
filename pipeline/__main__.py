"""python -m pipeline STAGE …, or expressions STAGE …: every stage by hand, with the words Snakemake uses."""

import argparse
import importlib
import os
import sys
from pathlib import Path

from pipeline import __version__
from pipeline.base import console
from pipeline.base.errors import InputError
from pipeline.base.extras import naming_missing_package
from pipeline.base.signals import end_cleanly
from pipeline.stages.environment import add_defaults

STAGES = {
    "new": "lay out a working folder, in which Snakemake trains",
    "sample": "draw a sample data set in FER2013's form",
    "extract": "turn fer2013.csv into images and a manifest",
    "align": "find the face in every image and align it",
    "combine": "put whole images and aligned faces into one manifest",
    "lmdb": "write the images into Caffe's databases",
    "mean": "average the training database into a mean file",
    "targets": "write soft targets for the training images",
    "render": "fill a net's prototxts in for a run",
    "train": "train the net with Caffe's solver",
    "second_head": "make a net of its own of the second head that a run trained",
    "evaluate": "measure the trained net on every held-out image, once",
    "seeds": "join what the runs of several seeds measured into a mean and a spread",
    "answers": "write what trained nets say of the training images, for a student to learn",
    "export": "put the trained net into a self-contained model folder",
    "web": "write a static page that reads faces in the visitor's browser with a model folder",
    "ensemble": "join several model folders into one whose probabilities are their mean, and measure it",
    "predict": "read expressions from images with a model folder",
    "doctor": "look whether everything that predict needs is there and works",
    "serve": "read expressions for others over HTTP, with a page to try it on",
    "bot": "answer Telegram's users with what is read in their pictures and videos",
}


@naming_missing_package()
def main() -> None:
    """Run the stage that the command line names."""
    end_cleanly()
    arguments = sys.argv[1:]
    parser = argparse.ArgumentParser(
        prog=console.program("expressions", "pipeline"),
        description="Every stage by hand, with the words Snakemake uses.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    parser.add_argument("--log", type=Path, metavar="FILE", help="keep the messages in FILE as well")
    stages = parser.add_subparsers(dest="stage", metavar="STAGE", required=True)
    for name, summary in STAGES.items():
        stage_parser = stages.add_parser(name, help=summary, description=summary)
        # Only the stage asked for is imported: some import heavy libraries.
        if name in arguments:
            module = importlib.import_module(f"pipeline.stages.{name}")
            stage_parser.description = module.__doc__
            module.add_arguments(stage_parser)
            try:
                add_defaults(stage_parser, getattr(module, "SETTINGS", ()), os.environ)
            except InputError as error:
                raise SystemExit(f"error: {error}") from None
            stage_parser.set_defaults(run=module.run)
    args = parser.parse_args(arguments)
    console.set_up(args.log)
    try:
        args.run(args)
    except (InputError, OSError) as error:
        console.log.error("error: %s", console.in_words(error))
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
