"""Blobs from HDF5 files, and blobs into one."""

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.caffe.hdf5.files import HDF5Error, HDF5Reader, write_hdf5
from pipeline.caffe.layers.layer import Layer, Shape, Tensors, register, whole_number
from pipeline.caffe.proto.blob_proto import MAX_COUNT
from pipeline.caffe.proto.files import MAX_TEXT_BYTES


def listed_files(source: Path) -> list[Path]:
    """The files that a list names, white space between them. Raises HDF5Error when it names none, OSError."""
    if source.stat().st_size > MAX_TEXT_BYTES:
        raise HDF5Error(
            f"{source}: {source.stat().st_size} bytes where a list of files of at most {MAX_TEXT_BYTES} was expected"
        )
    files = [Path(os.fsdecode(name)) for name in source.read_bytes().split()]
    if not files:
        raise HDF5Error(f"{source}: names no file; list HDF5 files in it")
    return files


@register("HDF5Data")
class HDF5Data(Layer):
    """Rows of HDF5 files, over and over -> a top (batch, ...) of each dataset with a top's name, of any axes.

    `source` is a text file that names the files, white space between them. One file at a time is in memory, whole, as
    float32; a batch runs over a file's end into the next one. With `shuffle` each pass has another order of files, and
    of rows in a file. Real Caffe reads on through rows of another shape in a later file; here they are an error.
    """

    bottoms = (0, 0)
    tops = (1, None)

    def setup(self, bottom: list[Shape]) -> list[Shape]:
        param = self.param.hdf5_data_param
        if self.param.HasField("transform_param"):
            raise self.error("transform_param is given, but HDF5Data does not transform data; leave it out")
        if param.batch_size < 1:
            raise self.error(f"batch_size {param.batch_size} where at least 1 was expected")
        self.files = listed_files(Path(param.source))
        self.row_shapes: list[Shape] = []
        self.seed = int(torch.randint(2**31, (), generator=self.generator))
        self.seek(0, 0, 0)
        self.row_shapes = [array.shape[1:] for array in self.arrays]
        for shape in self.row_shapes:
            if math.prod((param.batch_size, *shape)) > MAX_COUNT:
                raise self.error(
                    f"batch_size {param.batch_size} of rows of shape {shape} where a blob has at most "
                    f"{MAX_COUNT} values"
                )
        return [(param.batch_size, *shape) for shape in self.row_shapes]

    def seek(self, turn: int, file: int, row: int) -> None:
        """Go to a row of a file, both by their places in the order of one of the passes through all files."""
        self.turn, self.file, self.row = turn, file, row
        self.arrays: list[np.ndarray] = []  # lets go of the last file before the next one is read
        self.arrays = self._read(self.files[self._order(len(self.files), turn)[file]])
        self.rows = self._order(len(self.arrays[0]), turn, file)

    def _order(self, count: int, *place: int) -> np.ndarray:
        if not self.param.hdf5_data_param.shuffle:
            return np.arange(count)
        return np.random.Generator(np.random.PCG64([self.seed, *place])).permutation(count)

    def _read(self, path: Path) -> list[np.ndarray]:
        with HDF5Reader(path) as file:
            arrays = [file.array(top) for top in self.param.top]
        for top, array in zip(self.param.top, arrays, strict=True):
            if array.ndim == 0 or len(array) != len(arrays[0]) or not array.size:
                raise HDF5Error(
                    f"{path}: /{top} has shape {array.shape} where some rows were expected, as many as in "
                    f"/{self.param.top[0]}, of shape {arrays[0].shape}"
                )
        shapes = [array.shape[1:] for array in arrays]
        if self.row_shapes and shapes != self.row_shapes:
            raise HDF5Error(
                f"{path}: rows of shapes {shapes} where {self.row_shapes} as in the first file were expected"
            )
        return arrays

    def forward(self, bottom: Tensors) -> Tensors:
        parts: list[list[np.ndarray]] = [[] for _ in self.arrays]
        own = self.part()
        wanted = self.param.hdf5_data_param.batch_size * own.step
        while wanted:
            rows = self.rows[self.row : self.row + wanted]
            for part, array in zip(parts, self.arrays, strict=True):
                part.append(array[rows])
            wanted -= len(rows)
            self.row += len(rows)
            if self.row == len(self.rows):
                self._next_file()
        return [torch.from_numpy(np.ascontiguousarray(np.concatenate(part)[own])) for part in parts]

    def _next_file(self) -> None:
        file = (self.file + 1) % len(self.files)
        turn = self.turn + (file == 0)
        if len(self.files) > 1:
            self.seek(turn, file, 0)
        else:
            self.turn, self.row = turn, 0
            self.rows = self._order(len(self.arrays[0]), turn, file)

    def state(self) -> dict[str, Any]:
        return {"seed": self.seed, "turn": self.turn, "file": self.file, "row": self.row}

    def restore(self, state: dict[str, Any]) -> None:
        self.seed = whole_number(state, "seed")
        self.seek(*(whole_number(state, name) for name in ("turn", "file", "row")))
        if self.row >= len(self.rows):
            raise ValueError(f"row {self.row} of {len(self.rows)}")


@register("HDF5Output")
class HDF5Output(Layer):
    """Writes its bottoms into the file `file_name`: datasets "data" and "label" of four axes, later ones of length 1.

    Of one forward pass, as in real Caffe, which aborts in a second one. Real Caffe empties the file as the net is
    built; here what stood in it before stays until it is replaced.
    """

    bottoms = (2, 2)
    tops = (0, 0)

    def setup(self, bottom: list[Shape]) -> list[Shape]:
        for shape in bottom:
            self.four_axes(shape)
        if self.four_axes(bottom[0])[0] != self.four_axes(bottom[1])[0]:
            raise self.error(f"bottoms of shapes {bottom[0]} and {bottom[1]} where as many rows in both were expected")
        self.path = Path(self.param.hdf5_output_param.file_name)
        folder = self.path.absolute().parent
        if not self.path.name or self.path.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
            raise self.error(
                f"file_name '{self.param.hdf5_output_param.file_name}' is no file that can be written; is "
                f"the folder {folder} there?"
            )
        self.written = False
        return []

    def four_axes(self, shape: Shape) -> Shape:
        """A shape as num, channels, height and width."""
        if len(shape) > 4:
            raise self.error(f"a bottom of shape {shape} where at most four axes were expected")
        return (*shape, *[1] * (4 - len(shape)))

    def forward(self, bottom: Tensors) -> Tensors:
        if self.written:
            raise self.error(
                f"a second forward pass, where HDF5Output writes one into {self.path}, as real Caffe "
                "does; make the batch larger, or build the net again"
            )
        data, label = (blob.detach().float().cpu().numpy() for blob in bottom)
        write_hdf5(
            self.path,
            {"data": data.reshape(self.four_axes(data.shape)), "label": label.reshape(self.four_axes(label.shape))},
        )
        self.written = True
        return []
