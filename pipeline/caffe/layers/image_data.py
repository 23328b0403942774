"""Data from pictures in files, which a list names."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.base.threads import map_ahead
from pipeline.caffe.data_transformer import Transformer, TransformError
from pipeline.caffe.images import ImageFileError, ImageList, decode_with_opencv, read_image_file
from pipeline.caffe.layers.layer import Layer, Shape, Tensors, register, whole_number
from pipeline.caffe.proto.blob_proto import MAX_COUNT


class ListedData(Layer):
    """Pictures that a list in `source` names -> data (batch, C, h, w), label (batch,)."""

    bottoms = (0, 0)
    tops = (2, 2)
    shapes: list[Shape]

    def reshape(self, bottom: list[Shape]) -> list[Shape]:
        return self.shapes

    def check_batch(self, batch: int, *image: int) -> None:
        """Raise LayerError for a batch of none, or of more values than a blob can have."""
        if batch < 1 or math.prod((batch, *image)) > MAX_COUNT:
            raise self.error(
                f"batch_size {batch} of images of shape {image} where 1 to {MAX_COUNT} values in all were expected"
            )

    def draw_seed(self) -> int:
        """A seed of the layer's own, drawn from the net's generator."""
        return int(torch.randint(2**31, (), generator=self.generator))


@register("ImageData")
class ImageData(ListedData):
    """The pictures of a list, in its order or shuffled, over and over -> data (batch, C, h, w), label (batch,).

    A line is "path label", the path appended to root_folder; C is 3, blue, green, red, or 1 with is_color: false; with
    new_height and new_width pictures are resized before they are transformed. Without, the first of a batch gives its
    h and w, which the others must have unless they are cropped. With `shuffle` each pass has another order; rand_skip
    draws where the first begins. Pictures are turned upright as their EXIF says (caffe/layers/image_data_layer.cpp).
    """

    def setup(self, bottom: list[Shape]) -> list[Shape]:
        param = self.param.image_data_param
        self.check_batch(param.batch_size, 3 if param.is_color else 1, param.new_height or 1, param.new_width or 1)
        if bool(param.new_height) != bool(param.new_width):
            raise self.error(
                f"new_height {param.new_height} and new_width {param.new_width} where both or neither were expected"
            )
        self.note_ignored("image_data_param", ("scale", "mean_file", "crop_size", "mirror"))
        self.note_ignored("transform_param", ("force_color", "force_gray"))
        self.list = ImageList(Path(param.source))
        if param.rand_skip > len(self.list):
            raise self.error(f"rand_skip {param.rand_skip} where {param.source} has {len(self.list)} lines")
        try:
            self.transformer = Transformer(self.param.transform_param, self.param.phase, self.draw_seed())
        except TransformError as error:
            raise self.error(str(error)) from None
        if self.param.transform_param.augmentation_param.alternate_mirror:
            raise self.error(
                "transform_param: alternate_mirror is the Data layer's, which reads in one order; leave it out"
            )
        self.seed = self.draw_seed()
        skipped = self.draw_seed() % param.rand_skip if param.rand_skip else 0
        self.seek(0, skipped)
        first = int(self.order[self.position])
        shape = self.top_shape(self.read(first), first)
        self.check_batch(param.batch_size, *shape)
        self.shapes = [(param.batch_size, *shape), (param.batch_size,)]
        return self.shapes

    def seek(self, turn: int, position: int) -> None:
        """Go to a place in the order of one of the turns through the list."""
        self.turn, self.position = turn, position % len(self.list)
        self.order = np.arange(len(self.list))
        if self.param.image_data_param.shuffle:
            np.random.Generator(np.random.PCG64([self.seed, turn])).shuffle(self.order)

    def read(self, line: int) -> np.ndarray:
        """A line's picture, (C, H, W)."""
        param = self.param.image_data_param
        name = self.list.name(line)
        data = read_image_file(param.root_folder + self.list.paths[line], name)
        image = decode_with_opencv(data, name, color=param.is_color, height=param.new_height, width=param.new_width)
        return np.atleast_3d(image).transpose(2, 0, 1)

    def top_shape(self, image: np.ndarray, line: int) -> tuple[int, int, int]:
        """(C, h, w) of a line's picture, transformed."""
        try:
            return self.transformer.output_shape(*image.shape)
        except TransformError as error:
            raise ImageFileError(f"{self.list.name(line)}: {error}") from None

    def next_line(self) -> int:
        """Whose turn it is, from 0."""
        line = int(self.order[self.position])
        self.position += 1
        if self.position == len(self.list):
            self.seek(self.turn + 1, 0)
        return line

    def forward(self, bottom: Tensors) -> Tensors:
        part = self.part()
        lines = [self.next_line() for _ in range(self.param.image_data_param.batch_size * part.step)][part]
        images: list[np.ndarray] = []
        shape = None
        for line, image in zip(lines, map_ahead(self.read, lines), strict=True):
            shape = shape or self.top_shape(image, line)
            if self.top_shape(image, line) != shape:
                raise ImageFileError(
                    f"{self.list.name(line)}: {image.shape[1]}x{image.shape[2]} where "
                    f"{shape[1]}x{shape[2]}, as of the batch's first, was expected; set new_height "
                    "and new_width, or a crop_size, or a batch_size of 1"
                )
            images.append(self.transformer(image[None])[0])
        labels = [self.list.labels[line] for line in lines]
        return [torch.from_numpy(np.stack(images)), torch.tensor(labels, dtype=torch.float32)]

    def state(self) -> dict[str, Any]:
        return {
            "seed": self.seed,
            "turn": self.turn,
            "position": self.position,
            "transformer": self.transformer.state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.seed = whole_number(state, "seed")
        self.seek(whole_number(state, "turn"), whole_number(state, "position"))
        self.transformer.restore(state["transformer"])
