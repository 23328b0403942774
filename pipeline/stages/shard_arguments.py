"""The options of a stage that jobs may share. They import little, so that such a job starts quickly."""

import argparse
from pathlib import Path


def add_shard_arguments(parser: argparse.ArgumentParser, verb: str) -> None:
    """What splits a stage into jobs. verb: what a shard does with its images."""
    parts = parser.add_mutually_exclusive_group()
    parts.add_argument("--shard", metavar="I/N", help=f"{verb} the I-th of N parts of the images, for --gather")
    parts.add_argument(
        "--gather",
        type=Path,
        nargs="+",
        default=(),
        metavar="FOLDER",
        help="put the folders of all shards together, with the same other options: the output is as without shards",
    )
