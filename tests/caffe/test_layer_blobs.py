"""Weights that are read back out of an exported net."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.base.errors import InputError
from pipeline.caffe.net import build_net
from pipeline.caffe.onnx.layer_blobs import layer_blobs
from pipeline.caffe.proto.caffe_pb2 import TEST
from pipeline.caffe.weights import copy_weights

ROOT = Path(__file__).parents[2]
FAST = ROOT / "pipeline/weights/fast"
ACCURATE = ROOT / "pipeline/weights/accurate"


def test_they_are_those_of_the_caffemodel() -> None:
    net = build_net(FAST / "deploy.prototxt", TEST)
    copy_weights(net, FAST / "weights.caffemodel")
    read = layer_blobs(FAST / "model.onnx")
    assert net.params.keys() <= read.keys()
    for layer, blobs in net.params.items():
        expected = [blob.detach().numpy() for blob in blobs]
        if layer.endswith("_bn"):  # sums and their factor
            expected = [expected[0] / expected[2], expected[1] / expected[2], np.ones(1)]
        assert len(read[layer]) == len(expected)
        for found, blob in zip(read[layer], expected, strict=True):
            np.testing.assert_allclose(found, blob, rtol=1e-5, atol=1e-7, err_msg=layer)


def test_int8_weights_fit_their_net() -> None:
    """The model accurate ships without a .caffemodel, and yet is a start for other trainings."""
    read = layer_blobs(ACCURATE / "model.onnx")
    for layer, blobs in build_net(ACCURATE / "deploy.prototxt", TEST).params.items():
        assert [blob.shape for blob in read[layer]] == [tuple(blob.shape) for blob in blobs], layer
    assert len(np.unique(read["res3b_conv2"][0][0])) <= 255


def test_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"\x0anot one")
    with pytest.raises(InputError, match="not an ONNX file"):
        layer_blobs(tmp_path / "model.onnx")
