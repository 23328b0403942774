"""Where a net's data comes from: the caller (Input, MemoryData), a database (Data) or a filler (DummyData)."""

import base64
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.caffe.data_transformer import Transformer, TransformError
from pipeline.caffe.database import DatabaseError, DatabaseReader, datum_to_array
from pipeline.caffe.database.datum import IMREAD_UNCHANGED
from pipeline.caffe.fillers import check_filler, fill
from pipeline.caffe.images import IMREAD_COLOR, IMREAD_GRAYSCALE
from pipeline.caffe.layers.layer import Layer, Shape, Tensors, register, whole_number
from pipeline.caffe.proto.blob_proto import MAX_COUNT
from pipeline.caffe.proto.caffe_pb2 import DataParameter, FillerParameter
from pipeline.caffe.proto.files import PrototxtError


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
    """Records of a database in its order, over and over, transformed -> data (batch, C, h, w)[, label (batch,)].

    A batch runs over the database's end to its beginning. Its first record gives C, h and w, which the others must have
    once they are cropped: with a crop_size images of several sizes go together, with a batch_size of 1 without as well.
    transform_param's force_color and force_gray say how encoded images are decoded. Nothing of the database is kept,
    however large it is.
    """

    bottoms = (0, 0)
    tops = (1, 2)

    def setup(self, bottom: list[Shape]) -> list[Shape]:
        param, transform = self.param.data_param, self.param.transform_param
        if param.batch_size < 1:
            raise self.error(f"batch_size {param.batch_size} where at least 1 was expected")
        if transform.force_color and transform.force_gray:
            raise self.error("transform_param: force_color and force_gray exclude one another")
        self.mode = (
            IMREAD_COLOR if transform.force_color else IMREAD_GRAYSCALE if transform.force_gray else IMREAD_UNCHANGED
        )
        self.note_ignored(
            "data_param", ("rand_skip", "scale", "mean_file", "crop_size", "mirror", "force_encoded_color")
        )
        self.reader = DatabaseReader(Path(param.source), DataParameter.DB.Name(param.backend).lower())
        key, value = self.reader.cycle().take(1)[0]
        datum = self.reader.datum(key, value)
        if not datum.encoded:
            self.note_ignored("transform_param", ("force_color", "force_gray"))
        image = datum_to_array(datum, self.reader.name(key), self.mode)
        seed = int(torch.randint(2**31, (), generator=self.generator))
        try:
            self.transformer = Transformer(transform, self.param.phase, seed)
            data = self.transformer.output_shape(*image.shape)
        except TransformError as error:
            raise self.error(str(error)) from None
        if math.prod((param.batch_size, *data)) > MAX_COUNT:
            raise self.error(
                f"batch_size {param.batch_size} of images of shape {data} where at most {MAX_COUNT} "
                "values were expected"
            )
        self.records = self.reader.cycle()
        self.alternates = self.training and transform.augmentation_param.alternate_mirror
        if self.alternates and not transform.mirror:
            raise self.error("transform_param: augmentation_param's alternate_mirror goes with mirror: true")
        self.mirror_seed = seed
        self.taken = 0  # records of all passes
        self.shapes = [(param.batch_size, *data), (param.batch_size,)][: len(self.param.top)]
        return self.shapes

    def reshape(self, bottom: list[Shape]) -> list[Shape]:
        return self.shapes

    def forward(self, bottom: Tensors) -> Tensors:
        part = self.part()
        records = self.records.take(self.param.data_param.batch_size * part.step)
        mirrored = self.mirrored(len(records))[part] if self.alternates else None
        self.taken += len(records)
        records = records[part]
        images, labels = self.reader.unpack(records, self.mode)
        if len({image.shape for image in images}) > 1:
            batch = self.transform_one_by_one(records, images, mirrored)
        else:
            batch = self.transformer(np.asarray(images), mirrored)
        return [torch.from_numpy(batch), torch.from_numpy(labels.astype(np.float32))][: len(self.param.top)]

    def mirrored(self, count: int) -> np.ndarray:
        """(count,) bool: which of the next records are mirrored, each in every second pass.

        In the first pass a hash of the record's number decides, SplitMix64's finaliser (Steele et al., 2014), so that
        nothing need be kept of a set of any size.
        """
        taken = np.arange(self.taken, self.taken + count, dtype=np.uint64)
        passes, numbers = np.divmod(taken, np.uint64(len(self.reader)))
        mixed = numbers * np.uint64(0x9E3779B97F4A7C15) + np.uint64(self.mirror_seed)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
        return ((mixed >> np.uint64(33)) + passes) % np.uint64(2) == 1

    def transform_one_by_one(
        self, records: Sequence[tuple[bytes, bytes]], images: Iterable[np.ndarray], mirrored: np.ndarray | None
    ) -> np.ndarray:
        """Transform images of several sizes to one (N, C, h, w)."""
        tops: list[np.ndarray] = []
        for number, ((key, _), image) in enumerate(zip(records, images, strict=True)):
            try:
                top = self.transformer(image[None], None if mirrored is None else mirrored[[number]])[0]
            except TransformError as error:
                raise DatabaseError(f"{self.reader.name(key)}: {error}") from None
            if tops and top.shape != tops[0].shape:
                raise DatabaseError(
                    f"{self.reader.name(key)} has shape {image.shape} where {tops[0].shape}, that of "
                    "the batch's first, was expected; make the database again from images of one "
                    "size, or set crop_size"
                )
            tops.append(top)
        return np.stack(tops)

    def state(self) -> dict[str, Any]:
        state = {"position": self.records.position, "transformer": self.transformer.state()}
        return state | ({"taken": self.taken, "mirror_seed": self.mirror_seed} if self.alternates else {})

    def restore(self, state: dict[str, Any]) -> None:
        self.records = self.reader.cycle(whole_number(state, "position"))
        if self.alternates:
            self.taken = whole_number(state, "taken")
            if "mirror_seed" in state:  # older snapshots lack it
                self.mirror_seed = whole_number(state, "mirror_seed")
        self.transformer.restore(state["transformer"])


