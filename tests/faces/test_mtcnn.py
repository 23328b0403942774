"""The cascade against recorded answers of the package that its weights come from, and its parts by themselves."""

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from helpers.pictures import read_picture
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.base.errors import InputError
from pipeline.caffe.net import build_net
from pipeline.caffe.proto import caffe_pb2
from pipeline.faces.detector import Detections
from pipeline.faces.mtcnn import (
    LEAST_PROPOSALS,
    MODELS,
    STRIDE,
    WINDOW,
    Mtcnn,
    crop_boxes,
    pyramid,
    run_on_crops,
    scale_rows,
)

ROOT = Path(__file__).parents[2]
RECORDED = ROOT / "tests" / "recorded"
SIDE = 48
TINT = np.array([1, 0.6, 0.3])  # as in tests/helpers/record_mtcnn.py


@pytest.fixture(scope="module")
def detector() -> Mtcnn:
    return Mtcnn(threads=1)


@pytest.fixture(scope="module")
def sheet() -> np.ndarray:
    return cv2.cvtColor(read_picture(RECORDED / "mtcnn.png", cv2.IMREAD_GRAYSCALE), cv2.COLOR_GRAY2RGB)


@pytest.fixture(scope="module")
def faces(sheet: np.ndarray) -> list[np.ndarray]:
    height, width = sheet.shape[:2]
    return [sheet[y : y + SIDE, x : x + SIDE] for y in range(0, height, SIDE) for x in range(0, width, SIDE)]


@pytest.mark.parametrize("name", ["faces", "sheet", "tinted"])
def test_finds_what_the_package_finds(name: str, detector: Mtcnn, sheet: np.ndarray, faces: list[np.ndarray]) -> None:
    images = {"faces": faces, "sheet": [sheet], "tinted": [(sheet * TINT).astype(np.uint8)]}[name]
    recorded = np.array(json.loads((RECORDED / "mtcnn.json").read_text())[name])
    assert len(recorded) > 20
    for index, found in enumerate(detector.detect(images)):
        wanted = recorded[recorded[:, 0] == index]
        assert len(found) == len(wanted), f"image {index}"
        # By place: equally sure faces may change ranks.
        found_order, wanted_order = np.lexsort(found.boxes.round(-1).T), np.lexsort(wanted[:, 1:5].round(-1).T)
        overlaps = overlap(found.boxes[found_order], wanted[wanted_order, 1:5])
        assert (overlaps >= 0.9).all(), f"image {index}: {overlaps}"
        assert np.abs(found.scores[found_order] - wanted[wanted_order, 5]).max(initial=0) < 0.02
        landmarks = wanted[wanted_order, 6:].reshape(-1, 2, 5).transpose(0, 2, 1)
        assert np.abs(found.landmarks[found_order] - landmarks).max(initial=0) < 1


