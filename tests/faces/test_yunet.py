"""FaceDetectorYN behind the detectors' interface, with a net that takes white squares for faces."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pipeline.base.errors import InputError
from pipeline.base.hashing import sha256
from pipeline.faces.boxes import iou
from pipeline.faces.detector import SHIPPED_MODELS, Detector, build_detector

POINTS = np.array([[2, 3], [6, 3], [4, 4.5], [3, 6], [5, 6]])  # pixels from the cell's corner


def white_cells(path: Path, size: int = 4) -> Path:
    """A net of YuNet's outputs for which a face is a white cell of 8x8 pixels, and `size` times as large."""
    nodes, given, stored = (
        [],
        [],
        [
            numpy_helper.from_array(np.array([0, -1, 1]), "shape1"),
            numpy_helper.from_array(np.array([0, -1, 4]), "shape4"),
            numpy_helper.from_array(np.array([0, -1, 10]), "shape10"),
        ],
    )
    for stride in (8, 16, 32):
        weight = 1 / (3 * 255 * 64) if stride == 8 else 0
        heads = {
            "cls": (np.full((1, 3, stride, stride), weight), np.zeros(1)),
            "obj": (np.full((1, 3, stride, stride), weight), np.zeros(1)),
            "bbox": (np.zeros((4, 3, stride, stride)), np.array([0.5, 0.5, np.log(size), np.log(size)])),
            "kps": (np.zeros((10, 3, stride, stride)), (POINTS / 8).ravel()),
        }
        for name, (kernel, bias) in heads.items():
            width = len(bias)
            blob = f"{name}_{stride}"
            stored += [
                numpy_helper.from_array(kernel.astype(np.float32), f"{blob}_kernel"),
                numpy_helper.from_array(bias.astype(np.float32), f"{blob}_bias"),
            ]
            nodes += [
                helper.make_node(
                    "Conv",
                    ["input", f"{blob}_kernel", f"{blob}_bias"],
                    [f"{blob}_grid"],
                    kernel_shape=[stride] * 2,
                    strides=[stride] * 2,
                ),
                helper.make_node("Transpose", [f"{blob}_grid"], [f"{blob}_last"], perm=[0, 2, 3, 1]),
                helper.make_node("Reshape", [f"{blob}_last", f"shape{width}"], [blob]),
            ]
            given.append(helper.make_tensor_value_info(blob, TensorProto.FLOAT, [1, "n", width]))
    data = helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, "height", "width"])
    graph = helper.make_graph(nodes, "cells", [data], given, stored)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return white_cells(tmp_path_factory.mktemp("yunet") / "yunet.onnx")


@pytest.fixture(scope="module")
def detector(model: Path) -> Detector:
    return build_detector("yunet", model=model, min_face=10, threads=1)


def image(height: int, width: int, *cells: tuple[int, int], size: int = 8) -> np.ndarray:
    """White squares of this size whose corners are at x, y."""
    picture = np.zeros((height, width, 3), np.uint8)
    for x, y in cells:
        picture[y : y + size, x : x + size] = 255
    return picture


def test_faces_are_found_where_they_stand_in_images_of_any_size(detector: Detector) -> None:
    images = [image(101, 77, (40, 24)), image(64, 200), image(90, 300, (160, 40), (40, 16))]
    found = detector.detect(images)
    assert [len(each) for each in found] == [1, 0, 2]
    np.testing.assert_allclose(found[0].boxes, [[28, 12, 59, 43]], atol=0.01)
    np.testing.assert_allclose(found[0].scores, [1], atol=1e-3)
    np.testing.assert_allclose(found[0].landmarks, [POINTS + [40, 24]], atol=0.01)  # noqa: RUF005
    assert sorted(found[2].boxes[:, 0].round().tolist()) == [28, 148]


def test_boxes_are_clipped(detector: Detector) -> None:
    (found,) = detector.detect([image(64, 64, (0, 0), (56, 56))])
    boxes = found.boxes[np.argsort(found.boxes[:, 0])]
    np.testing.assert_allclose(boxes, [[0, 0, 19, 19], [44, 44, 63, 63]], atol=0.01)


def test_a_larger_least_face_and_a_large_image_make_what_the_net_sees_small(model: Path, detector: Detector) -> None:
    large = image(160, 240, (80, 32), size=16)
    (found,) = build_detector("yunet", model=model, min_face=28, threads=1).detect([large])
    np.testing.assert_allclose(found.boxes, [[56, 8, 119, 71]], atol=0.1)
    np.testing.assert_allclose(found.landmarks[0], (POINTS + [40, 16] + 0.5) * 2 - 0.5, atol=0.1)
    (found,) = detector.detect([image(960, 2560, (640, 320), size=32)])  # a quarter of it is seen
    np.testing.assert_allclose(found.boxes, [[592, 272, 719, 399]], atol=0.5)


def test_smaller_faces_than_asked_for_are_left_out(tmp_path: Path) -> None:
    small = white_cells(tmp_path / "small.onnx", size=1)
    picture = [image(64, 64, (24, 24))]
    assert len(build_detector("yunet", model=small, min_face=8).detect(picture)[0]) == 1
    assert len(build_detector("yunet", model=small, min_face=10).detect(picture)[0]) == 0


def test_many_threads_at_once_find_the_same(detector: Detector) -> None:
    images = [image(96 + 8 * number, 128, (8 * number, 40)) for number in range(12)]
    wanted = [detector.detect([each])[0].boxes.tolist() for each in images]
    with ThreadPoolExecutor(4) as pool:
        found = [each[0].boxes.tolist() for each in pool.map(lambda each: detector.detect([each]), images)]
    assert found == wanted


def test_the_model_that_ships_finds_a_face_and_its_landmarks_where_mtcnn_does(portrait: np.ndarray) -> None:
    (known,) = build_detector("mtcnn", min_face=40, threads=1).detect([portrait])
    (found,) = build_detector("yunet", min_face=40, threads=1).detect([portrait])
    assert len(found) == len(known) == 1
    assert iou(found.boxes, known.boxes)[0, 0] > 0.7
    eyes = np.linalg.norm(known.landmarks[0, 0] - known.landmarks[0, 1])
    assert np.linalg.norm(found.landmarks[0] - known.landmarks[0], axis=1).max() < 0.15 * eyes


def test_the_model_that_ships_is_the_file_that_its_readme_names() -> None:
    file = SHIPPED_MODELS["yunet"]
    assert (file.parent / "SHA256SUMS").read_text() == f"{sha256(file)}  {file.name}\n"


def test_files_that_are_no_such_model(model: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.onnx: no such file where yunet's model was expected"):
        build_detector("yunet", model=tmp_path / "none.onnx")
    half = tmp_path / "half.onnx"
    half.write_bytes(model.read_bytes()[:-300])
    empty = tmp_path / "empty.onnx"
    empty.write_bytes(b"")
    other = tmp_path / "other.onnx"
    graph = onnx.load(model)
    del graph.graph.node[-3:]
    del graph.graph.output[-1]
    onnx.save(graph, other)
    for path in (half, empty, other):
        with pytest.raises(InputError, match=rf"{path.name}: not a model that OpenCV's FaceDetectorYN runs") as caught:
            build_detector("yunet", model=path)
        assert "\n" not in str(caught.value)
