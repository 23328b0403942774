"""Half precision: weights and activations of 16 bits between inputs and outputs of 32."""

from collections.abc import Iterable

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from pipeline.caffe.onnx.preprocessing import PREFIX
from pipeline.caffe.onnx.simplify import simplified

MOST = float(np.finfo(np.float16).max)  # 65504
LEAST = float(np.finfo(np.float16).smallest_normal)  # 6.1e-5; below, ever fewer bits are left

# What sums or multiplies many values, or makes large ones of small ones: beyond MOST, or too coarse, in 16 bits.
FLOAT32_OPERATORS = frozenset(
    {
        "BatchNormalization",
        "Exp",
        "GlobalAveragePool",
        "LRN",
        "Log",
        "Pow",
        "ReduceL1",
        "ReduceMean",
        "ReduceSum",
        "ReduceSumSquare",
        "Scan",
        "Softmax",
        "Softplus",
        "Sqrt",
        "TopK",
    }
)
MOVING_OPERATORS = frozenset(
    {
        "Concat",
        "Expand",
        "Gather",
        "Identity",
        "Reshape",
        "Slice",
        "Split",
        "Squeeze",
        "Tile",
        "Transpose",
        "Unsqueeze",
    }
)


def to_float16(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with float16 weights and activations; inputs and outputs, and what FLOAT32_OPERATORS do, stay float32.

    So do whole numbers, places and indices, which float16 counts to 2048 only, and operators with constants the
    largest of which is beyond float16 or all but 0 in it.
    """
    simple = simplified(model)
    graph = simple.graph
    halves = _Halves(simple)
    for node in list(graph.node):
        halves.add(node)
    del graph.node[:]
    graph.node.extend(halves.nodes)
    used = {name for node in graph.node for name in _taken(node)}
    kept = [tensor for tensor in [*graph.initializer, *halves.constants] if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    del graph.value_info[:]  # their types were those before
    onnx.checker.check_model(simple, full_check=True)
    return simple


class _Halves:
    """The nodes of a graph again, each in its precision, with casts where a value is needed in the other one."""

    def __init__(self, model: onnx.ModelProto) -> None:
        graph = model.graph
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.given = {tensor.name: tensor for tensor in graph.initializer}
        inferred = onnx.shape_inference.infer_shapes(model).graph
        self.types = {
            value.name: value.type.tensor_type.elem_type
            for value in (*inferred.input, *inferred.value_info, *inferred.output)
        }
        self.types |= {tensor.name: tensor.data_type for tensor in graph.initializer}
        self.outputs = {value.name for value in graph.output}
        self.half: dict[str, str] = {}  # of a float32 value, its half
        self.only_half: set[str] = set()
        self.whole = self._whole_numbers(graph.node)

    def _whole_numbers(self, nodes: Iterable[onnx.NodeProto]) -> set[str]:
        """Values made from integers, and those that are only moved before they become integers."""
        whole: set[str] = set()
        for node in nodes:
            counted = node.op_type == "Cast" and self.types.get(node.input[0]) == TensorProto.INT64
            if counted or whole.intersection(node.input):
                whole.update(node.output)
        for node in reversed(list(nodes)):
            to_integer = node.op_type == "Cast" and self.types.get(node.output[0]) == TensorProto.INT64
            if to_integer or (node.op_type in MOVING_OPERATORS and whole.intersection(node.output)):
                whole.update(node.input[:1])
        return whole

    def add(self, node: onnx.NodeProto) -> None:
        """Add a node, half where it may be."""
        if self._stays(node):
            for name in _taken(node):
                self._in_full(name)
            self._append(node, list(node.input), list(node.output))
            return
        inputs = [self._in_half(name) for name in node.input]
        outputs = [f"{name}:half" if self.types.get(name) == TensorProto.FLOAT else name for name in node.output]
        self._append(node, inputs, outputs)
        for name, half in zip(node.output, outputs, strict=True):
            if half != name:
                self.half[name] = half
                self.only_half.add(name)
                if name in self.outputs:
                    self._in_full(name)

    def _stays(self, node: onnx.NodeProto) -> bool:
        """Whether a node's numbers are not to be half."""
        floats = [name for name in (*node.input, *node.output) if self.types.get(name) == TensorProto.FLOAT]
        return (
            not floats
            or node.op_type in FLOAT32_OPERATORS
            or node.name.startswith(PREFIX)
            or (node.op_type == "Cast" and node.output[0] not in floats)
            or bool(self.whole.intersection(node.output))
            or any(not _holds(self.given[name]) for name in floats if name in self.given)
        )

    def _append(self, node: onnx.NodeProto, inputs: list[str], outputs: list[str]) -> None:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.input[:], copy.output[:] = inputs, outputs
        if copy.op_type == "Cast" and outputs[0].endswith(":half"):
            copy.attribute[0].i = TensorProto.FLOAT16
        self.nodes.append(copy)

    def _in_full(self, name: str) -> None:
        """Make the float32 value of one that is only half so far."""
        if name in self.only_half:
            self.nodes.append(_cast(self.half[name], name, TensorProto.FLOAT))
            self.only_half.remove(name)

    def _in_half(self, name: str) -> str:
        """The half of a float value; others as they are."""
        if self.types.get(name) != TensorProto.FLOAT:
            return name
        if name not in self.half:
            self.half[name] = f"{name}:half"
            if name in self.given:
                self.constants.append(_halved(self.given[name], self.half[name]))
            else:
                self.nodes.append(_cast(name, self.half[name], TensorProto.FLOAT16))
        return self.half[name]


def _taken(node: onnx.NodeProto) -> list[str]:
    """The values that a node takes, those that its body sees around it among them."""
    bodies = [inner for attribute in node.attribute for inner in attribute.g.node]
    return [*node.input, *(name for inner in bodies for name in _taken(inner))]


def _cast(value: str, result: str, kind: int) -> onnx.NodeProto:
    return helper.make_node("Cast", [value], [result], f"{result}:cast", to=kind)


def _holds(tensor: onnx.TensorProto) -> bool:
    """Whether float16 can tell a tensor's largest value."""
    largest = float(np.abs(numpy_helper.to_array(tensor)).max(initial=0))
    return largest == 0 or LEAST <= largest <= MOST


def _halved(tensor: onnx.TensorProto, name: str) -> onnx.TensorProto:
    return numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), name)
