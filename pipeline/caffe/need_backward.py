"""Which layers run backward, and for which of their bottoms and blobs (caffe/net.cpp, Init)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.caffe.proto.caffe_pb2 import ParamSpec

if TYPE_CHECKING:
    from pipeline.caffe.layers import Layer


@dataclass
class Needs:
    """Whether backward passes through a layer, and for which of its bottoms and blobs."""

    layer: bool
    bottoms: list[bool]
    blobs: list[bool]


def find_needs(layers: Sequence["Layer"], force: bool = False) -> list[Needs]:
    """What backward passes through: what lies between what is learned and a loss.

    A layer does when one of its blobs is learned (lr_mult is not 0) or a bottom comes from such a layer, and a loss
    depends on it; propagate_down overrides where bottoms come from. With `force`, a net's force_backward, all of it
    but labels.
    """
    if force:
        return [
            Needs(
                True,
                [index not in layer.labels for index in range(len(layer.param.bottom))],
                [layer.blobs_are_learned] * len(layer.blobs),
            )
            for layer in layers
        ]
    needs = []
    learned: set[str] = set()  # blobs that depend on what is learned
    for layer in layers:
        specs = [*layer.param.param, *[ParamSpec()] * len(layer.blobs)]
        blobs = [specs[index].lr_mult != 0 for index in range(len(layer.blobs))]
        bottoms = [*layer.param.propagate_down] or [name in learned for name in layer.param.bottom]
        needs.append(Needs(any(blobs) or any(bottoms), bottoms, blobs))
        if needs[-1].layer:
            learned.update(layer.param.top)
    leading: set[str] = set()  # blobs that a loss depends on
    ended: set[str] = set()  # blobs that no gradient comes to
    for layer, need in zip(reversed(layers), reversed(needs), strict=True):
        leads = any(layer.param.loss_weight) or not leading.isdisjoint(layer.param.top)
        if not leads or ended.issuperset(layer.param.top):
            need.layer = False
            need.bottoms = [False] * len(need.bottoms)
        if leads:
            leading.update(layer.param.bottom)
        ended.update(name for name, wanted in zip(layer.param.bottom, need.bottoms, strict=True) if not wanted)
    return needs
