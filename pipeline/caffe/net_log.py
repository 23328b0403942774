"""What Caffe logs as it builds a net (caffe/net.cpp, Init): its message, each layer, what runs backward, its outputs.

At level DEBUG, which `python -m pipeline.caffe` shows and the pipeline's stages do not.
"""

import logging
from collections.abc import Collection, Sequence
from math import prod
from typing import TYPE_CHECKING

from pipeline.base.console import log
from pipeline.caffe.need_backward import find_needs
from pipeline.caffe.proto.caffe_pb2 import LayerParameter, NetParameter
from pipeline.caffe.proto.files import to_text

if TYPE_CHECKING:
    from pipeline.caffe.layers import Layer, Shape

BYTES_PER_VALUE = 4


class NetLog:
    """Logs a net as it is built; does nothing where nobody reads it."""

    def __init__(self, message: NetParameter) -> None:
        self.wanted = log.isEnabledFor(logging.DEBUG)
        self.bytes = 0
        if self.wanted:
            log.debug("Initializing net from parameters: \n%s", "".join(to_text(message)).rstrip())

    def creating(self, layer: LayerParameter) -> None:
        """A layer is about to be built."""
        if not self.wanted:
            return
        log.debug("Creating layer %s", layer.name)
        log.debug("Creating Layer %s", layer.name)
        for bottom in layer.bottom:
            log.debug("%s <- %s", layer.name, bottom)
        for index, top in enumerate(layer.top):
            in_place = index < len(layer.bottom) and layer.bottom[index] == top
            log.debug("%s -> %s%s", layer.name, top, " (in-place)" if in_place else "")

    def set_up(self, layer: LayerParameter, shapes: Sequence["Shape"]) -> None:
        """A layer is built; `shapes` are its tops'."""
        if not self.wanted:
            return
        log.debug("Setting up %s", layer.name)
        for index, shape in enumerate(shapes):
            log.debug("Top shape: %s(%d)", "".join(f"{size} " for size in shape), prod(shape))
            if index < len(layer.loss_weight) and layer.loss_weight[index]:
                log.debug("    with loss weight %g", layer.loss_weight[index])
            self.bytes += BYTES_PER_VALUE * prod(shape)
        log.debug("Memory required for data: %d", self.bytes)

    def shares(self, name: str, owner: str, index: int) -> None:
        """A blob is shared by a param's name: blob `index` of the layer `owner`."""
        log.debug("Sharing parameters '%s' owned by layer '%s', param index %d", name, owner, index)

    def built(self, layers: Sequence["Layer"], outputs: Collection[str]) -> None:
        """All layers are built; `outputs` are the blobs that none of them takes."""
        if not self.wanted:
            return
        for layer, needs in zip(reversed(layers), reversed(find_needs(layers)), strict=True):
            log.debug("%s %s backward computation.", layer.param.name, "needs" if needs.layer else "does not need")
        for name in outputs:
            log.debug("This network produces output %s", name)
        log.debug("Network initialization done.")
