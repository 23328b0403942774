"""Every case of an inference layer through ONNX Runtime, against what real Caffe answered."""

import pytest
import torch
from harness import deviation, recorded
from onnx_runtime import case_net, inference_cases, net_at, run_model, run_onnx
from parity import Parity

from pipeline.caffe.layers import LayerError
from pipeline.caffe.onnx import to_onnx
from pipeline.caffe.onnx.float16 import to_float16

TOLERANCE = 1e-4
HALF_TOLERANCE = 2e-3  # float16 rounds to 2^-11, and inputs, weights and tops are rounded
LEAST = {"Pooling/mask_stride_over_kernel"}  # a window without a value is float32's least, in float16 -infinity
ALL = inference_cases()


@pytest.mark.parametrize("case", ALL)
def test_onnx_runtime_agrees_with_caffe(case: str, parity: Parity) -> None:
    caffe = recorded(case)
    deviations = {
        name: deviation(top, caffe[name]) for name, top in run_onnx(case).items() if name in caffe
    }  # not what a loss took, which has a Split's name here
    assert deviations
    assert max(deviations.values()) <= TOLERANCE, deviations
    parity("Layers", case.partition("/")[0], "ONNX Runtime", max(deviations.values()))


@pytest.mark.parametrize("case", ALL)
def test_sizes_that_may_change_answer_as_the_engine_at_each(case: str) -> None:
    net, values = case_net(case)
    model = to_onnx(net)
    symbolic = {
        value.name: [dimension.dim_param for dimension in value.type.tensor_type.shape.dim]
        for value in model.graph.input
    }
    sizes = [
        {
            name: tuple(
                size * factor + more if symbolic[name][axis] else size for axis, size in enumerate(net.shapes[name])
            )
            for name in net.inputs
        }
        for factor, more in ((2, 0), (4, 0), (1, 1), (1, 2), (3, -1))
    ]
    answered = 0
    for shapes in sizes if any(map(any, symbolic.values())) else []:
        try:
            other = net_at(net, shapes)
        except LayerError:
            continue  # not a size that this net takes
        inputs = {name: values.input(name, shape) for name, shape in shapes.items()}
        with torch.no_grad():
            want = {name: blob.numpy() for name, blob in other.forward(**inputs).items()}
        deviations = {name: deviation(top, want[name]) for name, top in run_model(model, inputs).items()}
        assert max(deviations.values()) <= TOLERANCE, (shapes, deviations)
        answered += 1
    assert answered >= 2 or not any(map(any, symbolic.values()))


@pytest.mark.parametrize("case", [case for case in ALL if case not in LEAST])
def test_half_precision_stays_near(case: str) -> None:
    net, values = case_net(case)
    model = to_onnx(net)
    inputs = {name: values.input(name, net.shapes[name]) for name in net.inputs}
    want, got = run_model(model, inputs), run_model(to_float16(model), inputs)
    deviations = {name: deviation(top, want[name]) for name, top in got.items()}
    assert max(deviations.values()) <= HALF_TOLERANCE, deviations
