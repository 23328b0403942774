"""Classifier: a deploy net that takes images as they are and gives each one's scores, as caffe.Classifier."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from pipeline.caffe import io
from pipeline.caffe.proto.caffe_pb2 import TEST
from pipeline.caffe.pycaffe.net import Net


class ImageNet(Net):
    """A net in TEST whose first input takes images; `transformer` makes them what it takes.

    model_file: a deploy prototxt. pretrained_file: a .caffemodel. mean, input_scale, raw_scale, channel_swap: what the
    Transformer's functions of these names take; images have their channels last.
    """

    def __init__(
        self,
        model_file: str,
        pretrained_file: str,
        *,
        mean: np.ndarray | None,
        input_scale: float | None,
        raw_scale: float | None,
        channel_swap: Sequence[int] | None,
    ) -> None:
        super().__init__(model_file, TEST, weights=pretrained_file)
        name = self.inputs[0]
        self.transformer = io.Transformer({name: self.blobs[name].shape})
        self.transformer.set_transpose(name, (2, 0, 1))
        if mean is not None:
            self.transformer.set_mean(name, mean)
        if input_scale is not None:
            self.transformer.set_input_scale(name, input_scale)
        if raw_scale is not None:
            self.transformer.set_raw_scale(name, raw_scale)
        if channel_swap is not None:
            self.transformer.set_channel_swap(name, channel_swap)

    def scores(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """The first output, (n, ...), of n images (H, W, K)."""
        name = self.inputs[0]
        prepared: dict[str, Any] = {name: np.stack([self.transformer.preprocess(name, image) for image in images])}
        return self.forward_all(**prepared)[self.outputs[0]]


class Classifier(ImageNet):
    """Classifier(model_file, pretrained_file): predict() resizes images to image_dims, crops and scores them.

    image_dims: (height, width), the net's own input unless given; crops are of the input's size. The others are
    ImageNet's.
    """

    def __init__(  # noqa: PLR0917
        self,
        model_file: str,
        pretrained_file: str,
        image_dims: Sequence[int] | None = None,
        mean: np.ndarray | None = None,
        input_scale: float | None = None,
        raw_scale: float | None = None,
        channel_swap: Sequence[int] | None = None,
    ) -> None:
        super().__init__(
            model_file,
            pretrained_file,
            mean=mean,
            input_scale=input_scale,
            raw_scale=raw_scale,
            channel_swap=channel_swap,
        )
        self.crop_dims = self.blobs[self.inputs[0]].shape[2:]
        self.image_dims = tuple(self.crop_dims if image_dims is None else image_dims)

    def predict(self, inputs: Sequence[np.ndarray], oversample: bool = True) -> np.ndarray:
        """The scores (n, classes) of n images (H, W, K).

        With `oversample` the mean over ten crops, corners, middle and mirrored; else of the middle. Raises ImageError
        for what is no list of images.
        """
        if not len(inputs):
            raise io.ImageError("no images where at least one was expected")
        images = [io.resize_image(image, self.image_dims) for image in inputs]
        if oversample:
            scores = self.scores(list(io.oversample(images, self.crop_dims)))
            return scores.reshape(len(images), io.CROPS, -1).mean(1)
        middle = tuple(
            slice((size - crop) // 2, (size - crop) // 2 + crop)
            for size, crop in zip(self.image_dims, self.crop_dims, strict=True)
        )
        return self.scores([image[middle] for image in images])
