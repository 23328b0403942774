"""Several views of each image at test time: a net reads them all, and its probabilities are averaged."""

from collections.abc import Callable

import numpy as np

from pipeline.base.errors import InputError
from pipeline.caffe.data_transformer import Transformer
from pipeline.caffe.proto.caffe_pb2 import TEST, TransformationParameter

COUNTS = (1, 2, 10)
INPUTS_AT_ONCE = 256  # views that a net is given together


class ViewsError(InputError):
    """A number of views that a net cannot have."""


def check(count: int, transformer: Transformer) -> None:
    """Raise ViewsError when there are no `count` views of an image."""
    if count not in COUNTS:
        raise ViewsError(f"views {count}: {', '.join(map(str, COUNTS))} were expected")
    if count == 10 and not transformer.param.crop_size:
        raise ViewsError(
            "views 10: the net takes whole images, of which no corners can be cut; give views 2, or train "
            "with a crop_size"
        )


def cut_views(images: np.ndarray, transformer: Transformer, count: int) -> np.ndarray:
    """The net's inputs, (N, count, C, h, w) float32, for images (N, C, H, W) uint8 or float32.

    1: the centre, as a Data layer cuts it in TEST. 2: the centre and its mirror image. 10: the four corners and the
    centre, then the mirror images of these (the crops of caffe/python/caffe/io.py, oversample). The mean image is
    subtracted at the place of each crop. Raises ViewsError.
    """
    check(count, transformer)
    param = TransformationParameter()
    param.CopyFrom(transformer.param)
    side = param.crop_size
    param.crop_size = 0
    whole = Transformer(param, TEST)(images)
    height, width = whole.shape[2:]
    down, across = (height - side, width - side) if side else (0, 0)
    places = [(down // 2, across // 2)]
    if count == 10:
        places = [(0, 0), (0, across), (down, 0), (down, across), *places]
    crops = [whole[..., top : top + height - down, left : left + width - across] for top, left in places]
    return np.stack(crops if count == 1 else [*crops, *(crop[..., ::-1] for crop in crops)], axis=1)


def read_views(
    run: Callable[[np.ndarray], np.ndarray], images: np.ndarray, transformer: Transformer, count: int
) -> np.ndarray:
    """Mean probabilities (N, classes) of the views of images (N, C, H, W).

    run: takes inputs (M, C, h, w) to probabilities (M, classes), M being at most INPUTS_AT_ONCE.
    """
    step = INPUTS_AT_ONCE // count
    found = []
    for start in range(0, len(images), step):
        batch = images[start : start + step]
        if count == 1:  # without a detour: a face takes a third of a millisecond
            found.append(run(transformer(batch)))
            continue
        views = cut_views(batch, transformer, count)
        probabilities = run(views.reshape(-1, *views.shape[2:]))
        found.append(probabilities.reshape(*views.shape[:2], -1).mean(axis=1))
    return np.concatenate(found)
