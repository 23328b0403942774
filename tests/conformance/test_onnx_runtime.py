"""Every case of an inference layer through ONNX Runtime, against what real Caffe answered."""

import pytest
from harness import deviation, recorded
from onnx_runtime import inference_cases, run_onnx

from pipeline.caffe.layers import LayerError

TOLERANCE = 1e-4
REFUSED = {
    "BatchNorm/test_batch": "by the batch",
    "Convolution/axis_zero": "axis 0 has no ONNX form",
    "Pooling/mask_stride_over_kernel": "leaves a window outside",
}


@pytest.mark.parametrize("case", [case for case in inference_cases() if case not in REFUSED])
def test_onnx_runtime_agrees_with_caffe(case: str) -> None:
    caffe = recorded(case)
    deviations = {name: deviation(top, caffe[name]) for name, top in run_onnx(case).items()
                  if name in caffe}  # not what a loss took, which has a Split's name here
    assert deviations
    assert max(deviations.values()) <= TOLERANCE, deviations


@pytest.mark.parametrize("case", REFUSED)
def test_what_onnx_cannot_say_is_named(case: str) -> None:
    with pytest.raises(LayerError, match=REFUSED[case]):
        run_onnx(case)
