"""mean: average the training database into mean.binaryproto, as Caffe's compute_image_mean does."""

import argparse
from pathlib import Path

import numpy as np

from pipeline.caffe.blobs import write_mean
from pipeline.caffe.database import DatabaseError, DatabaseReader
from pipeline.console import log, progress_bar

IMAGES_PER_SUM = 256


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("database", type=Path, help="train_lmdb")
    parser.add_argument("output", type=Path, help="mean.binaryproto to write")


def run(args: argparse.Namespace) -> None:
    mean(args.database, args.output)


def mean(database: Path, output: Path) -> np.ndarray:
    """Average every Datum of an LMDB and write it as a binaryproto.

    Returns the (C, H, W) float32 mean, in 0..255 for images. The sums are exact. Caffe's, in float32, are so up to
    2^24 / 255 = 65,793 images: until there the file equals Caffe's to the byte, beyond it ours is the true mean.
    Raises DatabaseError naming the record whose shape is not the first one's, or when there is none.
    """
    total: np.ndarray | float = 0.0
    with DatabaseReader(database) as reader, progress_bar(len(reader), "images", "mean") as bar:
        if not len(reader):
            raise DatabaseError(f"{database}: no records, where images to average were expected; has the set any?")
        for images in reader.images(IMAGES_PER_SUM):
            # uint16 holds the sum of 257 bytes, and adding bytes to it is twice as fast as to anything wider.
            total = total + images.sum(axis=0, dtype=np.uint16 if images.dtype == np.uint8 else np.float64)
            bar.update(len(images))
        # The quotient of doubles, rounded, is the float32 quotient of float32 sums that Caffe computes: rounding
        # twice is harmless when the first has 2 * 24 + 2 bits or more (Figueroa, "When is double rounding innocuous?").
        image = np.asarray(total / len(reader), np.float32)
    write_mean(output, image)
    for channel, values in enumerate(image):
        # In float32, one value after another, and with six digits, as Caffe prints it.
        log.info("mean_value channel [%d]: %g", channel, np.cumsum(values)[-1] / np.float32(values.size))
    return image
