"""Images, and arrays as Caffe's messages, under the names of caffe.io.

Images are (H, W, K) arrays, colours red, green, blue in 0..1, as Caffe's Python interface has them.
"""

from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from typing import Any

import numpy as np

from pipeline.base.errors import InputError
from pipeline.caffe.proto import caffe_pb2
from pipeline.caffe.proto.blob_proto import from_blobproto, set_diff, to_blobproto

Array = np.ndarray
SHARES = (0.2125, 0.7154, 0.0721)  # of red, green and blue in intensity, those of Rec. 709
CROPS = 10  # that oversample makes of an image


class ImageError(InputError, ValueError):
    """An image, or an array, that is not what was expected."""


def load_image(filename: str | PathLike[str], color: bool = True) -> Array:
    """Read an image file: (H, W, 3) red, green, blue or, without `color`, (H, W, 1) intensity; float32 in 0..1.

    A gray image is repeated thrice for `color`. Transparency is left out for `color`, and otherwise lies on white.
    Raises ImageError when the file is no image.
    """
    from PIL import Image

    try:
        with Image.open(filename) as image:
            if image.mode.startswith("I"):
                pixels = np.asarray(image, np.float64) / np.iinfo(np.uint16).max
            elif image.mode in ("1", "L"):
                pixels = np.asarray(image.convert("L"), np.float64) / 255
            else:
                clear = "A" in image.getbands() or "transparency" in image.info
                pixels = np.asarray(image.convert("RGBA" if clear else "RGB"), np.float64) / 255
    except Exception as error:  # Pillow's decoders let through whatever they stumble over
        if isinstance(error, OSError) and error.errno is not None:  # the file cannot be read, whatever is in it
            raise
        reason = str(error) or type(error).__name__
        raise ImageError(f"{filename}: {reason}; a picture was expected") from None
    if pixels.ndim == 2:
        return np.repeat(pixels[:, :, np.newaxis], 3 if color else 1, axis=2).astype(np.float32)
    if not color:
        opaque = pixels[:, :, 3:] if pixels.shape[2] == 4 else 1
        return ((opaque * pixels[:, :, :3] + (1 - opaque)) @ np.array(SHARES))[:, :, np.newaxis].astype(np.float32)
    return pixels[:, :, :3].astype(np.float32)


def resize_image(im: Array, new_dims: Sequence[int], interp_order: int = 1) -> Array:
    """Resize an (H, W, K) image to (height, width, K), float32.

    interp_order: 0 nearest, 1 linear, 3 cubic. With one or three channels as scikit-image's resize does it, of which
    Caffe's function is made: smoothed first where it shrinks, dark beyond the edges. With other numbers of channels
    by splines of that order between the corners' centres, as scipy's zoom.
    Raises ImageError for another order, and for what is no image.
    """
    if np.ndim(im) != 3 or 0 in np.shape(im):
        raise ImageError(
            f"an image of shape {np.shape(im)} where (H, W, K) was expected; Classifier.predict and the "
            "like take a list of images"
        )
    height, width = new_dims
    if im.shape[-1] not in (1, 3):
        from scipy import ndimage

        scale = (height / im.shape[0], width / im.shape[1], 1)
        return ndimage.zoom(im, scale, order=interp_order).astype(np.float32)
    lowest, highest = im.min(), im.max()
    if highest <= lowest:
        return np.full((height, width, im.shape[-1]), lowest, np.float32)
    spread = (im - lowest) / (highest - lowest)
    return (_resize(spread, (height, width), interp_order) * (highest - lowest) + lowest).astype(np.float32)


def _resize(image: Array, size: tuple[int, int], order: int) -> Array:
    """Smooth by (factor - 1) / 2, then interpolate at pixels' centres, all in double precision."""
    from scipy import ndimage

    if order not in _TAPS:
        raise ImageError(f"interp_order {order} where {', '.join(map(str, _TAPS))} were expected")
    factors = [old / new for old, new in zip(image.shape, size, strict=False)]
    smooth = ndimage.gaussian_filter(image, [*(max(0, (factor - 1) / 2) for factor in factors), 0], mode="constant")
    rows, columns = (_weights(old, new, order) for old, new in zip(smooth.shape, size, strict=False))
    resized = np.einsum("ih,hwk,jw->ijk", rows, smooth.astype(np.float64), columns, optimize=True)
    return resized if order == 0 else resized.clip(smooth.min(), smooth.max())