@register("DummyData")
class DummyData(Layer):
    """Tops that fillers fill: constants, or what is drawn anew for every batch.

    One filler for all tops (constant 0 without any) or one a top; so are the shapes, or num, channels, height, width.
    """

    bottoms = (0, 0)
    tops = (1, None)

    def setup(self, bottom: list[Shape]) -> list[Shape]:
        param = self.param.dummy_data_param
        sizes = [
            self.one_a_top(name, getattr(param, name))
            for name in ("num", "channels", "height", "width")
            if getattr(param, name) or not param.shape
        ]
        if param.shape and sizes:
            raise self.error("both shape and num, channels, height or width are given")
        self.shapes = (
            [tuple(shape.dim) for shape in self.one_a_top("shape", param.shape)]
            if param.shape
            else list(zip(*sizes, strict=True))
        )
        self.fillers = self.one_a_top("data_filler", param.data_filler or [FillerParameter(type="constant")])
        # On the CPU, so that a seed means the same numbers everywhere.
        self.random = torch.Generator().manual_seed(int(torch.randint(2**31, (), generator=self.generator)))
        for shape, filler in zip(self.shapes, self.fillers, strict=True):
            try:
                check_filler(shape, filler)
            except PrototxtError as error:
                raise self.error(str(error)) from None
        return self.shapes

    def one_a_top(self, name: str, values: Sequence[Any]) -> list[Any]:
        """The values, repeated for every top where there is one."""
        tops = len(self.param.top)
        if len(values) not in (1, tops):
            raise self.error(f"{len(values)} {name} where 1 or {tops} were expected")
        return [*values] * (tops if len(values) == 1 else 1)

    def forward(self, bottom: Tensors) -> Tensors:
        return [fill(shape, filler, self.random) for shape, filler in zip(self.shapes, self.fillers, strict=True)]

    def state(self) -> dict[str, Any]:
        return {"generator": base64.b64encode(self.random.get_state().numpy().tobytes()).decode()}

    def restore(self, state: dict[str, Any]) -> None:
        self.random.set_state(torch.frombuffer(bytearray(base64.b64decode(state["generator"])), dtype=torch.uint8))


@register("MemoryData")
class MemoryData(Layer):
    """Arrays that the caller gives, over and over -> data (N, channels, height, width), label (N, 1, 1, 1).

    N is batch_size. set_arrays gives them; like Caffe's Reset it leaves transform_param aside.
    """

    bottoms = (0, 0)
    tops = (2, 2)

    def setup(self, bottom: list[Shape]) -> list[Shape]:
        param = self.param.memory_data_param
        self.shape = (param.batch_size, param.channels, param.height, param.width)
        if min(self.shape) < 1:
            raise self.error(f"batch_size, channels, height, width {self.shape} where at least 1 was expected")
        self.arrays: tuple[np.ndarray, np.ndarray] | None = None
        self.position = 0
        return [self.shape, (param.batch_size, 1, 1, 1)]

    def set_arrays(self, data: np.ndarray, labels: np.ndarray) -> None:
        """Read from the first of `data` (n, channels, height, width) and `labels` (n,) on; n is full batches."""
        batch, *image = self.shape
        if data.shape[1:] != tuple(image) or len(data) % batch or not len(data) or labels.size != len(data):
            raise self.error(
                f"data of shape {data.shape} and labels of shape {labels.shape} where (n, "
                f"{', '.join(map(str, image))}) and (n,) were expected, n a multiple of {batch}"
            )
        self.arrays = np.asarray(data, np.float32), np.asarray(labels, np.float32).reshape(-1, 1, 1, 1)
        self.position = 0

    def forward(self, bottom: Tensors) -> Tensors:
        if self.arrays is None:
            raise self.error("no arrays were given; set_arrays gives them")
        batch = slice(self.position, self.position + self.shape[0])
        self.position = batch.stop % len(self.arrays[0])
        return [torch.tensor(array[batch]) for array in self.arrays]

    def state(self) -> dict[str, Any]:
        return {"position": self.position}

    def restore(self, state: dict[str, Any]) -> None:
        self.position = whole_number(state, "position")
