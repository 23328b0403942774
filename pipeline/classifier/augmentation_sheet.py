"""A picture of what a net sees while it trains: images of the training database, each augmented several times."""

from pathlib import Path

import numpy as np

from pipeline.base.atomic import atomic_file
from pipeline.base.pictures import encode_png
from pipeline.caffe.data_transformer import Transformer
from pipeline.caffe.database import DatabaseReader
from pipeline.caffe.proto.caffe_pb2 import TRAIN, LayerParameter, TransformationParameter

IMAGES, TIMES = 10, 11
GAP = 4  # pixels between the images as they are and as they were changed
SCALE = 2  # pixels of the sheet a pixel of an image


def draw_augmented(path: Path, layer: LayerParameter, seed: int) -> None:
    """Write a PNG with a row for each of the first IMAGES images of a Data layer: as it is, then TIMES times augmented.

    The mean is not subtracted and values are not scaled, so that the sheet shows grey values.
    """
    param = TransformationParameter()
    param.CopyFrom(layer.transform_param)
    for name in ("mean_file", "mean_value", "scale"):
        param.ClearField(name)
    with DatabaseReader(Path(layer.data_param.source)) as reader:
        records = reader.cycle().take(min(IMAGES, len(reader)))
        images, _ = reader.unpack(records)
    transformer = Transformer(param, TRAIN, seed)
    changed = [transformer(np.asarray(images)) for _ in range(TIMES)]
    side = changed[0].shape[-1]
    top = (images[0].shape[-1] - side) // 2
    plain = np.asarray(images, np.float32)[..., top : top + side, top : top + side]
    columns = [plain[:, 0], np.full((len(images), side, GAP), 255.0), *(batch[:, 0] for batch in changed)]
    sheet = np.concatenate([np.concatenate(row, axis=1) for row in zip(*columns, strict=True)])
    pixels = sheet.round().clip(0, 255).astype(np.uint8).repeat(SCALE, axis=0).repeat(SCALE, axis=1)
    with atomic_file(path) as file:
        file.write(encode_png(pixels))
