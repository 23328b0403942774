"""Every case of an inference layer through ONNX Runtime, against what real Caffe answered."""

from pathlib import Path

import onnxruntime
import pytest
from harness import CASES, deviation, draw_parameters, recorded
from values import Values, all_cases

from pipeline.caffe.caffe_pb2 import TRAIN, NetParameter
from pipeline.caffe.layers import LAYERS, Layer, LayerError
from pipeline.caffe.net import Net
from pipeline.caffe.onnx import to_onnx
from pipeline.caffe.proto import read_net

TOLERANCE = 1e-4
REFUSED = {
    "BatchNorm/test_batch": "by the batch",
    "Convolution/axis_zero": "axis 0 has no ONNX form",
    "Pooling/mask_stride_over_kernel": "leaves a window outside",
}


def deploy_net(path: Path) -> NetParameter:
    """A case's net without losses, and without the inputs that only they take."""
    param = read_net(path)
    layers = [layer for layer in param.layer if not LAYERS[layer.type].default_loss_weight]
    taken = {bottom for layer in layers for bottom in layer.bottom}
    del param.layer[:]
    param.layer.extend(layer for layer in layers if layer.type != "Input" or taken.intersection(layer.top))
    return param


def inference_cases() -> list[str]:
    """The cases in TEST phase that make something and whose layers all have an ONNX form."""
    nets = {case: deploy_net(CASES / f"{case}.prototxt") for case in all_cases(CASES)}
    return [case for case, net in nets.items()
            if net.state.phase != TRAIN and case != "Silence/several"  # of which nothing is left
            and any(layer.type != "Input" for layer in net.layer)
            and all(layer.type == "Input" or LAYERS[layer.type].onnx is not Layer.onnx for layer in net.layer)]


@pytest.mark.parametrize("case", inference_cases())
def test_onnx_runtime_agrees_with_caffe(case: str) -> None:
    path = CASES / f"{case}.prototxt"
    values = Values(case, path.read_text())
    param = deploy_net(path)
    net = Net(param, param.state.phase)
    draw_parameters(net, values)
    if case in REFUSED:
        with pytest.raises(LayerError, match=REFUSED[case]):
            to_onnx(net)
        return
    runtime = onnxruntime.InferenceSession(to_onnx(net).SerializeToString(), providers=["CPUExecutionProvider"])
    answer = recorded(case)
    names = [top.name for top in runtime.get_outputs() if f"top/{top.name}" in answer]  # not what a loss took
    assert names
    tops = runtime.run(names, {name: values.input(name, net.shapes[name]) for name in net.inputs})
    deviations = {name: deviation(top, answer[f"top/{name}"]) for name, top in zip(names, tops, strict=True)}
    assert max(deviations.values()) <= TOLERANCE, deviations
