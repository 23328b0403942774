"""Datums: Caffe's records, an image with its label. Raw bytes, floats, or an encoded picture."""

import math

import numpy as np
from google.protobuf.message import DecodeError

from pipeline.base.errors import InputError
from pipeline.base.pictures import MAX_PIXELS, decode, is_huge
from pipeline.caffe.proto.caffe_pb2 import Datum

IMREAD_UNCHANGED = -1  # cv2's, which is imported only where a picture is decoded


class DatabaseError(InputError):
    """A database that cannot be read or written, or a record in it that is no usable Datum."""


def datum_from_image(image: np.ndarray, label: int) -> Datum:
    """Pack a (C, H, W) or (H, W) uint8 image, channels in blue, green, red order, as Caffe's CVMatToDatum does."""
    channels, height, width = image.shape if image.ndim == 3 else (1, *image.shape)
    # encoded is written although false is its default, as Caffe does.
    return Datum(channels=channels, height=height, width=width, data=image.tobytes(), label=label, encoded=False)


def parse_datum(value: bytes, name: str) -> Datum:
    """Parse a record's value. Raises DatabaseError, speaking of the record as `name`, when it is no Datum."""
    try:
        return Datum.FromString(value)
    except DecodeError:
        raise DatabaseError(f"{name}: not a Datum; make the database again") from None


def datum_to_array(datum: Datum, name: str, mode: int = IMREAD_UNCHANGED) -> np.ndarray:
    """Unpack a Datum to (C, H, W), uint8, or float32 where it holds floats; decodes an encoded image as `mode` says.

    Raises DatabaseError, speaking of the record as `name`, when shape and data disagree.
    """
    if datum.encoded:
        return _decode(datum.data, name, mode)
    shape = (datum.channels, datum.height, datum.width)
    values = np.frombuffer(datum.data, np.uint8) if datum.data else np.array(datum.float_data, np.float32)
    if min(shape) < 1 or shape[0] * shape[1] * shape[2] != len(values):
        raise DatabaseError(f"{name}: {len(values)} values where shape {shape} was declared; make the database again")
    return values.reshape(shape)


def _decode(data: bytes, name: str, mode: int) -> np.ndarray:
    if is_huge(data):
        raise DatabaseError(
            f"{name}: an encoded image of more than the {MAX_PIXELS} pixels that are read; make the "
            "database again from smaller images"
        )
    image = decode(data, mode)
    if image is None or image.dtype != np.uint8:
        raise DatabaseError(
            f"{name}: no readable image of 8 bits, where the Datum says encoded; make the database again"
        )
    return np.atleast_3d(image).transpose(2, 0, 1)


def images_of_equal_form(values: list[bytes], shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray] | None:
    """Images (N, C, H, W) and labels (N,) of Datums that differ in these alone; None when they differ otherwise.

    That is how convert_imageset writes them: fields in the order of their numbers, each label below 128 one byte.
    Looking at a batch of them as one array is ten times as fast as parsing each.
    """
    form = datum_from_image(np.zeros(shape, np.uint8), 0).SerializeToString()
    if any(len(value) != len(form) for value in values):
        return None
    records = np.frombuffer(b"".join(values), np.uint8).reshape(len(values), len(form))
    label = len(form) - 3  # before encoded's two bytes
    start = label - 1 - math.prod(shape)  # of the pixels, before label's tag
    head, tail = np.frombuffer(form[:start], np.uint8), np.frombuffer(form[label - 1 :], np.uint8)
    differs = records[:, label - 1 :] != tail
    if (records[:, :start] != head).any() or differs[:, [0, 2, 3]].any() or (records[:, label] > 127).any():
        return None
    return records[:, start : label - 1].reshape(-1, *shape), records[:, label]
