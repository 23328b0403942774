"""Every layer keeps to the device of its bottoms: on torch's "meta", which has shapes and no values, none may mix."""

import pytest
import torch
from harness import CASES
from values import all_cases

from pipeline.caffe.layers import CAFFE_LAYERS
from pipeline.caffe.net import Net
from pipeline.caffe.proto.caffe_pb2 import TRAIN
from pipeline.caffe.proto.files import read_net

# They look at values: labels and indices within their range, places to count, blobs to hand to numpy.
LOOKING = {
    "Accuracy",
    "BatchReindex",
    "Embed",
    "Filter",
    "HDF5Output",
    "HingeLoss",
    "InfogainLoss",
    "MultinomialLogisticLoss",
    "Python",
    "SigmoidCrossEntropyLoss",
    "SoftmaxWithLoss",
}
COMPUTING = sorted(name for name, layer in CAFFE_LAYERS.items() if layer.bottoms != (0, 0) and name not in LOOKING)


@pytest.mark.parametrize("layer_type", COMPUTING)
def test_a_layer_makes_no_tensors_elsewhere(layer_type: str) -> None:
    ran = 0
    for case in all_cases(CASES):
        if not case.startswith(f"{layer_type}/"):
            continue
        param = read_net(CASES / f"{case}.prototxt")
        stored = any(layer.batch_norm_param.use_global_stats for layer in param.layer)
        if stored or any(layer.type not in {*COMPUTING, "Input"} for layer in param.layer):
            continue
        net = Net(param, TRAIN)  # in TEST BatchNorm looks whether its factor is 0
        blobs: dict[str, torch.Tensor] = {}
        for layer in net.layers:
            layer.blobs = [blob.to("meta") for blob in layer.blobs]
            if layer.type == "Input":
                tops = [torch.empty(net.shapes[name], device="meta") for name in layer.param.top]
            else:
                tops = layer.forward([blobs[name] for name in layer.param.bottom])
                assert {top.device.type for top in tops} <= {"meta"}
                ran += 1
            blobs.update(zip(layer.param.top, tops, strict=True))
    assert ran
