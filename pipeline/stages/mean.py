"""mean: average the training database into mean.binaryproto, as Caffe's compute_image_mean does."""

import argparse
from pathlib import Path

import numpy as np

from pipeline.base.console import log, progress_bar
from pipeline.caffe.database import DatabaseReader
from pipeline.caffe.database.mean_image import channel_means, mean_image
from pipeline.caffe.proto.blob_proto import write_mean


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("database", type=Path, help="train_lmdb")
    parser.add_argument("output", type=Path, help="mean.binaryproto to write")


def run(args: argparse.Namespace) -> None:
    mean(args.database, args.output)


def mean(database: Path, output: Path) -> np.ndarray:
    """Average every Datum of an LMDB and write it as a binaryproto; return the (C, H, W) float32 mean.

    Raises DatabaseError as mean_image() does.
    """
    with DatabaseReader(database) as reader, progress_bar(len(reader), "images", "mean") as bar:
        image = mean_image(reader, bar.update)
    write_mean(output, image)
    for channel, value in enumerate(channel_means(image)):
        log.info("mean_value channel [%d]: %g", channel, value)
    return image
