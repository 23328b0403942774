"""The feature vector of a face is what the net's last layer is given, whatever the model's form."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from pipeline.caffe.net import build_net
from pipeline.caffe.onnx import to_onnx
from pipeline.caffe.proto.caffe_pb2 import TEST
from pipeline.classifier.features import find_features, with_output
from pipeline.classifier.model_folder import DEPLOY, MODELS, WEIGHTS, Classifier, ModelError, read
from pipeline.predictor import Predictor

FACES = np.random.RandomState(2).randint(0, 256, (3, 1, 48, 48), np.uint8)


def graph(*nodes: onnx.NodeProto) -> bytes:
    """A model of these nodes from `data` to `prob`."""
    made = helper.make_graph(list(nodes), "it", [helper.make_tensor_value_info("data", TensorProto.FLOAT, [1, 4])], [])
    return helper.make_model(made).SerializeToString()


def node(operator: str, inputs: str, output: str) -> onnx.NodeProto:
    return helper.make_node(operator, inputs.split(), [output])


@pytest.mark.parametrize("name", ["fast", "ferplus"])
def test_it_is_what_the_engines_last_layer_gets(name: str) -> None:
    folder = read(MODELS / name)
    net = build_net(folder.path / DEPLOY, TEST)
    net.copy_from(folder.path / WEIGHTS)
    given = folder.transformer()(FACES)
    with torch.no_grad():
        net.forward(data=given)
    expected = net.blobs["pool"].numpy().reshape(3, -1)
    model = to_onnx(net).SerializeToString()
    features = find_features(model, "prob")
    assert features is not None
    (exact,) = Classifier.session(with_output(model, features)).run([features], {"data": given})
    np.testing.assert_allclose(exact.reshape(3, -1), expected, atol=1e-4)
    served = Classifier(folder).features(FACES)  # in int8
    assert np.corrcoef(served.ravel(), expected.ravel())[0, 1] > 0.99


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ([("Gemm", "data w", "scores"), ("Softmax", "scores", "prob")], "data"),
        ([("Relu", "data", "fc"), ("MatMul", "fc w", "it"), ("Add", "it b", "s"), ("Softmax", "s", "prob")], "fc"),
        ([("DequantizeLinear", "w s", "wide"), ("Gemm", "data wide", "s"), ("Softmax", "s", "prob")], "data"),
        ([("Gemm", "data a", "x"), ("Gemm", "data b", "y"), ("Add", "x y", "prob")], None),
        ([("Conv", "data w", "s"), ("Softmax", "s", "prob")], None),
        ([], None),
    ],
)
def test_the_last_fully_connected_layer_is_found(nodes: list[tuple[str, str, str]], expected: str | None) -> None:
    assert find_features(graph(*(node(*each) for each in nodes)), "prob") == expected


def test_an_output_of_any_name_is_added() -> None:
    model = graph(node("Relu", "data", "prob"))
    for name in ("x", "y" * 120, "z" * 300):
        assert [value.name for value in onnx.load_from_string(with_output(model, name)).graph.output] == [name]


def test_a_model_without_one_is_refused_before_a_face_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.classifier.model_folder.find_features", lambda *_: None)
    with pytest.raises(ModelError, match=r"accurate.model\.onnx: does not end in one fully connected layer"):
        Predictor(features=True)


def test_each_face_has_its_own_where_they_are_asked_for(portrait: np.ndarray) -> None:
    twice = np.concatenate([portrait, portrait[:, ::-1]], axis=1)
    faces = Predictor(features=True)(twice).faces
    assert len(faces) == 2
    vectors = [np.array(face.features) for face in faces]
    assert all(vector.shape == (256,) for vector in vectors)
    assert not np.allclose(vectors[0], vectors[1])
    (face,) = Predictor(features=True)(portrait).faces
    assert np.linalg.norm(vectors[0] - face.features) != np.linalg.norm(vectors[1] - face.features)
    assert all(face.features is None for face in Predictor()(twice).faces)
    assert replace(face, features=None).to_json() == face.to_json()
