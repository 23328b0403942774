"""A net's layers as an ONNX graph."""

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from pipeline import __version__
from pipeline.caffe.layers import LAYERS, Layer, LayerError, Shape
from pipeline.caffe.layers.data import Input
from pipeline.caffe.layers.layer import Step
from pipeline.caffe.net import Net
from pipeline.caffe.onnx.dynamic_axes import MAX_AXES, insist_on_any_size, run_time_shapes

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from pipeline.caffe.proto.caffe_pb2 import LayerParameter

OPSET = 17  # of the operators used here; older runtimes read it too
IR_VERSION = 8  # the file format that came with that opset


class OnnxGraph:
    """An ONNX graph as the layers add to it. Values go by name; `shapes` has those of the net's blobs.

    A dimension of -1 is only known when the net runs: the batch, and where the net allows it height and width.
    """

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.shapes: dict[str, Shape] = {}
        self.layer = ""

    def constant(self, value: torch.Tensor | np.ndarray | list[int]) -> str:
        """Add an initializer, a list being int64 as shapes are, and return its name."""
        if isinstance(value, torch.Tensor):
            value = value.detach().cpu().numpy()
        array = np.asarray(value, dtype=np.int64 if isinstance(value, list) else np.float32, order="C")
        name = f"{self.layer}:constant{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def node(self, operator: str, inputs: list[str], **attributes: Any) -> str:
        """Add a node with one output and return the output's name."""
        return self.node_outputs(operator, inputs, 1, **attributes)[0]

    def node_outputs(self, operator: str, inputs: list[str], outputs: int, **attributes: Any) -> list[str]:
        """Add a node with several outputs and return their names."""
        name = f"{self.layer}:{operator}{len(self.nodes)}"
        names = [f"{name}:{index}" if index else name for index in range(outputs)]
        self.nodes.append(helper.make_node(operator, inputs, names, name, **attributes))
        return names

    def cast(self, value: str, dtype: type[np.generic]) -> str:
        """Add a node that turns a value's numbers into another type and return the output's name."""
        return self.node("Cast", [value], to=helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))

    def scan(self, states: list[str], sequences: list[str], step: Step) -> list[str]:
        """Add a loop over the sequences' axis 0; return the names of the last states and of the stacked tops."""
        name = f"{self.layer}:Scan{len(self.nodes)}"
        body = OnnxGraph()
        body.layer, body.constants = name, self.constants  # a body sees the values around it
        before = [f"{name}:state{index}" for index in range(len(states))]
        items = [f"{name}:item{index}" for index in range(len(sequences))]
        after, top = step(body, before, items)
        made = [body.node("Identity", [value]) for value in (*after, top)]  # a top may be a state too
        inputs, outputs = (
            [helper.make_tensor_value_info(value, TensorProto.FLOAT, None) for value in values]
            for values in ((*before, *items), made)
        )
        loop = helper.make_graph(body.nodes, name, inputs, outputs)
        names = [f"{name}:{index}" for index in range(len(made))]
        node = helper.make_node("Scan", [*states, *sequences], names, name, body=loop, num_scan_inputs=len(sequences))
        self.nodes.append(node)
        return names


def refuse_without_form(layers: "Iterable[LayerParameter]") -> None:
    """Raise LayerError naming the first layer whose type has no ONNX form.

    Before its net is built, too: a Python layer's code is not to be run for it, nor a database to be there.
    """
    for layer in layers:
        layer_class = LAYERS.get(layer.type)
        if layer_class not in (None, Input) and layer_class.onnx is Layer.onnx:
            raise LayerError(layer.name, f"{layer.type} has no ONNX form here")


def to_onnx(net: Net, *, flexible: bool | None = None) -> onnx.ModelProto:
    """The TEST-phase `net` with its weights as an ONNX model; inputs and outputs keep their blobs' names.

    Sizes of inputs that the net lets change (run_time_shapes) are symbolic: the batch, and height and width where no
    layer's blobs depend on them, as in fully convolutional nets. flexible: False keeps height and width as in the
    prototxt, True insists that they are symbolic. Raises LayerError naming the first layer that has no ONNX form, or
    with flexible=True the first that fixes the size.
    """
    refuse_without_form(layer.param for layer in net.layers)
    # Where a layer has no form for sizes that may change, it may have one for those of the prototxt.
    any_size: list[Collection[int] | None] = [None, (0, *range(2, MAX_AXES))]
    own_size: list[Collection[int] | None] = [(0, 1), (0,), ()]
    attempts = [*any_size, *own_size] if flexible is None else any_size if flexible else own_size
    if flexible:
        insist_on_any_size(net)
    for axes in attempts[:-1]:
        with suppress(LayerError):
            return _model(net, run_time_shapes(net, axes))
    return _model(net, run_time_shapes(net, attempts[-1]))


def _model(net: Net, shapes: dict[str, Shape]) -> onnx.ModelProto:
    """The model whose blobs have `shapes`."""
    graph = OnnxGraph()
    values: dict[str, str] = {}  # the value that stands for a blob after the layers so far
    inputs = []
    for layer in net.layers:
        graph.layer = layer.param.name
        if isinstance(layer, Input):
            tops = list(layer.param.top)
        else:
            tops = layer.onnx(graph, [values[name] for name in layer.param.bottom])
        for name, value in zip(layer.param.top, tops, strict=True):
            values[name] = value
            graph.shapes.setdefault(value, shapes[name])
            if isinstance(layer, Input):
                inputs.append(_value(name, graph.shapes[value]))
    made = [name for name in net.outputs if name not in net.inputs]  # an input that no layer takes is an output as well
    for name in made:
        graph.nodes.append(helper.make_node("Identity", [values[name]], [name], f"{name}:output"))
    outputs = [_value(name, shapes[name]) for name in made]
    model = helper.make_model(
        helper.make_graph(graph.nodes, net.name or "net", inputs, outputs, graph.constants),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="pipeline.caffe",
        producer_version=__version__,
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def _value(name: str, shape: Shape) -> onnx.ValueInfoProto:
    sizes = [f"{name}:axis{axis}" if size == -1 else size for axis, size in enumerate(shape)]
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, sizes)
