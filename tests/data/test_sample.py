"""The drawn set in FER2013's form: its form, its faces, and what the action units do to them."""

import csv
import hashlib
from collections import Counter
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers.pictures import read_picture
from hypothesis import given
from hypothesis import strategies as st

from pipeline.base.errors import InputError
from pipeline.data.fer2013_csv import CsvSource
from pipeline.data.labelled_images import LabelledImage
from pipeline.data.labels import LABELS
from pipeline.data.synthetic.action_units import ACTION_UNITS, PROTOTYPES, draw_units, measures
from pipeline.data.synthetic.portrait import Identity, View, draw_portrait, draw_relief, shape_mouth
from pipeline.data.synthetic.sample import draw_faces, draw_identity, draw_view, usages, write_csv
from pipeline.faces.mtcnn import Mtcnn
from pipeline.stages.sample import sample

COUNT = 210


@pytest.fixture(scope="module")
def faces() -> list[LabelledImage]:
    return list(draw_faces(COUNT, seed=5))


@pytest.fixture
def person() -> Identity:
    return replace(draw_identity(np.random.default_rng(3)), beard=0, moustache=0, glasses="none", hair="bald")


@pytest.fixture
def view() -> View:
    """From the front, in plain light."""
    return replace(
        draw_view(np.random.default_rng(3)),
        yaw=0,
        pitch=0,
        roll=0,
        shift=(0, 0),
        gaze=(0, 0),
        light=(0, -0.3),
        blur=0,
        noise=0,
        contrast=1,
        brightness=0,
    )


def draw(person: Identity, view: View, units: dict[int, float]) -> np.ndarray:
    return draw_portrait(person, units, view, np.random.default_rng(0)).astype(float)


def test_the_csv_is_read_back_as_it_was_drawn(faces: list[LabelledImage], tmp_path: Path) -> None:
    path = tmp_path / "sample.csv"
    write_csv(path, faces)
    with open(path, newline="") as file:
        assert next(csv.reader(file)) == ["emotion", "pixels", "Usage"]
    source = CsvSource(path)
    read = [image for batch in source.batches() for image in batch()]
    assert source.labels == LABELS
    assert [(image.row, image.usage, image.label) for image in read] == [(f.row, f.usage, f.label) for f in faces]
    assert all(np.array_equal(image.pixels, face.pixels) for image, face in zip(read, faces, strict=True))


def test_a_seed_draws_the_same_bytes_and_another_seed_other_faces(tmp_path: Path) -> None:
    digests = set()
    for name, seed in (("first", 1), ("again", 1), ("other", 2)):
        sample(tmp_path / name, 21, seed)
        digests.add(hashlib.sha256((tmp_path / name).read_bytes()).digest())
    assert (tmp_path / "first").read_bytes() == (tmp_path / "again").read_bytes()
    assert len(digests) == 2


def test_a_row_does_not_depend_on_how_many_are_drawn(faces: list[LabelledImage]) -> None:
    """Only its Usage does."""
    for longer, shorter in zip(faces, draw_faces(30, seed=5), strict=False):
        assert np.array_equal(longer.pixels, shorter.pixels)


@given(count=st.integers(1, 5000))
def test_usages_stand_in_fer2013s_proportions_and_order(count: int) -> None:
    drawn = usages(count)
    assert len(drawn) == count
    assert list(dict.fromkeys(drawn)) == [u for u in ("Training", "PublicTest", "PrivateTest") if u in drawn]
    shares = Counter(drawn)
    for usage, known in (("Training", 28709), ("PublicTest", 3589), ("PrivateTest", 3589)):
        assert abs(shares[usage] - count * known / 35887) <= 1


