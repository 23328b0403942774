"""Runs the cases of inference layers in ONNX Runtime."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from harness import CASES, draw_parameters
from values import Values, all_cases, forwards

from pipeline.caffe.layers import LAYERS, Layer
from pipeline.caffe.net import Net
from pipeline.caffe.onnx import to_onnx
from pipeline.caffe.proto.caffe_pb2 import TRAIN, NetParameter
from pipeline.caffe.proto.files import read_net


def has_onnx_form(layer_type: str) -> bool:
    """Whether a net with such a layer can be an ONNX file; an Input is its inputs."""
    return layer_type == "Input" or LAYERS[layer_type].onnx is not Layer.onnx


def deploy_net(path: Path) -> NetParameter:
    """A case's net without losses, and without the inputs that only they take."""
    param = read_net(path)
    layers = [layer for layer in param.layer if not LAYERS[layer.type].default_loss_weight]
    taken = {bottom for layer in layers for bottom in layer.bottom}
    del param.layer[:]
    param.layer.extend(layer for layer in layers if layer.type != "Input" or taken.intersection(layer.top))
    return param


def inference_cases() -> list[str]:
    """The cases of one forward pass in TEST that make something and whose layers all have an ONNX form."""
    paths = {case: CASES / f"{case}.prototxt" for case in all_cases(CASES)}
    nets = {case: deploy_net(path) for case, path in paths.items() if forwards(path.read_text()) == 1}
    return [
        case
        for case, net in nets.items()
        if net.state.phase != TRAIN
        and case != "Silence/several"  # of which nothing is left
        and any(layer.type != "Input" for layer in net.layer)
        and all(has_onnx_form(layer.type) for layer in net.layer)
    ]


def case_net(case: str) -> tuple[Net, Values]:
    """A case's net with its parameters, and what draws its inputs."""
    path = CASES / f"{case}.prototxt"
    values = Values(case, path.read_text())
    param = deploy_net(path)
    net = Net(param, param.state.phase)
    draw_parameters(net, values)
    return net, values


def net_at(net: Net, shapes: dict[str, tuple[int, ...]]) -> Net:
    """The same net built for inputs of other shapes. Raises LayerError where they do not suit a layer."""
    param = NetParameter(layer=[layer.param for layer in net.layers])
    for layer in param.layer:
        if layer.type == "Input":
            del layer.input_param.shape[:]
            for name in layer.top:
                layer.input_param.shape.add().dim.extend(shapes[name])
    other = Net(param, net.phase)
    other.share_with(net)
    return other


def run_onnx(case: str) -> dict[str, np.ndarray]:
    """A case's tops, by the keys of record.py. Raises LayerError where it has no ONNX form."""
    net, values = case_net(case)
    tops = run_model(to_onnx(net), {name: values.input(name, net.shapes[name]) for name in net.inputs})
    return {f"top/{name}": top for name, top in tops.items()}


def run_model(model: onnx.ModelProto, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A model's outputs, by name."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # not what it thinks of constants
    options.intra_op_num_threads = 1
    runtime = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [made.name for made in runtime.get_outputs()]
    return dict(zip(names, runtime.run(names, inputs), strict=True))
