"""Weights in and out of a net: files of another net, damaged ones, and those of 2013."""

from pathlib import Path

import pytest
import torch

from pipeline.caffe.net import Net
from pipeline.caffe.proto.caffe_pb2 import TEST, NetParameter
from pipeline.caffe.proto.files import BinaryError, parse_text, write_binary
from pipeline.caffe.weights import WeightsError


def make_net(layer: str = "fc", outputs: int = 2, *, seed: int = 1) -> Net:
    text = f'''
        layer {{ name: "in" type: "Input" top: "in" input_param {{ shape {{ dim: 2 dim: 3 }} }} }}
        layer {{
          name: "{layer}" type: "InnerProduct" bottom: "in" top: "out"
          inner_product_param {{ num_output: {outputs} weight_filler {{ type: "xavier" }} }}
        }}
    '''
    return Net(parse_text(text, NetParameter, "net"), TEST, seed=seed)


def test_weights_of_another_net_are_refused_with_both_shapes(tmp_path: Path) -> None:
    net = make_net()
    make_net(outputs=5).save(tmp_path / "other.caffemodel")
    before = net.params["fc"][0].clone()
    with pytest.raises(WeightsError, match=r"other\.caffemodel: layer 'fc' blob 0 has shape \(5, 3\).*\(2, 3\)"):
        net.copy_from(tmp_path / "other.caffemodel")
    with pytest.raises(WeightsError, match="the given weights: none of its layers"):
        net.copy_from(make_net("unknown").to_proto())
    assert torch.equal(net.params["fc"][0], before)


def test_a_truncated_caffemodel_is_refused(tmp_path: Path) -> None:
    net, path = make_net(), tmp_path / "x.caffemodel"
    net.save(path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(BinaryError, match=r"x\.caffemodel: no whole binary NetParameter"):
        net.copy_from(path)


def test_weights_of_four_axes_fit_a_net_of_today(tmp_path: Path) -> None:
    net, other = make_net(seed=1), make_net(seed=2)
    legacy = net.to_proto()
    for blob, shape in zip(legacy.layer[1].blobs, ((1, 1, 2, 3), (1, 1, 1, 2)), strict=True):
        blob.ClearField("shape")
        blob.num, blob.channels, blob.height, blob.width = shape
    write_binary(tmp_path / "old.caffemodel", legacy)
    other.copy_from(tmp_path / "old.caffemodel")
    assert torch.equal(other.params["fc"][0], net.params["fc"][0])
