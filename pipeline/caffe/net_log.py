"""What Caffe logs as it builds a net (caffe/net.cpp, Init): its message, each layer, what runs backward, its outputs.

At level DEBUG, which `python -m pipeline.caffe` shows and the pipeline's stages do not.
"""

import logging
from collections.abc import Collection, Sequence
from math import prod
from typing import TYPE_CHECKING

from google.protobuf import text_format

from pipeline.caffe.caffe_pb2 import LayerParameter, NetParameter
from pipeline.console import log

if TYPE_CHECKING:
    from pipeline.caffe.layers import Layer, Shape

BYTES_PER_VALUE = 4


class NetLog:
    """Logs a net as it is built; does nothing where nobody reads it."""

    def __init__(self, message: NetParameter) -> None:
        self.wanted = log.isEnabledFor(logging.DEBUG)
        self.bytes = 0
        self.made: set[str] = set()
        if self.wanted:
            log.debug("Initializing net from parameters: \n%s", text_format.MessageToString(message).rstrip())

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
        for layer, runs in zip(reversed(layers), reversed(runs_backward(layers)), strict=True):
            log.debug("%s %s backward computation.", layer.param.name, "needs" if runs else "does not need")
        for name in outputs:
            log.debug("This network produces output %s", name)
        log.debug("Network initialization done.")


def runs_backward(layers: Sequence["Layer"]) -> list[bool]:
    """Whether each layer computes gradients: it learns, or one before it does, and a loss comes after it."""
    needing: set[str] = set()  # blobs that depend on something learned
    found = []
    down: list[list[bool]] = []  # of each layer, whether each bottom takes a gradient
    for layer in layers:
        param = layer.param
        down.append(list(param.propagate_down) or [bottom in needing for bottom in param.bottom])
        learns = layer.blobs_are_learned and any(
            index >= len(param.param) or param.param[index].lr_mult for index in range(len(layer.blobs)))
        found.append(learns or any(bottom in needing for bottom in param.bottom))
        if found[-1]:
            needing.update(param.top)
    leading: set[str] = set()  # blobs that a loss depends on
    ended: set[str] = set()  # blobs that no gradient comes to
    for place in reversed(range(len(layers))):
        param = layers[place].param
        leads = any(param.loss_weight) or any(top in leading for top in param.top)
        if not leads or all(top in ended for top in param.top):
            found[place] = False
        for bottom, taken in zip(param.bottom, down[place], strict=True):
            if leads:
                leading.add(bottom)
            if not (taken and found[place]):
                ended.add(bottom)
    return found
