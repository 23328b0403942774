"""What every source of labelled faces yields, a batch at a time, so that a set of any size fits in memory."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np


@dataclass(frozen=True)
class LabelledImage:
    """One face: its 0-based row in the source, Usage, index into the source's labels, (H, W) uint8 grey pixels."""

    row: int
    usage: str
    label: int
    pixels: np.ndarray


# Reads one batch of images. Batches are independent: a thread each may read them, in any order.
Batch = Callable[[], list[LabelledImage]]


class Source(Protocol):
    """A data set: its class names in index order, and its images in batches."""

    @property
    def labels(self) -> tuple[str, ...]: ...

    def batches(self) -> Iterator[Batch]: ...