def overlap(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union, row by row."""
    sides = np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2])
    shared = sides.clip(0).prod(axis=1)
    return shared / ((a[:, 2:] - a[:, :2]).prod(axis=1) + (b[:, 2:] - b[:, :2]).prod(axis=1) - shared)


def assert_same(a: Detections, b: Detections, pixels: float = 1e-3) -> None:
    assert len(a) == len(b)
    for name, tolerance in (("boxes", pixels), ("scores", 1e-3), ("landmarks", pixels)):
        np.testing.assert_allclose(getattr(a, name), getattr(b, name), atol=tolerance, err_msg=name)


def test_an_image_gives_the_same_alone_and_among_others_of_any_sizes(
    detector: Mtcnn, sheet: np.ndarray, faces: list[np.ndarray]
) -> None:
    mixed = [faces[0], sheet[:97, :151], faces[1], sheet[:60, :40], sheet[:97, :151], faces[2]]
    together = detector.detect(mixed)
    assert sum(map(len, together)) > 6
    for image, found in zip(mixed, together, strict=True):
        assert_same(found, detector.detect([image])[0])


def test_large_batches_are_split(detector: Mtcnn, faces: list[np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    whole = detector.detect(faces)
    monkeypatch.setattr("pipeline.faces.mtcnn.MAX_BATCH_PIXELS", 3 * SIDE * SIDE)
    monkeypatch.setattr("pipeline.faces.mtcnn.MAX_BATCH_CROPS", 2)
    for split, found in zip(detector.detect(faces), whole, strict=True):
        assert_same(split, found)


def test_threads_change_nothing(detector: Mtcnn, sheet: np.ndarray) -> None:
    (alone,) = detector.detect([sheet])
    assert len(alone) > 20
    threaded = Mtcnn(threads=3)
    with ThreadPoolExecutor(2) as callers:
        for (found,) in callers.map(threaded.detect, [[sheet]] * 4):
            for name in ("boxes", "scores", "landmarks"):
                np.testing.assert_array_equal(getattr(found, name), getattr(alone, name), err_msg=name)


def test_large_images_are_looked_at_in_bands(
    detector: Mtcnn, sheet: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = [sheet, sheet[:97, :151]]
    whole = detector.detect(images)
    assert len(whole[0]) > 20
    monkeypatch.setattr("pipeline.faces.mtcnn.MAX_SOURCE_PIXELS", 20 * sheet.shape[1])
    monkeypatch.setattr("pipeline.faces.mtcnn.MAX_BAND_PIXELS", 40 * sheet.shape[1])
    for split, found in zip(detector.detect(images), whole, strict=True):
        # OpenCV rounds where a crop's samples lie to 1/32 of a pixel: a proposal's last digit may move them by that.
        assert_same(split, found, pixels=0.05)


@pytest.mark.parametrize("shape", [(48, 48), (211, 340), (12, 60)])
def test_bands_make_up_their_level(shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of P-Net's outputs, STRIDE rows apart and WINDOW high, lies in exactly one band."""
    monkeypatch.setattr("pipeline.faces.mtcnn.MAX_BAND_PIXELS", 700)
    levels: dict[int, list[int]] = {}
    sizes = {}
    for band in pyramid(2, *shape, 12):
        rows = -(-(band.last - band.first - WINDOW) // STRIDE) + 1
        levels.setdefault(band.level, []).extend(band.first + STRIDE * row for row in range(rows))
        sizes[band.level] = band.height
        assert band.height == int(shape[0] * band.scale)
        assert band.width == int(shape[1] * band.scale)
    assert list(levels) == list(range(len(levels)))
    for level, tops in levels.items():
        assert tops == list(range(0, sizes[level] - WINDOW + STRIDE, STRIDE))[: len(tops)]
        assert tops[-1] + WINDOW >= sizes[level]


@settings(deadline=None)
@given(st.integers(1, 3), st.integers(12, 50), st.integers(12, 50), st.data())
def test_scaling_is_by_area(count: int, height: int, width: int, data: st.DataObject) -> None:
    images = np.random.default_rng(0).integers(0, 256, (count, height, width, 3), dtype=np.uint8)
    size = data.draw(st.integers(4, width)), data.draw(st.integers(4, height))
    first = data.draw(st.integers(0, size[1] - 1))
    last = data.draw(st.integers(first + 1, size[1]))
    budget = data.draw(st.integers(1, 5000))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.faces.mtcnn.MAX_SOURCE_PIXELS", budget)
        scaled = scale_rows(images, *size, first, last)
    # Every pixel as many times as the scaled image has columns and rows: the scaled ones' means are over whole pixels.
    fine = images.repeat(size[1], axis=1).repeat(size[0], axis=2).astype(float)
    wanted = fine.reshape(count, size[1], height, size[0], width, 3).mean(axis=(2, 4))
    np.testing.assert_allclose(scaled, wanted[:, first:last], atol=2e-3)


def test_finds_a_face_where_it_stands(detector: Mtcnn, faces: list[np.ndarray]) -> None:
    image = np.full((240, 320, 3), 128, np.uint8)
    left, top, scale = 170, 60, 3
    image[top : top + scale * SIDE, left : left + scale * SIDE] = cv2.resize(faces[0], None, fx=scale, fy=scale)
    alone, found = detector.detect([faces[0], image])
    assert len(found) == 1
    np.testing.assert_allclose(found.landmarks[0], alone.landmarks[0] * scale + [left, top], atol=2 * scale)
    # The picture's left eye and mouth corner are to the left.
    left_eye, right_eye, _, mouth_left, mouth_right = found.landmarks[0]
    assert left_eye[0] < right_eye[0]
    assert mouth_left[0] < mouth_right[0]
    assert left_eye[1] < mouth_left[1]


def test_smallest_face(sheet: np.ndarray) -> None:
    assert len(Mtcnn(min_face=150).detect([sheet])[0]) == 0
    assert len(Mtcnn(min_face=24).detect([sheet])[0]) > 20


@pytest.mark.parametrize("shape", [(1, 1), (5, 200), (11, 11), (12, 12), (33, 20), (64, 64)])
def test_nothing_in_plain_or_tiny_images(shape: tuple[int, int], detector: Mtcnn) -> None:
    (found,) = detector.detect([np.full((*shape, 3), 90, np.uint8)])
    assert len(found) == 0


def test_no_images_no_detections(detector: Mtcnn) -> None:
    assert detector.detect([]) == []


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((48, 48), np.uint8),
        np.zeros((48, 48, 4), np.uint8),
        np.zeros((48, 48, 3), np.float32),
    ],
)
def test_refuses_what_is_no_rgb_image(image: np.ndarray, detector: Mtcnn) -> None:
    with pytest.raises(ValueError, match=r"image 1: .* where uint8 \(H, W, 3\)"):
        detector.detect([np.zeros((48, 48, 3), np.uint8), image])


