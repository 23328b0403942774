"""explanations: class maps are exact where a net gives them, Grad-CAM agrees with them, and both reach a reading."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.small_set import noise
from helpers.trained_net import SOFTMAX, TrainedNet, make_trained_net, write_weights

from pipeline.caffe.grad_cam import GradCamError, grad_cam
from pipeline.caffe.net import Net, build_net
from pipeline.caffe.onnx import to_onnx
from pipeline.caffe.onnx.class_maps import NAME, with_class_maps
from pipeline.caffe.proto.caffe_pb2 import TEST
from pipeline.classifier.model_folder import Classifier, ModelError, read
from pipeline.drawing.overlay import Overlay, Parts
from pipeline.faces.alignment import align_face, face_to_frame, similarity
from pipeline.media.frames import Frame
from pipeline.predictor import Predictor
from pipeline.readings import Explanation, FaceReading, Reading

GLOBAL = "pool: AVE global_pooling: true"
DEPLOY = """name: "Mapped"
layer {{ name: "data" type: "Input" top: "data" input_param {{ shape {{ dim: 1 dim: 1 dim: 42 dim: 42 }} }} }}
layer {{ name: "conv" type: "Convolution" bottom: "data" top: "conv"
         convolution_param {{ num_output: 12 kernel_size: 5 stride: 6 }} }}
