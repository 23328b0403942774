"""sample: draw a sample of FER2013's form, a CSV of faces, where the real set is not at hand."""

import argparse
from pathlib import Path

from pipeline.base.console import log, progress
from pipeline.base.errors import InputError
from pipeline.data.synthetic.sample import COUNT, draw_faces, draw_sample_sheet, write_csv


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("output", type=Path, help="CSV to write, with Kaggle's columns emotion,pixels,Usage")
    parser.add_argument("--count", type=int, default=COUNT, help=f"faces to draw (default {COUNT})")
    parser.add_argument("--seed", type=int, default=1, help="draws the same faces every time (default 1)")
    parser.add_argument("--sheet", type=Path, metavar="PNG", help="write some faces of every expression to look at")


def run(args: argparse.Namespace) -> None:
    sample(args.output, args.count, args.seed, args.sheet)


def sample(output: Path, count: int = COUNT, seed: int = 1, sheet: Path | None = None) -> None:
    """Draw `count` faces into a CSV of FER2013's form and, if asked, a contact sheet of the first ones.

    Raises InputError where the options are out of range.
    """
    if count < 1:
        raise InputError(f"--count {count}: 1 face or more was expected; nothing was written")
    if seed < 0:
        raise InputError(f"--seed {seed}: 0 or more was expected; nothing was written")
    faces = list(progress(draw_faces(count, seed), count, "faces", "sample"))
    write_csv(output, faces)
    log.info("%s: %d drawn faces, seed %d: in place of FER2013, to try the pipeline with", output, count, seed)
    if sheet:
        draw_sample_sheet(sheet, faces)
        log.info("%s: the expressions to look at", sheet)
