"""Where a net's data comes from: the caller (Input) or a database (Data)."""

from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.caffe.caffe_pb2 import DataParameter
from pipeline.caffe.database import DatabaseError, DatabaseReader, datum_to_array
from pipeline.caffe.layers.layer import Layer, Shape, Tensors, register
from pipeline.caffe.transformer import Transformer, TransformError


@register("Input")
class Input(Layer):
    """Blobs that the caller gives: Net.forward puts them in. One shape for all tops, or one a top."""

    bottoms = (0, 0)
    tops = (1, None)

    def setup(self, bottom: list[Shape]) -> list[Shape]:
        shapes = [tuple(shape.dim) for shape in self.param.input_param.shape]
        if len(shapes) not in (1, len(self.param.top)):
            raise self.error(f"{len(shapes)} shapes where 1 or {len(self.param.top)} were expected")
        return shapes * (len(self.param.top) if len(shapes) == 1 else 1)


@register("Data")
class Data(Layer):
    """Records of an LMDB in its order, over and over, transformed -> data (batch, C, h, w)[, label (batch,)].

    Reads batch by batch through the database's memory map: nothing of it is kept, however large it is. As in Caffe the
    order is the database's, a batch runs over the end to the beginning, and rand_skip has no effect.
    """

    bottoms = (0, 0)
    tops = (1, 2)

    def setup(self, bottom: list[Shape]) -> list[Shape]:
        param = self.param.data_param
        if param.backend != DataParameter.LMDB:
            raise self.error("backend LEVELDB is not known; set backend: LMDB")
        if param.batch_size < 1:
            raise self.error(f"batch_size {param.batch_size} where at least 1 was expected")
        self.reader = DatabaseReader(Path(param.source))
        self.seek(0)
        key, first = next(self.records)
        self.image_shape = datum_to_array(first, self.reader.name(key)).shape
        self.seek(0)
        seed = int(torch.randint(2**31, (), generator=self.generator))
        try:
            self.transformer = Transformer(self.param.transform_param, self.param.phase, seed)
            data = self.transformer.output_shape(*self.image_shape)
        except TransformError as error:
            raise self.error(str(error)) from None
        return [(param.batch_size, *data), (param.batch_size,)][: len(self.param.top)]

    def seek(self, position: int) -> None:
        """Go to a record by its place in the database."""
        self.position = position
        self.records = self.reader.cycle(position)

    def forward(self, bottom: Tensors) -> Tensors:
        images, labels = [], []
        for key, record in islice(self.records, self.param.data_param.batch_size):
            image = datum_to_array(record, self.reader.name(key))
            if image.shape != self.image_shape:
                raise DatabaseError(f"{self.reader.name(key)} has shape {image.shape} where {self.image_shape}, the "
                                    "first one's, was expected; make the database again from images of one size")
            images.append(image)
            labels.append(record.label)
        self.position = (self.position + len(images)) % len(self.reader)
        data = torch.from_numpy(self.transformer(np.stack(images)))
        return [data, torch.tensor(labels, dtype=torch.float32)][: len(self.param.top)]

    def state(self) -> dict[str, Any]:
        return {"position": self.position, "transformer": self.transformer.state()}

    def restore(self, state: dict[str, Any]) -> None:
        self.seek(state["position"])
        self.transformer.restore(state["transformer"])
