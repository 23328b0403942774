"""mean: average the training database into mean.binaryproto, as Caffe's compute_image_mean does."""

import argparse
from pathlib import Path

import numpy as np

from pipeline.caffe.blobs import write_mean
from pipeline.caffe.database import DatabaseError, DatabaseReader, datum_to_array
from pipeline.console import log, progress

RECORDS_PER_SUM = 256


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("database", type=Path, help="train_lmdb")
    parser.add_argument("output", type=Path, help="mean.binaryproto to write")


def run(args: argparse.Namespace) -> None:
    mean(args.database, args.output)


def mean(database: Path, output: Path) -> np.ndarray:
    """Average every Datum of an LMDB and write it as a binaryproto.

    Returns the (C, H, W) float32 mean, in 0..255 for images. The sums are exact, as Caffe's float32 sums are up to
    2^24 / 255 = 65,793 images: until there the file equals Caffe's to the byte, beyond it is the better one. Raises
    DatabaseError naming the record whose shape differs from the first one's, or when there is none.
    """
    with DatabaseReader(database) as reader:
        if not len(reader):
            raise DatabaseError(f"{database}: no records, where training images were expected; has its Usage any?")
        total: np.ndarray | None = None
        batch: list[np.ndarray] = []
        for key, datum in progress(reader, len(reader), "images", "mean"):
            image = datum_to_array(datum, reader.name(key))
            if total is None:
                total = np.zeros(image.shape)  # float64: exact for more images than there are
            if image.shape != total.shape:
                raise DatabaseError(f"{reader.name(key)}: shape {image.shape} where {total.shape} as in the first record "
                                    "was expected; make the database again from images of one size")
            batch.append(image)
            if len(batch) == RECORDS_PER_SUM:
                total += np.sum(batch, axis=0, dtype=np.float64)
                batch.clear()
        total += np.sum(batch, axis=0, dtype=np.float64)
        # Rounding the float64 quotient gives the float32 quotient of the float32 sums that Caffe computes: a double's
        # 53 bits are more than the 2 * 24 + 2 that make the second rounding harmless.
        image = (total / len(reader)).astype(np.float32)
    write_mean(output, image)
    for channel, values in enumerate(image):
        log.info("mean_value channel [%d]: %g", channel, np.cumsum(values, dtype=np.float32)[-1] / np.float32(values.size))
    return image