def test_errors_name_the_model(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"pnet\.onnx: no such file"):
        Mtcnn(models=tmp_path)
    for name in ("pnet", "rnet", "onet"):
        (tmp_path / f"{name}.onnx").write_bytes((MODELS / f"{name}.onnx").read_bytes()[:1000])
    with pytest.raises(InputError, match=r"pnet\.onnx: not a model"):
        Mtcnn(models=tmp_path)
    with pytest.raises(InputError, match="min_face 11 where at least 12"):
        Mtcnn(min_face=11)


@pytest.mark.parametrize("size", [24, 48])
def test_crops_are_bilinear_and_zero_outside(size: int) -> None:
    height, width = 40, 60
    y, x = np.mgrid[:height, :width]
    ramp = np.stack([x, y, x + y], axis=-1).astype(np.uint8)[None]
    boxes = np.array([[3.3, 4.4, 33.1, 29.2], [-10, -7.5, 20, 22.5], [40, 20, 75, 55], [0, 0, 60, 40]])
    crops = crop_boxes(ramp, np.zeros(len(boxes), int), boxes, size)
    assert crops.shape == (4, 3, size, size)
    for box, cut in zip(boxes, crops, strict=True):
        xs = np.linspace(box[0], box[2], size) * (width - 1) / width
        ys = np.linspace(box[1], box[3], size) * (height - 1) / height
        inside = ((ys >= 0) & (ys <= height - 1))[:, None] & ((xs >= 0) & (xs <= width - 1))
        wanted = (np.stack(np.broadcast_arrays(xs, ys[:, None], xs + ys[:, None])) - 127.5) / 128 * inside
        np.testing.assert_allclose(cut, wanted, atol=2 / 32 / 128)  # OpenCV places samples to 1/32 of a pixel


def test_crops_come_from_their_own_images() -> None:
    images = np.arange(5, dtype=np.uint8)[:, None, None, None] * np.ones((5, 20, 20, 3), np.uint8)
    owner = np.array([4, 0, 2, 2])
    crops = crop_boxes(images, owner, np.tile([2.0, 2.0, 18.0, 18.0], (4, 1)), 24)
    np.testing.assert_array_equal(crops[:, 0, 10, 10] * 128 + 127.5, owner)


@pytest.mark.parametrize("name", ["pnet", "rnet", "onet"])
def test_the_three_forms_of_a_net_are_one(name: str, detector: Mtcnn) -> None:
    net = build_net(ROOT / f"prototxt/mtcnn/{name}.prototxt", caffe_pb2.TEST)
    net.copy_from(MODELS / f"{name}.caffemodel")
    images = np.random.default_rng(0).uniform(-1, 1, (3, *net.shapes["data"][1:])).astype(np.float32)
    answers = net.forward(data=images)
    session = {"pnet": detector.p_net, "rnet": detector.r_net, "onet": detector.o_net}[name]
    for output, answer in zip(session.get_outputs(), session.run(None, {"data": images}), strict=True):
        np.testing.assert_allclose(answer, answers[output.name].detach().numpy(), atol=2e-6)


def test_model_files_are_those_that_were_converted() -> None:
    sums = (MODELS / "SHA256SUMS").read_text().splitlines()
    assert len(sums) == 6
    for line in sums:
        checksum, name = line.split()
        assert hashlib.sha256((MODELS / name).read_bytes()).hexdigest() == checksum, name


def test_of_a_crowd_no_more_faces_are_looked_at_than_may_be_found(
    portrait: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 100 small faces and a large one the largest are found, and the nets see a bounded number of crops."""
    face = portrait[40:400, 110:420]
    small = cv2.resize(face, (44, 52), interpolation=cv2.INTER_AREA)
    image = np.tile(small, (10, 10, 1))
    image[:156, :132] = cv2.resize(face, (132, 156), interpolation=cv2.INTER_AREA)
    detector = Mtcnn(threads=1, max_faces=3)
    seen: list[int] = []

    def count(*args: Any, **options: Any) -> list[np.ndarray]:
        seen.append(len(args[-1]))
        return run_on_crops(*args, **options)

    monkeypatch.setattr("pipeline.faces.mtcnn.run_on_crops", count)
    (found,) = detector.detect([image])
    assert len(found) == 3
    assert found.more > 0
    assert max(np.diff(found.boxes[:, ::2])[:, 0]) > 50, "the large one is among them"
    assert max(seen) == LEAST_PROPOSALS
    few = Mtcnn(threads=1, max_faces=50).detect([face])[0]
    every = Mtcnn(threads=1).detect([face])[0]
    np.testing.assert_array_equal(few.boxes, every.boxes)
    assert few.more == every.more == 0
