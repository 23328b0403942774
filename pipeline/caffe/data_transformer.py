"""Caffe's DataTransformer: the one pre-processing of training, testing and serving. numpy alone."""

from pathlib import Path
from typing import Any

import numpy as np

from pipeline.caffe.augmentation import AugmentationError, augment, check_augmentation
from pipeline.caffe.proto.blob_proto import read_mean
from pipeline.caffe.proto.caffe_pb2 import TRAIN, TransformationParameter
from pipeline.caffe.proto.files import PrototxtError


class TransformError(PrototxtError):
    """A transform_param that does not fit itself or the images."""


class Transformer:
    """Crops, mirrors, subtracts the mean and scales: (pixel - mean) * scale (caffe/data_transformer.cpp).

    param: transform_param; its mean_file must have the images' size before the crop and is read at the crop's offset.
    phase: in TRAIN the crop lies anywhere, otherwise in the centre; mirroring asks for no phase.
    In TRAIN augmentation_param, which Caffe does not have, first changes the images at random.
    seed: of what is drawn: the augmentation, then mirror and the offsets, in the order of Caffe's.
    """

    def __init__(self, param: TransformationParameter, phase: int, seed: int | None = None) -> None:
        if param.mean_file and param.mean_value:
            raise TransformError("transform_param: mean_file and mean_value exclude one another")
        if param.HasField("augmentation_param"):
            try:
                check_augmentation(param.augmentation_param)
            except AugmentationError as error:
                raise TransformError(f"transform_param: {error}") from None
        self.param = param
        self.phase = phase
        self.generator = np.random.Generator(np.random.PCG64(seed))
        self.mean: np.ndarray | None = None
        if param.mean_file:
            self.mean = read_mean(Path(param.mean_file))
        elif param.mean_value:
            self.mean = np.array(param.mean_value, dtype=np.float32)[:, None, None]

    def output_shape(self, channels: int, height: int, width: int) -> tuple[int, int, int]:
        """(C, h, w) of a transformed (C, H, W) image. Raises TransformError when crop or mean do not fit it."""
        crop = self.param.crop_size
        if crop > min(height, width):
            raise TransformError(f"transform_param: crop_size {crop} is larger than images of {height}x{width}")
        if self.param.mean_file and self.mean is not None and self.mean.shape != (channels, height, width):
            raise TransformError(
                f"{self.param.mean_file}: a mean of shape {self.mean.shape} where the images have "
                f"{(channels, height, width)}; average this database's own images"
            )
        if self.param.mean_value and len(self.param.mean_value) not in (1, channels):
            raise TransformError(
                f"transform_param: {len(self.param.mean_value)} mean_value where the images have {channels} channels"
            )
        return (channels, crop or height, crop or width)

    def __call__(self, images: np.ndarray, mirrored: np.ndarray | None = None) -> np.ndarray:
        """Transform images (N, C, H, W), uint8 or float32, to (N, C, h, w) float32.

        mirrored: (N,) bool, the images to mirror; drawn where `mirror` is set and this is not given.
        """
        count, channels, height, width = images.shape
        _, top_height, top_width = self.output_shape(channels, height, width)
        if self.phase == TRAIN and self.param.HasField("augmentation_param"):
            images = augment(images, self.param.augmentation_param, self.generator)
        if mirrored is None and self.param.mirror:
            mirrored = np.asarray(self.generator.integers(2, size=count, dtype=bool))
        mean = self.mean
        if (top_height, top_width) != (height, width):
            if self.phase == TRAIN:
                room = (height - top_height + 1, width - top_width + 1)
                rows, columns = self.generator.integers(room, size=(count, 2)).T
                images = _windows(images, top_height, top_width)[np.arange(count), :, rows, columns]
                if mean is not None and self.param.mean_file:
                    mean = _windows(mean, top_height, top_width)[:, rows, columns].swapaxes(0, 1)
            else:
                top, left = (height - top_height) // 2, (width - top_width) // 2
                images = images[..., top : top + top_height, left : left + top_width]
                if mean is not None and self.param.mean_file:
                    mean = mean[..., top : top + top_height, left : left + top_width]
        result = images.astype(np.float32)
        if mean is not None:
            result -= mean
        if self.param.scale != 1:
            result *= self.param.scale
        if mirrored is not None:
            result[mirrored] = result[mirrored][..., ::-1]
        return result

    def state(self) -> dict[str, Any]:
        """Where the generator stands, fit for JSON."""
        return dict(self.generator.bit_generator.state)

    def restore(self, state: dict[str, Any]) -> None:
        """Take back what state() gave."""
        self.generator.bit_generator.state = state


def _windows(images: np.ndarray, height: int, width: int) -> np.ndarray:
    """Every (height, width) window of (..., H, W) images, a view (..., offsets down, offsets across, height, width)."""
    return np.lib.stride_tricks.sliding_window_view(images, (height, width), axis=(-2, -1))
