"""FaceEmotionNet against real Caffe: the same weights and batch give the same blobs and gradients."""

import numpy as np
import pytest
from caffe_root import CaffeRoot
from harness import HERE, TOLERANCE, Arrays, assert_agrees, deviation, run_face_emotion_net, write_face_emotion_net
from parity import Parity
from values import sample

RECORDED = HERE / "face_emotion_net.npz"


def compare(ours: Arrays, caffe: Arrays, what: str, parity: Parity) -> None:
    """Everything within 1e-5, and entered, but for biases under BatchNorm."""
    # They have no effect: their gradients are 0 but for rounding, which is measured against their weights'.
    dead = {f"parameter gradient/conv{i}/1": f"parameter gradient/conv{i}/0" for i in (1, 2, 3)}
    for bias, weight in dead.items():
        assert max(np.abs(ours[bias]).max(), np.abs(caffe[bias]).max()) < TOLERANCE * np.abs(caffe[weight]).max()
    lasting = {key: value for key, value in caffe.items() if key not in dead}
    assert_agrees(ours, lasting, TOLERANCE, what)
    for key, value in lasting.items():
        column = "forward" if key.startswith(("top/", "parameter/")) else "gradients"
        parity("Nets", "FaceEmotionNet", column, deviation(ours[key], value))


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Arrays:
    path = tmp_path_factory.mktemp("net") / "net.prototxt"
    write_face_emotion_net(path)
    return run_face_emotion_net(path)


def test_agrees_with_caffe(ours: Arrays, parity: Parity) -> None:
    with np.load(RECORDED, allow_pickle=False) as arrays:
        compare({key: sample(value) for key, value in ours.items()}, dict(arrays), "recorded", parity)


def test_agrees_with_live_caffe(ours: Arrays, caffe: CaffeRoot, parity: Parity) -> None:
    write_face_emotion_net(caffe.folder / "net.prototxt")
    compare(ours, caffe.net("net.prototxt", "FaceEmotionNet"), "live", parity)