def test_expressions_are_evenly_many(faces: list[LabelledImage]) -> None:
    assert set(Counter(face.label for face in faces).values()) == {COUNT // 7}
    assert {face.usage for face in faces if face.label == LABELS.index("disgust")} == {
        "Training",
        "PublicTest",
        "PrivateTest",
    }


def test_every_face_is_a_picture_of_its_own(faces: list[LabelledImage]) -> None:
    assert all(face.pixels.shape == (48, 48) and face.pixels.dtype == np.uint8 for face in faces)
    assert min(face.pixels.std() for face in faces) > 8
    assert len({face.pixels.tobytes() for face in faces}) == COUNT


def test_mtcnn_finds_the_faces(faces: list[LabelledImage]) -> None:
    found = Mtcnn(threads=1).detect([np.repeat(face.pixels[:, :, None], 3, axis=2) for face in faces[:154]])
    assert np.mean([len(detections) > 0 for detections in found]) >= 0.8


def test_the_prototypes_are_made_of_known_units_and_every_unit_of_known_measures() -> None:
    assert tuple(PROTOTYPES) == LABELS
    rest = vars(measures({}))
    for unit, moves in ACTION_UNITS.items():
        moved = vars(measures({unit: 1.0}))
        assert {name for name in rest if moved[name] != rest[name]} == set(moves)
    for variants in PROTOTYPES.values():
        assert all(set(variant) <= set(ACTION_UNITS) for variant in variants)


def opening(person: Identity, units: dict[int, float]) -> float:
    """Of the mouth: area between the lips."""
    mouth = shape_mouth(person, measures(units))
    gap = mouth.lower_inner[:, 1] - mouth.upper_inner[:, 1]
    return float(np.sum((gap[1:] + gap[:-1]) / 2 * np.diff(mouth.upper_inner[:, 0])))


@pytest.mark.parametrize("seed", range(5))
def test_surprise_opens_the_mouth_and_rest_leaves_it_shut(seed: int) -> None:
    rng = np.random.default_rng(seed)
    person = draw_identity(rng)
    assert opening(person, draw_units("neutral", rng)) == 0
    assert opening(person, draw_units("surprise", rng)) > 0.03


def corner(person: Identity, units: dict[int, float]) -> np.ndarray:
    """The mouth's right corner; v grows downwards."""
    return shape_mouth(person, measures(units)).upper_inner[-1]


def test_units_move_the_mouths_corners_their_way(person: Identity) -> None:
    u, v = corner(person, {})
    assert corner(person, {12: 1.0})[0] > u  # lip corner puller: out and up
    assert corner(person, {12: 1.0})[1] < v
    assert corner(person, {15: 1.0})[1] > v  # lip corner depressor
    assert corner(person, {20: 1.0})[0] > u  # lip stretcher
    assert corner(person, {23: 1.0})[0] < u  # lip tightener


def test_units_move_what_is_drawn(person: Identity, view: View) -> None:
    """Darkness goes where brows and open mouth go, and white where teeth and eyes show."""

    def darkness(units: dict[int, float], rows: slice) -> np.ndarray:
        return 255 - draw(person, view, units)[rows, 12:36]

    def row_of_brows(units: dict[int, float]) -> float:
        weight = np.maximum(0, darkness(units, slice(4, 17)) - 100).sum(axis=1)
        return float(np.average(np.arange(4, 17), weights=weight + 1e-6))

    person = replace(person, skin=0.8, hair_tone=0.05, age=0.2, brow_thickness=1.3)
    assert row_of_brows({1: 1.0, 2: 1.0}) < row_of_brows({}) - 0.5
    assert row_of_brows({4: 1.0}) > row_of_brows({}) + 0.3
    assert (darkness({25: 1.0, 27: 1.0}, slice(32, 48)) > 220).sum() > (darkness({}, slice(32, 48)) > 220).sum() + 15


@pytest.mark.parametrize(("unit", "wider"), [(5, True), (7, False), (43, False)])
def test_units_move_the_lids(person: Identity, unit: int, wider: bool) -> None:
    def white(units: dict[int, float]) -> float:
        return float(draw_relief(person, units, (0, 0), np.random.default_rng(0)).unlit.sum())

    assert (white({unit: 0.9}) > white({})) == wider


def test_a_turn_of_the_head_moves_the_nose_that_way(person: Identity, view: View) -> None:
    def nose(yaw: float) -> float:
        picture = draw(replace(person, moustache=0), replace(view, yaw=yaw, light=(0, -0.8)), {})
        darkest = np.maximum(0, 90 - picture[26:31, 10:38]).sum(axis=0)
        return float(np.average(np.arange(10, 38), weights=darkest + 1e-6))

    assert nose(-0.3) + 1 < nose(0) < nose(0.3) - 1


def test_the_sheet_shows_a_row_for_every_expression(tmp_path: Path) -> None:
    sample(tmp_path / "sample.csv", 35, 1, tmp_path / "sheet.png")
    sheet = read_picture(tmp_path / "sheet.png", cv2.IMREAD_GRAYSCALE)
    assert sheet.shape[0] == 7 * 96
    rows = sheet.reshape(7, 96, -1)
    assert all(row[:, 100:292].std() > 10 and row[:, :100].min() < 60 for row in rows)


@pytest.mark.parametrize(("count", "seed"), [(0, 1), (-3, 1), (5, -1)])
def test_options_out_of_range_are_errors_and_write_nothing(tmp_path: Path, count: int, seed: int) -> None:
    with pytest.raises(InputError, match=r"nothing was written"):
        sample(tmp_path / "sample.csv", count, seed)
    assert not list(tmp_path.iterdir())
