"""The mean of a database's images, as Caffe's compute_image_mean makes it."""

from collections.abc import Callable

import numpy as np

from pipeline.caffe.database import DatabaseError, DatabaseReader

IMAGES_PER_SUM = 256


def mean_image(reader: DatabaseReader, tell: Callable[[int], object]) -> np.ndarray:
    """Average all images of a database: (C, H, W) float32, in 0..255 for images. `tell` is called with how many more.

    The sums of bytes are exact. Caffe's, in float32, are so up to 2^24 / 255 = 65,793 images: until there the mean
    equals Caffe's to the bit, beyond it ours is the true one. Floats are added in float32, one record after another,
    as Caffe adds them. Raises DatabaseError naming the first record of another shape, or when there is none.
    """
    total: np.ndarray | float = 0.0
    count = 0
    for images in reader.images(IMAGES_PER_SUM):
        if images.dtype == np.uint8:
            # uint16 holds the sum of 257 bytes, and adding bytes to it is twice as fast as to anything wider.
            total = total + images.sum(axis=0, dtype=np.uint16)
        else:
            for image in images:
                total = np.add(total, image, dtype=np.float32)
        count += len(images)
        tell(len(images))
    if not count:
        raise DatabaseError(f"{reader.path}: no records, where images to average were expected; has the set any?")
    # The quotient of doubles, rounded, is the float32 quotient of float32 sums that Caffe computes: rounding
    # twice is harmless when the first has 2 * 24 + 2 bits or more (Figueroa, "When is double rounding innocuous?").
    return np.asarray(total / count, np.float32)


def channel_means(image: np.ndarray) -> list[float]:
    """The mean of each channel of a (C, H, W) image, added up in float32, one value after another, as Caffe does."""
    return [float(np.cumsum(values)[-1] / np.float32(values.size)) for values in image]
