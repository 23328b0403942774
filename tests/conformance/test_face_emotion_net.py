"""FaceEmotionNet against real Caffe: the same weights and batch give the same blobs and gradients."""

import numpy as np
import pytest
from caffe_root import CaffeRoot
from harness import HERE, TOLERANCE, Arrays, assert_agrees, run_face_emotion_net, write_face_emotion_net
from values import sample

RECORDED = HERE / "face_emotion_net.npz"


def assert_agrees_but_for_dead_biases(ours: Arrays, caffe: Arrays, what: str) -> None:
    # A bias under BatchNorm has no effect: its gradient is 0 but for rounding, which is measured against its weight's.
    dead = {f"parameter gradient/conv{i}/1": f"parameter gradient/conv{i}/0" for i in (1, 2, 3)}
    assert_agrees(ours, {key: value for key, value in caffe.items() if key not in dead}, TOLERANCE, what)
    for bias, weight in dead.items():
        assert max(np.abs(ours[bias]).max(), np.abs(caffe[bias]).max()) < TOLERANCE * np.abs(caffe[weight]).max()


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Arrays:
    path = tmp_path_factory.mktemp("net") / "net.prototxt"
    write_face_emotion_net(path)
    return run_face_emotion_net(path)


def test_agrees_with_caffe(ours: Arrays) -> None:
    with np.load(RECORDED, allow_pickle=False) as arrays:
        assert_agrees_but_for_dead_biases({key: sample(value) for key, value in ours.items()}, dict(arrays), "recorded")


def test_agrees_with_live_caffe(ours: Arrays, caffe: CaffeRoot) -> None:
    write_face_emotion_net(caffe.folder / "net.prototxt")
    assert_agrees_but_for_dead_biases(ours, caffe.net("net.prototxt", "FaceEmotionNet"), "live")