# The places beside the left neighbour from which each order takes values, and their shares at a fraction t to its right
# (cubic: Catmull and Rom, 1974).
_TAPS: dict[int, tuple[Sequence[int], Any]] = {
    0: ((0, 1), lambda t: (t < 0.5, t >= 0.5)),
    1: ((0, 1), lambda t: (1 - t, t)),
    3: (
        (-1, 0, 1, 2),
        lambda t: (
            (-t + 2 * t**2 - t**3) / 2,
            (2 - 5 * t**2 + 3 * t**3) / 2,
            (t + 4 * t**2 - 3 * t**3) / 2,
            (t**3 - t**2) / 2,
        ),
    ),
}


def _weights(old: int, new: int, order: int) -> Array:
    """(new, old): the shares of the old values in the new ones along an axis; values beyond the ends are 0."""
    places = (np.arange(new) + 0.5) * old / new - 0.5
    left = np.floor(places).astype(int)
    weights = np.zeros((new, old))
    offsets, shares = _TAPS[order]
    for offset, share in zip(offsets, shares(places - left), strict=True):
        inside = (left + offset >= 0) & (left + offset < old)
        weights[np.flatnonzero(inside), (left + offset)[inside]] += np.asarray(share, float)[inside]
    return weights


def oversample(images: Iterable[Array], crop_dims: Sequence[int]) -> Array:
    """The four corners and the middle of every image, and these mirrored: (10 n, height, width, K) float32."""
    given = list(images)
    height, width = (int(size) for size in crop_dims)
    rows, columns = given[0].shape[0] - height, given[0].shape[1] - width
    if rows < 0 or columns < 0:
        raise ImageError(f"crops of {height}x{width} where the images have {given[0].shape[0]}x{given[0].shape[1]}")
    places = [(0, 0), (0, columns), (rows, 0), (rows, columns), (rows // 2, columns // 2)]
    crops = []
    for image in given:
        ones = [image[top : top + height, left : left + width] for top, left in places]
        crops += [*ones, *(one[:, ::-1] for one in ones)]
    return np.stack(crops).astype(np.float32)


class Transformer:
    """Turns images into what a net's input takes, and back.

    inputs: the shapes of the inputs, (N, C, H, W), by name. preprocess resizes to H x W, moves axes (set_transpose),
    swaps channels (set_channel_swap), multiplies by a raw scale, subtracts a mean and multiplies by an input scale,
    each where it was set.
    """

    def __init__(self, inputs: Mapping[str, Sequence[int]]) -> None:
        self.inputs = inputs
        self.transpose: dict[str, Sequence[int]] = {}
        self.channel_swap: dict[str, Sequence[int]] = {}
        self.raw_scale: dict[str, float] = {}
        self.mean: dict[str, Array] = {}
        self.input_scale: dict[str, float] = {}

    def _shape(self, in_: str) -> tuple[int, ...]:
        if in_ not in self.inputs:
            raise ImageError(f"'{in_}' is none of the inputs {', '.join(self.inputs)}")
        return tuple(self.inputs[in_])

    def preprocess(self, in_: str, data: Array) -> Array:
        """An image as the input `in_` takes it, float32 (C, H, W)."""
        size = self._shape(in_)[2:]
        image = np.asarray(data, np.float32)
        if image.shape[:2] != size:
            image = resize_image(image, size)
        if in_ in self.transpose:
            image = image.transpose(self.transpose[in_])
        if in_ in self.channel_swap:
            image = image[list(self.channel_swap[in_])]
        image = image * np.float32(self.raw_scale.get(in_, 1))
        if in_ in self.mean:
            image = image - self.mean[in_]
        return (image * self.input_scale.get(in_, 1)).astype(np.float32)

    def deprocess(self, in_: str, data: Array) -> Array:
        """What preprocess() made, back as an image; it stays of the input's size."""
        self._shape(in_)
        image = np.array(data).squeeze() / np.float32(self.input_scale.get(in_, 1))
        if in_ in self.mean:
            image = image + self.mean[in_]
        image = (image / self.raw_scale.get(in_, 1)).astype(data.dtype)
        if in_ in self.channel_swap:
            image = image[np.argsort(self.channel_swap[in_])]
        if in_ in self.transpose:
            image = image.transpose(np.argsort(self.transpose[in_]))
        return image

    def set_transpose(self, in_: str, order: Sequence[int]) -> None:
        """Move an image's axes, (2, 0, 1) from (H, W, K) to (K, H, W)."""
        if len(order) != len(self._shape(in_)) - 1:
            raise ImageError(
                f"transpose order {tuple(order)} where the input '{in_}' has {len(self._shape(in_)) - 1} "
                "axes beside the batch's"
            )
        self.transpose[in_] = order

    def set_channel_swap(self, in_: str, order: Sequence[int]) -> None:
        """Take the channels in another order, (2, 1, 0) from red, green, blue to blue, green, red."""
        if len(order) != self._shape(in_)[1]:
            raise ImageError(f"channel swap {tuple(order)} where the input '{in_}' has {self._shape(in_)[1]} channels")
        self.channel_swap[in_] = order

    def set_raw_scale(self, in_: str, scale: float) -> None:
        """Multiply images by `scale` before the mean is subtracted: 255 for nets of pixels in 0..255."""
        self._shape(in_)
        self.raw_scale[in_] = scale

    def set_mean(self, in_: str, mean: Array) -> None:
        """Subtract a mean: (C,) a value a channel, (C, H, W), which is resized where it must be, or (H, W)."""
        shape, mean = self._shape(in_), np.asarray(mean)
        if mean.ndim == 1:
            if len(mean) != shape[1]:
                raise ImageError(f"mean of {len(mean)} channels where the input '{in_}' has {shape[1]}")
            mean = mean[:, np.newaxis, np.newaxis]
        elif mean.ndim == 2:
            mean = mean[np.newaxis]
        elif mean.ndim != 3:
            raise ImageError(f"mean of shape {mean.shape} where (C,), (C, H, W) or (H, W) was expected")
        if mean.shape[1:] not in ((1, 1), shape[2:]):
            mean = resize_image(mean.transpose(1, 2, 0), shape[2:]).transpose(2, 0, 1)
        self.mean[in_] = mean

    def set_input_scale(self, in_: str, scale: float) -> None:
        """Multiply by `scale` after the mean is subtracted."""
        self._shape(in_)
        self.input_scale[in_] = scale


def array_to_blobproto(arr: Array, diff: Array | None = None) -> caffe_pb2.BlobProto:
    """An array of any shape, and perhaps its gradient, as a BlobProto."""
    blob = to_blobproto(np.asarray(arr))
    if diff is not None:
        set_diff(blob, np.asarray(diff))
    return blob


def blobproto_to_array(blob: caffe_pb2.BlobProto, return_diff: bool = False) -> Array:
    """A BlobProto's values, or with `return_diff` its gradient. Raises BinaryError when they do not fill its shape.

    Without a shape of any form it holds one number.
    """
    if return_diff:
        gradient = caffe_pb2.BlobProto()
        gradient.CopyFrom(blob)
        del gradient.data[:], gradient.double_data[:]
        gradient.data.extend(blob.diff)
        blob = gradient
    if not blob.HasField("shape") and not any(map(blob.HasField, ("num", "channels", "height", "width"))):
        scalar = caffe_pb2.BlobProto(shape=caffe_pb2.BlobShape())
        scalar.MergeFrom(blob)
        blob = scalar
    return from_blobproto(blob, "the BlobProto").astype(np.float64)


def arraylist_to_blobprotovector_str(arraylist: Iterable[Array]) -> bytes:
    """Arrays as a binary BlobProtoVector."""
    return caffe_pb2.BlobProtoVector(blobs=map(array_to_blobproto, arraylist)).SerializeToString()


def blobprotovector_str_to_arraylist(str: bytes) -> list[Array]:  # noqa: A002 - Caffe's name, by which it may be given
    """The arrays of a binary BlobProtoVector."""
    return [blobproto_to_array(blob) for blob in caffe_pb2.BlobProtoVector.FromString(str).blobs]


def array_to_datum(arr: Array, label: int | None = None) -> caffe_pb2.Datum:
    """A (C, H, W) array as a Datum: bytes of uint8, of other types floats."""
    if arr.ndim != 3:
        raise ImageError(f"array of shape {arr.shape} where (C, H, W) was expected")
    datum = caffe_pb2.Datum(channels=arr.shape[0], height=arr.shape[1], width=arr.shape[2], label=label)
    if arr.dtype == np.uint8:
        datum.data = arr.tobytes()
    else:
        datum.float_data.extend(arr.astype(float).ravel())
    return datum


def datum_to_array(datum: caffe_pb2.Datum) -> Array:
    """A Datum's (C, H, W) values: uint8 of bytes, float64 of floats. Raises ImageError when they do not fill them."""
    if datum.encoded:
        raise ImageError("a Datum with an encoded picture, of which Caffe's function makes no array; decode its data")
    values = np.frombuffer(datum.data, np.uint8) if datum.data else np.array(datum.float_data, float)
    shape = (datum.channels, datum.height, datum.width)
    if values.size != np.prod(shape, dtype=object) or min(shape) < 0:
        raise ImageError(f"a Datum of {values.size} values where its shape says {shape}")
    return values.reshape(shape).copy()
