"""YOLO heads of all known shapes, made small with onnx.helper: letterboxing to the pixel, suppression, and refusals."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from pipeline.base.errors import InputError
from pipeline.faces.detector import Detections, build_detector
from pipeline.faces.yolo import ANCHORS, Letterbox

SIDE = 64
CELLS = 8 * 8 + 4 * 4 + 2 * 2
BOX = np.array([10, 12, 30, 42])  # left, top, right, bottom in the input, counted from its corner
POINTS = np.array([[14, 20], [26, 21], [20, 28], [15, 36], [25, 37]])
CENTRE = [20, 27, 20, 30]
VISIBLE = np.concatenate([POINTS, np.full((5, 1), 0.9)], axis=1)


def save(
    path: Path,
    outputs: list[np.ndarray],
    *,
    names: str | None = None,
    side: int | str = SIDE,
    kind: int = TensorProto.FLOAT,
    channels: int = 3,
) -> Path:
    """A model that gives these outputs whatever it sees."""
    data = helper.make_tensor_value_info("images", kind, [1, channels, side, side])
    nodes, stored, given = [], [], []
    element = helper.tensor_dtype_to_np_dtype(kind)
    nodes.append(helper.make_node("ReduceMin", ["images"], ["least"], keepdims=0))
    nodes.append(helper.make_node("Sub", ["least", "least"], ["nothing"]))
    for number, output in enumerate(outputs):
        stored.append(numpy_helper.from_array(output.astype(element), f"rows{number}"))
        nodes.append(helper.make_node("Add", [f"rows{number}", "nothing"], [f"output{number}"]))
        given.append(helper.make_tensor_value_info(f"output{number}", kind, output.shape))
    model = helper.make_model(
        helper.make_graph(nodes, "head", [data], given, stored),
        opset_imports=[helper.make_opsetid("", 13)],
        ir_version=8,
    )
    if names is not None:
        helper.set_model_props(model, {"names": names})
    onnx.save(model, path)
    return path


def table(count: int, *rows: list[float]) -> np.ndarray:
    """Rows among empty ones: (1, count, width)."""
    filled = np.zeros((1, count, len(rows[0])))
    filled[0, 3 : 3 + len(rows)] = rows
    return filled


def raw(value: float, limits: tuple[float, float] = (-20, 20)) -> float:
    """What sigmoid makes `value` of."""
    return float(np.clip(np.log(value / (1 - value)), *limits)) if 0 < value < 1 else limits[value > 0]


def not_decoded(*, flat: bool) -> list[np.ndarray]:
    """yolov5-face's outputs before decoding, with the face at stride 16, cell (1, 1), second anchor."""
    grids = [np.full((1, 3, SIDE // stride, SIDE // stride, 16), -20.0) for stride in (8, 16, 32)]
    anchor, cell, stride = np.array(ANCHORS[1][1]), np.array([1, 1]), 16
    centre = (np.array(CENTRE[:2]) / stride - cell + 0.5) / 2
    size = np.sqrt(np.array(CENTRE[2:]) / anchor) / 2
    points = (POINTS - cell * stride) / anchor
    grids[1][0, 1, 1, 1] = [*map(raw, [*centre, *size, 0.9]), *points.ravel(), raw(1)]
    return [grid.transpose(0, 1, 4, 2, 3).reshape(1, 48, *grid.shape[2:4]) for grid in grids] if flat else grids


HEADS = {
    "v5": ([table(3 * CELLS, [*CENTRE, 0.9, 1])], False),
    "v5 with its grids": ([table(3 * CELLS, [*CENTRE, 0.9, 1]), np.zeros((1, 3, 8, 8, 6))], False),
    "v5 for 8, 16, 32 and 64": ([table(3 * (CELLS + 1), [*CENTRE, 0.9, 1])], False),
    "v5, three classes": ([table(3 * CELLS, [*CENTRE, 0.9, 0.1, 1, 0])], False),
    "v5-face": ([table(3 * CELLS, [*CENTRE, 0.9, *POINTS.ravel(), 1])], True),
    "v5-face, not decoded": (not_decoded(flat=False), True),
    "v5-face, convolutions' own": (not_decoded(flat=True), True),
    "v7-face": ([table(3 * CELLS, [*CENTRE, 0.9, 1, *VISIBLE.ravel()])], True),
    "v8": ([table(CELLS, [*CENTRE, 0.9]).transpose(0, 2, 1)], False),
    "v8, rows": ([table(CELLS, [*CENTRE, 0.9])], False),
    "v8, two classes": ([table(CELLS, [*CENTRE, 0.2, 0.9]).transpose(0, 2, 1)], False),
    "v8-face": ([table(CELLS, [*CENTRE, 0.9, *VISIBLE.ravel()]).transpose(0, 2, 1)], True),
    "v8 pose without visibility": ([table(CELLS, [*CENTRE, 0.9, *POINTS.ravel()]).transpose(0, 2, 1)], True),
    "suppressed": ([table(30, [*BOX, 0.9, 0])], False),
    "suppressed pose": ([table(30, [*BOX, 0.9, 0, *VISIBLE.ravel()])], True),
    "suppressed pose without visibility": ([table(30, [*BOX, 0.9, 0, *POINTS.ravel()])], True),
}


def image(height: int, width: int) -> np.ndarray:
    return np.zeros((height, width, 3), np.uint8)


def detect(path: Path, shape: tuple[int, int] = (SIDE, SIDE), **options: int) -> Detections:
    (found,) = build_detector("yolo", model=path, **{"min_face": 1, "threads": 1} | options).detect([image(*shape)])
    return found


@pytest.mark.parametrize("name", HEADS)
def test_every_head_gives_the_same_face(name: str, tmp_path: Path) -> None:
    outputs, has_landmarks = HEADS[name]
    found = detect(save(tmp_path / "model.onnx", outputs))
    np.testing.assert_allclose(found.boxes, [BOX - [0, 0, 1, 1]], atol=1e-3)
    np.testing.assert_allclose(found.scores, [0.9], atol=1e-3)
    if has_landmarks:
        np.testing.assert_allclose(found.landmarks, [POINTS - 0.5], atol=1e-3)
    else:
        assert np.isnan(found.landmarks).all()


def test_faces_are_put_back_into_a_wide_and_a_high_image(tmp_path: Path) -> None:
    path = save(tmp_path / "model.onnx", HEADS["v5-face"][0])
    # 128x96 pixels are halved to 64x48, 8 rows of margin above; 32x64 stand as they are between 16 columns.
    wide, high = detect(path, (96, 128)), detect(path, (64, 32))
    np.testing.assert_allclose(wide.boxes, [[20, 8, 59, 67]], atol=1e-3)
    np.testing.assert_allclose(wide.landmarks, [(POINTS - [0, 8]) * 2 - 0.5], atol=1e-3)
    np.testing.assert_allclose(high.boxes, [[0, 12, 13, 41]], atol=1e-3)  # clipped on the left


@settings(deadline=None)
@given(st.integers(1, 3000), st.integers(1, 3000))
def test_letterboxing_and_back(height: int, width: int) -> None:
    if max(height, width) > 64 * min(height, width):
        return
    picture = np.broadcast_to(np.array([[[10, 200, 30]]], np.uint8), (height, width, 3))
    letterbox = Letterbox.of(picture, (SIDE, 2 * SIDE))
    assert letterbox.left >= 0 <= letterbox.top
    assert letterbox.left + letterbox.width <= 2 * SIDE
    assert letterbox.top + letterbox.height <= SIDE
    assert letterbox.width == 2 * SIDE or letterbox.height == SIDE
    corners = np.array(
        [[letterbox.left, letterbox.top], [letterbox.left + letterbox.width, letterbox.top + letterbox.height]]
    )
    np.testing.assert_allclose(letterbox.back(corners, picture), [[0, 0], [width, height]], atol=1e-6)


def test_the_net_sees_the_image_between_grey_margins() -> None:
    picture = image(32, 64)
    picture[:, 32:] = [255, 0, 51]
    data = Letterbox.of(picture, (SIDE, SIDE)).apply(picture, (SIDE, SIDE))
    assert data.shape == (1, 3, SIDE, SIDE)
    assert data.dtype == np.float32
    np.testing.assert_allclose(data[0, :, :16], 114 / 255, atol=1e-6)
    np.testing.assert_allclose(data[0, :, 48:], 114 / 255, atol=1e-6)
    np.testing.assert_allclose(data[0, :, 16:48, :32], 0)
    np.testing.assert_allclose(data[0, :, 30, 50], [1, 0, 0.2], atol=1e-6)


def bright_cells(path: Path, side: int | str = SIDE) -> Path:
    """A v8 net for which a face is a bright cell of 8x8 pixels, and as large."""
    size = SIDE if side == SIDE else 640
    nodes, rows = [], []
    for stride in (8, 16, 32):
        cells = np.stack(np.meshgrid(*[np.arange(size // stride)] * 2), axis=-1).reshape(-1, 2)
        rows.append(np.concatenate([(cells + 0.5) * stride, np.full_like(cells, stride)], axis=1))
        nodes += [
            helper.make_node(
                "AveragePool", ["images"], [f"pool{stride}"], kernel_shape=[stride] * 2, strides=[stride] * 2
            ),
            helper.make_node(
                "ReduceMin" if stride == 8 else "ReduceSumSquare",
                [f"pool{stride}"],
                [f"mean{stride}"],
                axes=[1],
                keepdims=1,
            ),
            helper.make_node("Reshape", [f"mean{stride}", "flat"], [f"class{stride}"]),
        ]
    nodes.append(helper.make_node("Mul", ["class16", "zero"], ["none16"]))
    nodes.append(helper.make_node("Mul", ["class32", "zero"], ["none32"]))
    nodes.append(helper.make_node("Mul", ["class8", "class8"], ["square8"]))  # the grey margins are no face
    nodes.append(helper.make_node("Concat", ["square8", "none16", "none32"], ["classes"], axis=2))
    nodes.append(helper.make_node("Concat", ["places", "classes"], ["output"], axis=1))
    stored = [
        numpy_helper.from_array(np.concatenate(rows).T[None].astype(np.float32), "places"),
        numpy_helper.from_array(np.array([1, 1, -1]), "flat"),
        numpy_helper.from_array(np.array(0, np.float32), "zero"),
    ]
    graph = helper.make_graph(
        nodes,
        "cells",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, side, side])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, 5, "n"])],
        stored,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


@pytest.mark.parametrize("side", [SIDE, "size"])
def test_what_the_net_sees_is_found_where_it_stands(side: int | str, tmp_path: Path) -> None:
    """With an input of fixed size, and of any size, which is then 640."""
    picture = image(320, 640)  # a tenth as large, and 16 rows lower, in an input of 64; 160 rows lower in one of 640
    cell = 80 if side == SIDE else 8
    left, top = 5 * cell, 2 * cell
    picture[top : top + cell, left : left + cell] = 255
    detector = build_detector("yolo", model=bright_cells(tmp_path / "model.onnx", side), min_face=8, threads=2)
    (found,) = detector.detect([picture])
    np.testing.assert_allclose(found.boxes, [[left, top, left + cell - 1, top + cell - 1]], atol=1e-3)
    np.testing.assert_allclose(found.scores, [1], atol=1e-3)
    assert len(detector.detect([picture[:, :left]])[0]) == 0


def test_of_boxes_on_one_face_the_surest_is_kept(tmp_path: Path) -> None:
    rows = [[*CENTRE, 0.6, 1], [21, 28, 20, 30, 0.9, 1], [50, 27, 20, 30, 0.7, 1], [40, 50, 9, 9, 0.3, 1]]
    found = detect(save(tmp_path / "model.onnx", [table(3 * CELLS, *rows)]))
    np.testing.assert_allclose(found.scores, [0.9, 0.7], atol=1e-3)
    np.testing.assert_allclose(found.boxes[:, 0], [11, 40], atol=1e-3)


def test_smaller_faces_than_asked_for_are_left_out(tmp_path: Path) -> None:
    path = save(tmp_path / "model.onnx", HEADS["v8"][0])
    assert len(detect(path, min_face=30)) == 1
    assert len(detect(path, min_face=31)) == 0


def test_only_faces_are_taken_where_the_model_names_its_classes(tmp_path: Path) -> None:
    rows = [[*CENTRE, 0.9, 0.1], [50, 27, 20, 30, 0.1, 0.8]]
    head = [table(CELLS, *rows).transpose(0, 2, 1)]
    named = save(tmp_path / "named.onnx", head, names="{0: 'person', 1: 'Face'}")
    np.testing.assert_allclose(detect(named).scores, [0.8], atol=1e-3)
    suppressed = [table(30, [*BOX, 0.9, 0], [40, 12, 60, 42, 0.8, 1])]
    named = save(tmp_path / "suppressed.onnx", suppressed, names="['person', 'face']")
    np.testing.assert_allclose(detect(named).scores, [0.8], atol=1e-3)
    objects = save(tmp_path / "objects.onnx", head, names="{0: 'cat', 1: 'dog'}")
    with pytest.raises(InputError, match=r"objects\.onnx: finds 2 kinds of things \(cat, dog.*none of them a face"):
        detect(objects)
    # Names that are none are no names.
    assert len(detect(save(tmp_path / "odd.onnx", head, names="{0: open('x')}"))) == 2


def test_half_precision(tmp_path: Path) -> None:
    found = detect(save(tmp_path / "half.onnx", HEADS["v8-face"][0], kind=TensorProto.FLOAT16))
    np.testing.assert_allclose(found.boxes, [BOX - [0, 0, 1, 1]], atol=0.05)
    assert found.boxes.dtype == np.float32


def test_values_that_are_no_numbers_are_no_faces(tmp_path: Path) -> None:
    rows = [[np.nan, 27, 20, 30, 0.9], [20, 27, np.inf, 30, 0.9], [*CENTRE, np.nan]]
    assert len(detect(save(tmp_path / "model.onnx", [table(CELLS, *rows).transpose(0, 2, 1)]))) == 0


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ([np.zeros((1, 7, 9))], r"a head of shape \(1, 7, 9\) for an input of 64x64 is not known .*\(1, 3n, 16\)"),
        ([np.zeros((1, 1000))], r"a head of shape \(1, 1000\)"),
        ([np.zeros((1, 84, CELLS))], "it tells 80 classes where 1 to 8"),
        ([np.zeros((1, 3 * CELLS, 85))], "it tells 80 classes"),
        ([np.zeros((1, 3, 8, 8, 16)), np.zeros((1, 3, 4, 4, 16))], "no output has three dimensions"),
        ([table(30, [*BOX, 0.9, 44])], "more than 8 classes"),
    ],
)
def test_unknown_heads_are_refused_at_once(outputs: list[np.ndarray], message: str, tmp_path: Path) -> None:
    path = save(tmp_path / "model.onnx", outputs)
    with pytest.raises(InputError, match=message):
        build_detector("yolo", model=path, min_face=20, threads=1)


def test_files_that_are_no_such_model(tmp_path: Path) -> None:
    whole = save(tmp_path / "whole.onnx", HEADS["v8"][0])
    (tmp_path / "half.onnx").write_bytes(whole.read_bytes()[:-500])
    (tmp_path / "empty.onnx").write_bytes(b"")
    for name in ("half.onnx", "empty.onnx"):
        with pytest.raises(InputError, match=f"{name}: not a model that ONNX Runtime reads"):
            detect(tmp_path / name)
    with pytest.raises(InputError, match=r"none\.onnx: no such file where yolo's model was expected"):
        detect(tmp_path / "none.onnx")
    with pytest.raises(InputError, match="yolo needs the file of a model: a YOLO face model"):
        build_detector("yolo")
    with pytest.raises(InputError, match=r"takes images tensor\(float\) \[1, 1, 64, 64\] where"):
        detect(save(tmp_path / "grey.onnx", HEADS["v8"][0], channels=1))
    with pytest.raises(InputError, match="takes images of 8x8 where 32 to 4096"):
        detect(save(tmp_path / "tiny.onnx", HEADS["v8"][0], side=8))
