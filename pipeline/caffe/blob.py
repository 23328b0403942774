"""Blobs that stay where they are: values and gradients that numpy reads and writes in place, and torch as well."""

import math
from collections.abc import Iterable
from operator import index as as_index
from typing import Any

import numpy as np
import torch

from pipeline.base.errors import InputError
from pipeline.caffe.proto.blob_proto import POSSIBLE, is_possible, shown

Shape = tuple[int, ...]


class BlobError(InputError):
    """What no blob can be: its shape, or what is asked of it."""


class Memory:
    """Float32 numbers, 0 at first, that the host and a device see (caffe/syncedmem.cpp).

    On the CPU both see the same. Elsewhere each has its own, and whoever asks is given the newest: it counts as written
    to from then on, until the other side asks. What is put there is copied when somebody asks for the numbers, unless
    an array of them was given away, which is to show them at once.
    """

    def __init__(self, count: int, device: torch.device) -> None:
        self.count = count
        self.device = device
        self._host: torch.Tensor | None = None
        self._there: torch.Tensor | None = None
        self._newest_on_host = False
        self._put: torch.Tensor | None = None  # what is still to be copied
        self._given_away = False

    @classmethod
    def of(cls, tensor: torch.Tensor) -> "Memory":
        """The memory that a contiguous tensor lies in."""
        memory = cls(tensor.numel(), tensor.device)
        memory._there = tensor.detach().view(-1)
        return memory

    def tensor(self) -> torch.Tensor:
        """The numbers on the device, (count,), for torch. No graph keeps watch over them."""
        if self._there is None:
            self._there = torch.zeros(self.count, device=self.device)
        if self._newest_on_host and self._host is not None:
            self._there.copy_(self._host)
            self._newest_on_host = False
        if self._put is not None:
            self._there[: self._put.numel()].view(self._put.shape).copy_(self._put)
            self._put = None
        return self._there.data

    def array(self) -> "np.ndarray[Any, Any]":
        """The numbers on the host, (count,), for numpy."""
        self._given_away = True
        if self.device.type == "cpu":
            return self.tensor().numpy()
        if self._host is None:
            self._host = torch.zeros(self.count)
        if not self._newest_on_host:
            self._host.copy_(self.tensor())
            self._newest_on_host = True
        return self._host.numpy()

    def put(self, values: torch.Tensor) -> None:
        """Let the first numbers be those of a tensor, in whatever order they lie there, that nobody writes to."""
        self._put = values
        if self._given_away:
            self.tensor()

    @property
    def waits(self) -> bool:
        """Whether what was put is still to be copied, and so nobody writes to it."""
        return self._put is not None

    def newest(self, shape: Shape) -> torch.Tensor:
        """The first numbers in that shape, only to be read: those that were put, as they lie, or the device's."""
        if self._put is not None and self._put.numel() == math.prod(shape):
            # Not reshape() where the shape is the same: it gives a batch of one other strides.
            return self._put if self._put.shape == shape else self._put.reshape(shape)
        return self.tensor()[: math.prod(shape)].view(shape)


class Blob:
    """Values (`data`) and their gradients (`diff`), numpy arrays of the blob's shape that are written to in place.

    Blobs may share their memory, as those of a weight that layers share do.
    """

    def __init__(
        self, shape: Shape, device: torch.device, *, values: Memory | None = None, gradients: Memory | None = None
    ) -> None:
        self._shape = shape
        count = math.prod(shape)
        self.values = values or Memory(count, device)
        self.gradients = gradients or Memory(count, device)

    @property
    def shape(self) -> Shape:
        return self._shape

    @property
    def count(self) -> int:
        """How many values there are."""
        return math.prod(self._shape)

    @property
    def data(self) -> np.ndarray:
        """The values."""
        return self.values.array()[: self.count].reshape(self._shape)

    @property
    def diff(self) -> np.ndarray:
        """The gradients."""
        return self.gradients.array()[: self.count].reshape(self._shape)

    @property
    def num(self) -> int:
        """The first of four axes, 1 where there is none (so with the next three)."""
        return self._legacy_axis(0)

    @property
    def channels(self) -> int:
        """The second of four axes."""
        return self._legacy_axis(1)

    @property
    def height(self) -> int:
        """The third of four axes."""
        return self._legacy_axis(2)

    @property
    def width(self) -> int:
        """The fourth of four axes."""
        return self._legacy_axis(3)

    def _legacy_axis(self, axis: int) -> int:
        if len(self._shape) > 4:
            raise BlobError(
                f"a blob of shape {self._shape} has more axes than num, channels, height and width; use shape"
            )
        return self._shape[axis] if axis < len(self._shape) else 1

    def reshape(self, *dims: int) -> None:
        """Take another shape. Values and gradients stay, and begin again at 0 when there must be more of them."""
        shape = tuple(as_index(dim) for dim in dims)
        if not is_possible(shape):
            raise BlobError(f"{shown(shape)} where {POSSIBLE} were expected")
        self._shape = shape
        if self.count > self.values.count:
            self.values = Memory(self.count, self.values.device)
        if self.count > self.gradients.count:
            self.gradients = Memory(self.count, self.gradients.device)

    def tensor(self) -> torch.Tensor:
        """The values for torch, in place; no graph keeps watch over them."""
        return self.values.tensor()[: self.count].view(self._shape)

    def gradient(self) -> torch.Tensor:
        """The gradients for torch, in place."""
        return self.gradients.tensor()[: self.count].view(self._shape)


class Blobs(list[Blob]):
    """The blobs of a layer, as a Python layer sees them: it adds its own to `self.blobs`."""

    def __init__(self, blobs: Iterable[Blob] = (), device: torch.device | None = None) -> None:
        super().__init__(blobs)
        self.device = device or torch.device("cpu")

    def add_blob(self, *dims: int) -> None:
        """Add a blob of that shape, 0 at first."""
        blob = Blob((0,), self.device)
        blob.reshape(*dims)
        self.append(blob)
