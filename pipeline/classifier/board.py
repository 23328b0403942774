"""What a run shows in TensorBoard, where the extra tensorboard is installed: beside metrics.csv, the same numbers."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from pipeline.base.errors import InputError

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

FOLDER = "tensorboard"  # in the run's
# The columns of metrics.csv; those of one group share a page of charts.
TAGS = {"lr": "rate/lr", "train_loss": "loss/train", "test_loss": "loss/test", "test_accuracy": "accuracy/test"}


@contextmanager
def open_board(run: Path, start: int | None = None) -> Iterator["SummaryWriter"]:
    """Write into a run's folder for TensorBoard; what it had from iteration `start` on is not shown any more.

    Raises InputError where the package is missing.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise InputError(
            "tensorboard needs the package of that name: pip install 'caffe-expressions[tensorboard]'"
        ) from None
    with SummaryWriter(str(run / FOLDER), purge_step=start) as board:
        yield board


def add_picture(board: "SummaryWriter", tag: str, path: Path) -> None:
    """Show an image file that a stage has drawn."""
    with Image.open(path) as image:
        board.add_image(tag, np.asarray(image.convert("RGB")), dataformats="HWC")