layer {{ name: "relu" type: "ReLU" bottom: "conv" top: "conv" }}
layer {{ name: "pool" type: "Pooling" bottom: "conv" top: "pool" pooling_param {{ {pooling} }} }}
layer {{ name: "drop" type: "Dropout" bottom: "pool" top: "pool" dropout_param {{ dropout_ratio: 0.5 }} }}
layer {{ name: "scores" type: "InnerProduct" bottom: "pool" top: "scores" inner_product_param {{ num_output: 7 }} }}
{last}
"""


def write_net(folder: Path, pooling: str = GLOBAL, last: str = SOFTMAX) -> Net:
    (folder / "deploy.prototxt").write_text(DEPLOY.format(pooling=pooling, last=last))
    write_weights(folder / "deploy.prototxt", folder / "weights.caffemodel", factor=5)
    net = build_net(folder / "deploy.prototxt", TEST)
    net.copy_from(folder / "weights.caffemodel")
    with torch.no_grad():
        net.params["scores"][1].copy_(torch.linspace(-1, 1, 7))  # a bias is part of a map
    net.save(folder / "weights.caffemodel")
    return net


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(3, 1, 42, 42)).astype(np.float32)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> TrainedNet:
    return make_trained_net(noise(40), tmp_path_factory.mktemp("trained"))


@pytest.fixture
def mapped(trained: TrainedNet, tmp_path: Path) -> Path:
    """A model folder whose net gives class maps."""
    write_net(tmp_path)
    trained.export(tmp_path / "mapped", deploy=tmp_path / "deploy.prototxt", weights=tmp_path / "weights.caffemodel")
    return tmp_path / "mapped"


@pytest.mark.parametrize("pooling", [GLOBAL, "pool: AVE kernel_size: 7", "pool: AVE kernel_h: 7 kernel_w: 7"])
def test_the_mean_of_a_class_map_is_the_score(tmp_path: Path, images: np.ndarray, pooling: str) -> None:
    net = write_net(tmp_path, pooling)
    session = Classifier.session(with_class_maps(net, to_onnx(net)).SerializeToString())
    (maps,) = session.run([NAME], {"data": images})
    with torch.no_grad():
        net.forward(data=images)
    features = net.blobs["conv"].numpy()
    weight, bias = (blob.detach().numpy() for blob in net.params["scores"])
    np.testing.assert_allclose(maps, np.einsum("ck,nkyx->ncyx", weight, features) + bias[:, None, None], atol=1e-5)
    np.testing.assert_allclose(maps.mean(axis=(2, 3)), net.blobs["scores"].numpy(), atol=1e-5)
    assert maps.shape == (3, 7, 7, 7)


@pytest.mark.parametrize(
    ("pooling", "last"),
    [
        ("pool: MAX global_pooling: true", SOFTMAX),
        ("pool: AVE kernel_size: 3 stride: 2", SOFTMAX),
        (GLOBAL, ""),
        (GLOBAL, SOFTMAX.replace("Softmax", "Sigmoid")),
    ],
)
def test_a_net_of_another_ending_has_no_maps(tmp_path: Path, pooling: str, last: str) -> None:
    net = write_net(tmp_path, pooling, last)
    model = to_onnx(net)
    assert with_class_maps(net, model) is model


def test_grad_cam_of_such_a_net_is_its_class_map_without_the_bias(tmp_path: Path, images: np.ndarray) -> None:
    """The gradient of a mean of 49 places is weight / 49 everywhere."""
    net = write_net(tmp_path)
    (maps,) = Classifier.session(with_class_maps(net, to_onnx(net)).SerializeToString()).run([NAME], {"data": images})
    bias = net.params["scores"][1].detach().numpy()
    np.testing.assert_allclose(grad_cam(net, images), (maps - bias[:, None, None]) / 49, atol=1e-5)
    with pytest.raises(GradCamError, match="that ends in Softmax"):
        grad_cam(write_net(tmp_path, last=""), images)


def test_a_classifier_explains_by_maps_or_by_the_engine(trained: TrainedNet, mapped: Path, tmp_path: Path) -> None:
    faces = noise(2)[:, None]
    maps = Classifier(read(mapped)).explain(faces)
    assert maps.shape == (2, 7, 7, 7)
    np.testing.assert_allclose(maps.sum(axis=1), 0, atol=1e-4)
    write_net(tmp_path, "pool: MAX kernel_size: 3 stride: 2")
    given = {"deploy": tmp_path / "deploy.prototxt", "weights": tmp_path / "weights.caffemodel"}
    trained.export(tmp_path / "other", **given)
    other = Classifier(read(tmp_path / "other"))
    assert other.explain(faces).shape == (2, 7, 7, 7)
    assert (Classifier(read(mapped)).has_class_maps, other.has_class_maps) == (True, False)
    trained.export(tmp_path / "small", precision="int8")
    with pytest.raises(ModelError, match=r"small: its net has no class maps, and without weights\.caffemodel"):
        Predictor(tmp_path / "small", explain=True)
    with pytest.raises(ModelError, match="its net has no class maps"):
        Predictor(tmp_path / "small").explaining()


def test_a_place_of_an_aligned_face_is_found_in_the_frame() -> None:
    """A bright spot of the frame is where the aligned face shows it."""
    landmarks = np.array([[130.0, 95], [190, 80], [165, 130], [145, 165], [195, 152]])
    box = np.array([95.2, 40.7, 230.1, 190.9])
    for points in (landmarks, np.full((5, 2), np.nan)):
        image = np.zeros((220, 250, 3), np.uint8)
        image[110:123, 150:163] = 255  # around 156, 116
        face = align_face(image, box, points).astype(float)
        ys, xs = np.mgrid[:48, :48]
        spot = np.array([[(xs * face).sum(), (ys * face).sum()]]) / face.sum()
        np.testing.assert_allclose(face_to_frame(spot, image.shape, box, points), [[156, 116]], atol=0.5)
    back = face_to_frame(np.array([[10.0, 20.0]]), (220, 250), box, landmarks)
    matrix = similarity(landmarks)
    np.testing.assert_allclose(back @ matrix[:, :2].T + matrix[:, 2], [[10, 20]])


def test_a_reading_tells_where_its_label_comes_from(mapped: Path, portrait: np.ndarray) -> None:
    plain, explaining = Predictor(mapped), Predictor(mapped, explain=True)
    (face,) = explaining(portrait).faces
    assert plain.explaining()(portrait).faces == (face,)
    assert plain(portrait).faces[0].explanation is None
    assert "explanation" not in plain(portrait).to_json()["faces"][0]
    assert face.explanation is not None
    assert set(face.explanation.maps) == set(explaining.labels)
    # The label is what the maps speak for most, if nothing but the net is asked.
    raw = {label: np.mean(rows) for label, rows in face.explanation.maps.items()}
    probabilities = Predictor(mapped, class_prior="training")(portrait).faces[0].probabilities
    assert max(raw, key=raw.__getitem__) == max(probabilities, key=probabilities.__getitem__)
    # What the net sees is nearly as large as the face's box, and around it.
    corners = np.array(face.explanation.corners)
    middle = np.array([(face.box[0] + face.box[2]) / 2, (face.box[1] + face.box[3]) / 2])
    assert np.abs(corners.mean(axis=0) - middle).max() < 40
    told = json.loads(json.dumps(explaining(portrait).to_json()))["faces"][0]["explanation"]
    assert np.array(told["heat"]).shape == (7, 7)
    assert np.max(told["heat"]) == 1
    assert np.min(told["heat"]) >= 0
    (smoothed,) = explaining.session().read(Frame("film", portrait)).faces
    assert smoothed.explanation is not None


def test_heat_is_what_speaks_for_the_label() -> None:
    maps: dict[str, tuple[tuple[float, ...], ...]] = {
        "sad": ((0.5, -1.0), (2.0, 1.0)),
        "happy": ((-1.0, -2.0), (-0.5, 0.0)),
    }
    square = ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0))

    def face(**probabilities: float) -> FaceReading:
        return FaceReading((0, 0, 1, 1), None, {}, probabilities, "given", explanation=Explanation(maps, square))

    assert face(sad=0.9, happy=0.1).heat == ((0.25, 0.0), (1.0, 0.5))
    assert face(sad=0.1, happy=0.9).heat == ((0.0, 0.0), (0.0, 0.0))
    assert FaceReading((0, 0, 1, 1), None, {}, {"sad": 1.0}, "given").heat is None


def test_heat_is_drawn_where_it_is() -> None:
    image = np.full((400, 500, 3), 90, np.uint8)
    maps: dict[str, tuple[tuple[float, ...], ...]] = {"sad": ((0.0, 0.0), (0.0, 1.0))}  # bottom right
    corners = ((100.0, 100.0), (300.0, 100.0), (300.0, 300.0), (100.0, 300.0))
    face = FaceReading((100, 100, 300, 300), 1.0, {}, {"sad": 1.0}, "found", explanation=Explanation(maps, corners))
    nothing = Parts(boxes=False, landmarks=False, labels=False, bars=False, emoji=False, rate=False)
    drawn = Overlay(nothing).draw(image, Reading("it", 500, 400, (face,)))
    changed = (drawn != 90).any(axis=2)
    assert changed[295, 295]
    assert changed.sum() > 5_000
    assert not changed[:150].any()
    assert not changed[:, :150].any()
    assert not changed[302:].any()
    assert not changed[:, 302:].any()
