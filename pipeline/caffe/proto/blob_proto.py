"""Arrays as Caffe's files hold them: BlobProto, with the mean file's older form."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipeline.caffe.proto import caffe_pb2
from pipeline.caffe.proto.files import BinaryError, read_binary, write_binary

MAX_AXES = 32  # caffe/blob.hpp, kMaxBlobAxes
MAX_COUNT = 2**31 - 1  # caffe/blob.cpp, Reshape: an int counts the values
POSSIBLE = f"at most {MAX_AXES} axes of at least 0 and {MAX_COUNT} values"
_PACKED_DATA_TAG = bytes([caffe_pb2.BlobProto.DATA_FIELD_NUMBER << 3 | 2])  # wire type 2: length-delimited
_PACKED_DIFF_TAG = bytes([caffe_pb2.BlobProto.DIFF_FIELD_NUMBER << 3 | 2])


def is_possible(shape: Sequence[int]) -> bool:
    """Whether a blob can have a shape: POSSIBLE says which. Beside a 0 the others may not be absurd either."""
    return len(shape) <= MAX_AXES and min(shape, default=0) >= 0 and math.prod(dim or 1 for dim in shape) <= MAX_COUNT


def shown(shape: Sequence[int]) -> str:
    """A shape, however many axes it has, in an error."""
    return f"shape {tuple(shape)}" if len(shape) <= MAX_AXES else f"a shape of {len(shape)} axes"


def to_blobproto(array: np.ndarray) -> caffe_pb2.BlobProto:
    """Pack an array of any shape, as Caffe's Blob::ToProto does: shape and float32 data."""
    blob = caffe_pb2.BlobProto()
    blob.shape.dim.extend(array.shape)
    _set_data(blob, array)
    return blob


def set_diff(blob: caffe_pb2.BlobProto, gradient: np.ndarray) -> None:
    """Give a BlobProto a gradient beside its values, as Caffe writes it under snapshot_diff."""
    _set_packed(blob, _PACKED_DIFF_TAG, gradient)


def _set_data(blob: caffe_pb2.BlobProto, array: np.ndarray) -> None:
    _set_packed(blob, _PACKED_DATA_TAG, array)


def _set_packed(blob: caffe_pb2.BlobProto, tag: bytes, array: np.ndarray) -> None:
    # The wire form of a packed field is its tag, its length and the little-endian floats: merging that is
    # hundreds of times faster than handing protobuf millions of Python floats.
    values = np.ascontiguousarray(array, dtype="<f4").tobytes()
    blob.MergeFromString(tag + _varint(len(values)) + values)


def _get_data(blob: caffe_pb2.BlobProto) -> np.ndarray:
    if blob.double_data:
        with np.errstate(over="ignore"):  # as in C, what is too large becomes infinite
            return np.array(blob.double_data, dtype=np.float32)
    wire = caffe_pb2.BlobProto(data=blob.data).SerializeToString()
    return np.frombuffer(wire, dtype="<f4", offset=len(wire) - 4 * len(blob.data)).astype(np.float32)


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def from_blobproto(blob: caffe_pb2.BlobProto, name: str) -> np.ndarray:
    """Unpack a BlobProto to a float32 array; num, channels, height, width where it has no shape.

    Raises BinaryError, speaking of it as `name`, when the shape and the number of values disagree.
    """
    legacy = (blob.num, blob.channels, blob.height, blob.width)
    shape = tuple(blob.shape.dim) if blob.HasField("shape") else legacy
    values = _get_data(blob)
    if not is_possible(shape) or math.prod(shape) != len(values):
        raise BinaryError(f"{name}: {len(values)} values where {shown(shape)} was declared; is the file damaged?")
    return values.reshape(shape)


def read_mean(path: Path) -> np.ndarray:
    """Read a mean file to (C, H, W) float32. Raises BinaryError when it holds anything else."""
    mean = from_blobproto(read_binary(path, caffe_pb2.BlobProto), str(path))
    if mean.ndim != 4 or len(mean) != 1 or not mean.size:
        raise BinaryError(f"{path}: shape {mean.shape} where a mean image (1, C, H, W) was expected")
    return mean[0]


def write_mean(path: Path, mean: np.ndarray) -> None:
    """Write a (C, H, W) mean image as compute_image_mean does: num, channels, height, width and no shape."""
    channels, height, width = mean.shape
    blob = caffe_pb2.BlobProto(num=1, channels=channels, height=height, width=width)
    _set_data(blob, mean)
    write_binary(path, blob)
