"""What pycaffe's Transformer does to an image, as part of the graph: channel_swap, raw_scale, mean, input_scale."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from pipeline.base.errors import InputError

PREFIX = "preprocess:"  # of the names of nodes that are no layer's


class PixelsError(InputError):
    """A mean, a channel order or a scale that does not suit the net's input."""


@dataclass(frozen=True)
class Pixels:
    """From raw pixels x (N, C, H, W) to the net's input: (x[:, channel_swap] * raw_scale - mean) * scale.

    mean: (C, 1, 1) or an image (C, H, W), in the net's order of channels, or None. dtype: of the raw pixels.
    """

    channel_swap: tuple[int, ...] = ()
    raw_scale: float = 1.0
    mean: np.ndarray | None = None
    scale: float = 1.0
    dtype: type[np.generic] = np.float32

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """What the graph does, in numpy."""
        x = images.astype(np.float32)
        if self.channel_swap:
            x = x[:, self.channel_swap]
        x = x * np.float32(self.raw_scale)
        if self.mean is not None:
            x = x - self.mean
        return x * np.float32(self.scale)

    def raw(self, images: np.ndarray) -> np.ndarray:
        """The raw pixels of images whose channels are in the net's order, 0 to 255, as databases hold them."""
        if self.channel_swap:
            images = images[:, np.argsort(self.channel_swap)]
        return images if self.raw_scale == 1 else images.astype(np.float32) / np.float32(self.raw_scale)

    def check(self, name: str, shape: tuple[int, ...]) -> None:
        """Raise PixelsError where this does not suit the input `name` of that shape."""
        if len(shape) != 4:
            raise PixelsError(
                f"input '{name}' has shape {shape} where images (N, C, H, W) were expected for mean, "
                "scales and channel_swap; leave them out"
            )
        if self.channel_swap and sorted(self.channel_swap) != list(range(shape[1])):
            raise PixelsError(
                f"channel_swap {','.join(map(str, self.channel_swap))} where the {shape[1]} channels of "
                f"input '{name}', each once and counted from 0, were expected"
            )
        if self.mean is not None and self.mean.shape not in ((1, 1, 1), (shape[1], 1, 1), shape[1:]):
            raise PixelsError(
                f"a mean of shape {self.mean.shape} where input '{name}' takes images of {shape[1:]}; "
                "give the mean of this net's own training images, or a value for each channel"
            )
        if not all(np.isfinite(scale) and scale for scale in (self.raw_scale, self.scale)):
            raise PixelsError(
                f"raw_scale {self.raw_scale:g} and scale {self.scale:g}, of which nothing comes; give "
                "finite numbers other than 0"
            )


def with_pixels(model: onnx.ModelProto, pixels: Pixels, *, fuse: bool = True) -> onnx.ModelProto:
    """The model with `pixels` before its only input, which keeps its name and takes raw pixels.

    With `fuse` what a convolution can do is put into its weights where only convolutions without groups take the
    input: the channels' order and the scales, and constant means where nothing is padded. An image as the mean, and
    means where 0 is padded after they are subtracted, stay nodes of their own.
    """
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    graph = changed.graph
    value = graph.input[0]
    named = max(1, len(pixels.channel_swap), 0 if pixels.mean is None else len(pixels.mean))
    channels = value.type.tensor_type.shape.dim[1].dim_value or named  # a net without blobs takes any number
    swap = pixels.channel_swap or tuple(range(channels))
    own = np.argsort(swap)  # of a raw channel, its place in the net's order
    factor = np.float64(pixels.raw_scale) * pixels.scale
    mean = None  # of raw pixels
    if pixels.mean is not None and pixels.mean.any():
        mean = np.broadcast_to(pixels.mean, (channels, *pixels.mean.shape[1:])).astype(np.float64)
        mean = mean[own] / pixels.raw_scale
    users = [node for node in graph.node if value.name in node.input]
    weights = {tensor.name: tensor for tensor in graph.initializer}
    fuses = fuse and all(_can_fuse(node, weights) for node in users)
    if fuses:
        in_weights = mean is not None and mean.size == channels and not any(any(_pads(node)) for node in users)
        for node in users:
            _fuse(graph, node, own, factor, mean if in_weights else None)
        mean, factor, swap = None if in_weights else mean, np.float64(1), tuple(range(channels))
    nodes: list[onnx.NodeProto] = []
    last = value.name

    def add(operator: str, constant: np.ndarray | None = None, **attributes: Any) -> None:
        nonlocal last
        inputs, name = [last], f"{PREFIX}{operator}"
        if constant is not None:
            graph.initializer.append(numpy_helper.from_array(constant, f"{name}:constant"))
            inputs.append(f"{name}:constant")
        nodes.append(helper.make_node(operator, inputs, [name], name, **attributes))
        last = name

    if pixels.dtype != np.float32:
        value.type.tensor_type.elem_type = helper.np_dtype_to_tensor_dtype(np.dtype(pixels.dtype))
        add("Cast", to=TensorProto.FLOAT)
    if mean is not None:
        add("Sub", mean.astype(np.float32)[None])
    if factor != 1:
        add("Mul", np.array(factor, np.float32))
    if swap != tuple(range(channels)):
        add("Gather", np.array(swap, np.int64), axis=1)
    if nodes:
        for node in users:
            node.input[:] = [last if name == value.name else name for name in node.input]
        rest = list(graph.node)
        del graph.node[:]
        graph.node.extend([*nodes, *rest])
    onnx.checker.check_model(changed, full_check=True)
    return changed


def _attribute(node: onnx.NodeProto, name: str) -> onnx.AttributeProto | None:
    return next((attribute for attribute in node.attribute if attribute.name == name), None)


def _pads(node: onnx.NodeProto) -> list[int]:
    found = _attribute(node, "pads")
    return list(found.ints) if found else []


def _can_fuse(node: onnx.NodeProto, weights: dict[str, onnx.TensorProto]) -> bool:
    group = _attribute(node, "group")
    return node.op_type == "Conv" and node.input[1] in weights and (group is None or group.i == 1)


def _fuse(
    graph: onnx.GraphProto, node: onnx.NodeProto, own: np.ndarray, factor: np.float64, mean: np.ndarray | None
) -> None:
    """Let a convolution take (x - mean) * factor, its channels in raw order, for x. New constants: others may share."""
    weights = {tensor.name: tensor for tensor in graph.initializer}
    before = numpy_helper.to_array(weights[node.input[1]]).astype(np.float64)
    weight = before[:, own] * factor
    name = f"{PREFIX}{node.name}"
    graph.initializer.append(numpy_helper.from_array(weight.astype(np.float32), f"{name}:weight"))
    inputs = [node.input[0], f"{name}:weight", *node.input[2:]]
    if mean is not None:
        bias = -(weight * mean.reshape(1, -1, 1, 1)).sum((1, 2, 3))
        if len(node.input) == 3:
            bias = bias + numpy_helper.to_array(weights[node.input[2]])
        graph.initializer.append(numpy_helper.from_array(bias.astype(np.float32), f"{name}:bias"))
        inputs[2:] = [f"{name}:bias"]
    node.input[:] = inputs
    used = {value for each in graph.node for value in each.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
