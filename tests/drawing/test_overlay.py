"""The overlay: of a constant size, legible on any frame whatever lies where, each part drawn where it belongs."""

from dataclasses import fields, replace
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import features

from pipeline.drawing.blur import hide_faces
from pipeline.drawing.canvas import DARK, MUTED, PANEL_OPACITY, WHITE, Canvas, emoji_sprite, text_sprite
from pipeline.drawing.layout import MIN_SIDE, Face, Layout
from pipeline.drawing.overlay import Overlay, Parts
from pipeline.drawing.palette import COLOURS, colours, luminance, rgb
from pipeline.readings import LANDMARKS, FaceReading, Reading

LABELS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
NOTHING = Parts(boxes=False, landmarks=False, labels=False, bars=False, emoji=False, rate=False)
DRAWN = ("boxes", "landmarks", "labels", "bars", "emoji")
BOX = (100.0, 100.0, 300.0, 350.0)

Box = tuple[float, float, float, float]


def face(
    box: Box, label: str = "happy", labels: tuple[str, ...] = LABELS, *, track: int | None = None, sure: bool = True
) -> FaceReading:
    left, top, right, bottom = box
    points = {name: (left + (right - left) * (i + 1) / 6, (top + bottom) / 2) for i, name in enumerate(LANDMARKS)}
    others = 0.3 / max(1, len(labels) - 1)
    probabilities = {name: 0.7 if name == label else others for name in labels}
    return FaceReading(box, 0.9, points, probabilities, "found", track, not sure)


def switched(parts: Parts, part: str, *, on: bool) -> Parts:
    change: dict[str, Any] = {part: on}
    return replace(parts, **change)


def reading(image: np.ndarray, *faces: FaceReading) -> Reading:
    return Reading("frame", image.shape[1], image.shape[0], faces)


def grey(width: int = 800, height: int = 600) -> np.ndarray:
    return np.full((height, width, 3), 90, np.uint8)


def noise(width: int = 800, height: int = 600) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def draw(parts: Parts, image: np.ndarray, *faces: FaceReading, rate: float | None = None) -> np.ndarray:
    return Overlay(parts).draw(image, reading(image, *faces), rate)


def changed(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return (one != other).any(axis=2)


def contrast(one: float, other: float) -> float:
    return (max(one, other) + 0.05) / (min(one, other) + 0.05)


PARTS = st.builds(
    Parts,
    **{field.name: st.booleans() for field in fields(Parts) if field.type is bool},
    faces=st.sampled_from(["all", "single"]),
)


@settings(deadline=None, max_examples=80)
@given(
    parts=PARTS,
    width=st.integers(1, 900),
    height=st.integers(1, 900),
    corners=st.lists(st.tuples(*[st.floats(-200, 1200)] * 4), max_size=6),
    label=st.text(max_size=60),
)
def test_any_frame_takes_any_faces_and_keeps_its_size(
    parts: Parts, width: int, height: int, corners: list[Box], label: str
) -> None:
    image = np.zeros((height, width, 3), np.uint8)
    faces = [
        face((min(a, c), min(b, d), max(a, c), max(b, d)), label, (label, *LABELS), track=i, sure=i % 2 == 0)
        for i, (a, b, c, d) in enumerate(corners, 1)
    ]
    drawn = draw(parts, image, *faces, rate=29.97)
    assert drawn.dtype == np.uint8
    assert drawn.shape == draw(parts, image).shape  # of a frame without faces or rate
    assert drawn.shape[0] >= height
    assert drawn.shape[1] >= width
    assert not image.any()


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1), (3840, 2160)])
@pytest.mark.parametrize("shown", ["all", "single"])
def test_frames_of_odd_sizes(size: tuple[int, int], shown: Literal["all", "single"]) -> None:
    width, height = size
    parts = Parts(faces=shown)
    drawn = draw(parts, grey(width, height), face((0, 0, width - 1, height - 1), track=3), rate=60)
    assert drawn.shape[0] >= height
    assert (drawn != 90).any()


def test_text_grows_with_the_frame() -> None:
    def plate(width: int, height: int) -> np.ndarray:
        parts = replace(NOTHING, rate=True)
        return changed(draw(parts, grey(width, height), rate=30), grey(width, height)).any(axis=1).sum()

    assert 2.5 < plate(3840, 2160) / plate(1280, 720) < 3.5
    assert plate(640, 360) >= 14  # pixels


@pytest.mark.parametrize("shown", ["all", "single"])
def test_nothing_is_drawn_where_no_part_is_on(shown: Literal["all", "single"]) -> None:
    parts = replace(NOTHING, faces=shown)
    image = noise()
    drawn = draw(parts, image, face(BOX), rate=30)
    np.testing.assert_array_equal(drawn, image)
    assert drawn is not image


def test_a_frame_without_faces_stays_as_it_is() -> None:
    np.testing.assert_array_equal(draw(Parts(), noise()), noise())


# Where each part of a face in BOX is to be seen: rows and columns.
WHERE = {
    "boxes": (slice(96, 355), slice(96, 305)),
    "landmarks": (slice(215, 236), slice(125, 275)),
    "labels": (slice(60, 100), slice(95, 303)),
    "bars": (slice(90, 360), slice(303, 560)),
    "emoji": (slice(290, 400), slice(240, 350)),
}


@pytest.mark.parametrize("part", DRAWN)
def test_each_part_is_drawn_in_its_place_and_only_there(part: str) -> None:
    image = grey()
    difference = changed(draw(switched(NOTHING, part, on=True), image, face(BOX)), image)
    assert difference[WHERE[part]].sum() > 200
    difference[WHERE[part]] = False
    assert not difference.any()


def test_the_rate_is_drawn_where_it_is_known() -> None:
    image, parts = grey(), replace(NOTHING, rate=True)
    difference = changed(draw(parts, image, rate=29.6), image)
    assert difference[:50, :120].sum() > 500
    difference[:50, :120] = False
    assert not difference.any()
    assert changed(draw(parts, image, rate=29.6), draw(parts, image, rate=31.2)).any()
    assert not changed(draw(parts, image), image).any()


@pytest.mark.parametrize("part", DRAWN)
def test_each_part_can_be_left_out(part: str) -> None:
    image = grey()
    whole, without = (draw(parts, image, face(BOX)) for parts in (Parts(), switched(Parts(), part, on=False)))
    assert changed(whole, without).sum() > 50


def test_the_face_itself_is_not_covered() -> None:
    boxes = ((100.0, 100.0, 300.0, 350.0), (450.0, 200.0, 620.0, 420.0))
    drawn = draw(Parts(), grey(), *map(face, boxes))
    for left, top, right, bottom in boxes:
        inside = drawn[int(top) + 8 : int(bottom) - 8, int(left) + 8 : int(right) - 8]
        assert (inside == 90).all(axis=2).mean() > 0.93  # but for landmarks and the badge at the corner
    assert (drawn != 90).any(axis=2).mean() > 0.05  # two panels of bars


@pytest.mark.parametrize("label", LABELS)
def test_the_box_has_the_labels_colour(label: str) -> None:
    drawn = draw(Parts(), grey(), face(BOX, label))
    assert tuple(drawn[250, 100]) == rgb(COLOURS[label])


def test_an_uncertain_face_has_another_form_not_only_another_colour() -> None:
    def along_the_box(sure: bool) -> np.ndarray:
        drawn = draw(replace(NOTHING, boxes=True), grey(), face(BOX, sure=sure))
        return (drawn[120:330, 100] == rgb(COLOURS["happy"])).all(axis=1)

    assert along_the_box(True).all()
    assert 0.3 < along_the_box(False).mean() < 0.7  # dashes
    plates = [draw(replace(NOTHING, labels=True), grey(), face(BOX, sure=sure)).astype(int) for sure in (True, False)]
    assert abs(plates[0].mean(axis=2) - plates[1].mean(axis=2)).max() > 100  # dark text on light, light on dark
    badges = [draw(replace(NOTHING, emoji=True), grey(), face(BOX, sure=sure)).astype(int) for sure in (True, False)]
    assert np.ptp(badges[0], axis=2).max() > 100
    assert np.ptp(badges[1], axis=2).max() <= 1


def test_a_track_is_named_by_its_number() -> None:
    def plate(track: int | None) -> int:
        return changed(draw(replace(NOTHING, labels=True), grey(), face(BOX, track=track)), grey()).sum()

    assert plate(None) < plate(2) < plate(123)


def test_two_faces_are_drawn_in_their_own_colours_and_one_in_single() -> None:
    faces = face(BOX, "happy"), face((500.0, 150.0, 600.0, 300.0), "sad")
    everything, single = (draw(Parts(faces=shown), grey(), *faces) for shown in ("all", "single"))
    assert tuple(everything[220, 500]) == rgb(COLOURS["sad"])
    assert tuple(single[220, 100]) == rgb(COLOURS["happy"])
    assert (single[140:310, 490:610] == 90).all()


def test_single_stays_with_a_face_while_another_is_little_larger() -> None:
    overlay, image = Overlay(Parts(faces="single")), grey()
    one, larger, far_larger = (
        face((400.0, 200.0, 400.0 + side, 200.0 + side), label, track=track)
        for side, label, track in ((100, "happy", 1), (110, "sad", 2), (150, "sad", 2))
    )

    def shown(*faces: FaceReading) -> str:
        panel = overlay.draw(image, reading(image, *faces))[:, 800:]
        return max(("happy", "sad"), key=lambda label: (panel == rgb(COLOURS[label])).all(axis=2).sum())

    assert shown(larger, one) == "sad"
    assert shown(one) == "happy"
    assert shown(larger, one) == "happy"
    assert shown(far_larger, one) == "sad"
    assert shown(far_larger) == "sad"


def test_single_has_a_panel_beside_the_frame() -> None:
    image = grey()
    drawn = draw(Parts(faces="single"), image, face(BOX))
    assert drawn.shape[0] == 600
    assert 1000 < drawn.shape[1] < 1200
    panel = drawn[:, 800:]
    for label in ("happy", "sad"):
        assert (panel == rgb(COLOURS[label])).all(axis=2).sum() > 50
    assert changed(panel, draw(Parts(faces="single"), image)[:, 800:]).mean() > 0.2  # but for the words "no face"
    assert np.ptp(draw(Parts(faces="single"), image)[:, 800:].astype(int), axis=(0, 1)).max() > 100


@pytest.mark.parametrize("part", ["labels", "bars", "emoji"])
def test_the_panel_holds_the_parts_that_are_on(part: str) -> None:
    alone = draw(switched(replace(NOTHING, faces="single"), part, on=True), grey(), face(BOX))[:, 800:]
    assert (alone != rgb(DARK)).any(axis=2).mean() > 0.02
    without = draw(switched(Parts(faces="single"), part, on=False), grey(), face(BOX))
    assert changed(without, draw(Parts(faces="single"), grey(), face(BOX))).any()


def test_a_tiny_frame_is_enlarged_with_room_for_the_bars() -> None:
    drawn = draw(Parts(), grey(48, 48), face((0, 0, 47, 47)))
    assert drawn.shape[0] >= MIN_SIDE
    strip = drawn[:, drawn.shape[0] :]
    assert strip.shape[1] > 100
    assert (strip == rgb(COLOURS["happy"])).all(axis=2).sum() > 300
    picture = drawn[:, : drawn.shape[0]]
    assert (picture == 90).all(axis=2).mean() > 0.85  # bars and emoji leave the face alone


def test_a_face_that_fills_the_frame_has_brief_bars_inside() -> None:
    drawn = draw(replace(NOTHING, bars=True), grey(600, 600), face((5, 5, 594, 594)))
    assert drawn.shape == (600, 600, 3)
    assert changed(drawn, grey(600, 600))[300:, :300].sum() > 5000


def test_bars_stay_where_they_were_while_there_is_room() -> None:
    overlay = Overlay(replace(NOTHING, bars=True))
    image = grey()

    def right_of_the_face(*others: FaceReading) -> bool:
        drawn = overlay.draw(image, reading(image, face((300, 200, 450, 400), track=1), *others))
        return bool(changed(drawn, image)[210:390, 470:500].any())

    assert right_of_the_face()
    assert not right_of_the_face(face((460, 250, 600, 380), "sad", track=2))  # somebody stands there
    assert not right_of_the_face()  # has gone, but the bars do not leap back
    assert Overlay(Parts()).draw(image, reading(image, face((300, 200, 450, 400), track=1)))[300, 480].any()


def test_thirty_faces_keep_their_labels_apart() -> None:
    parts = replace(NOTHING, labels=True)
    boxes = [
        (30.0 + 205 * column, 40.0 + 135 * row, 80.0 + 205 * column, 110.0 + 135 * row)
        for row in range(5)
        for column in range(6)
    ]
    image = grey(1280, 720)
    alone = [changed(draw(parts, image, face(box)), image).sum() for box in boxes]
    together = changed(draw(Parts(), image, *map(face, boxes)), image)
    assert changed(draw(parts, image, *map(face, boxes)), image).sum() == sum(alone)
    assert together.mean() < 0.25  # no panels of bars over everything


def plates(parts: Parts, image: np.ndarray, *faces: FaceReading) -> np.ndarray:
    """Where more than the boxes is drawn."""
    return changed(draw(parts, image, *faces), draw(replace(parts, labels=False, bars=False), image, *faces))


def test_in_a_crowd_nothing_hides_a_neighbour() -> None:
    boxes = [
        (20.0 + 88 * column, 30.0 + 90 * row, 90.0 + 88 * column, 104.0 + 90 * row)
        for row in range(11)
        for column in range(21)
    ]
    faces = [face(box, LABELS[index % 7], sure=index % 3 > 0) for index, box in enumerate(boxes)]
    image = grey(1920, 1080)
    parts = replace(NOTHING, labels=True, bars=True, emoji=True)
    covered = plates(parts, image, *faces)
    for left, top, right, bottom in boxes:
        features = covered[round(top) + 27 : round(bottom) - 22, round(left) + 8 : round(right) - 8]
        assert not features.any()
    badges = changed(draw(replace(NOTHING, emoji=True), image, *faces), image)
    for left, top, right, bottom in boxes:  # a face whose label has no room has its emoji
        assert badges[round(top) : round(bottom) + 20, round(left) : round(right) + 20].any()
        assert not badges[round(top) : round(top) + 40, round(left) + 25 : round(right)].any()


def test_bars_leave_eyes_nose_and_mouth_free() -> None:
    image = grey(500, 200)
    known: dict[str, tuple[float, float]] = {
        "left_eye": (378, 80),
        "right_eye": (434, 80),
        "nose": (410, 113),
        "mouth_left": (383, 134),
        "mouth_right": (436, 130),
    }
    wide = replace(face((343, 27, 459, 167)), landmarks=known)
    covered = plates(replace(NOTHING, labels=True, bars=True), image, wide, face((52, 54, 128, 150)))
    scale = covered.shape[1] / 500
    left, top, right, bottom = (round(value * scale) for value in (370, 72, 442, 140))
    assert not covered[top:bottom, left:right].any()


def test_what_makes_a_reading_worth_less_is_shown() -> None:
    parts = replace(NOTHING, labels=True, boxes=True)
    image = grey()
    for condition in ("edge", "turned", "tiny"):
        marked = replace(face(BOX), conditions=(condition,))
        assert (draw(parts, image, marked) != draw(parts, image, face(BOX))).any()
        outline = replace(NOTHING, boxes=True)
        dashed, whole = (changed(draw(outline, image, each), image).sum() for each in (marked, face(BOX)))
        assert dashed < whole


@pytest.mark.parametrize("size", [(48, 48), (20, 90), (300, 200)])
def test_a_small_frame_keeps_its_own_size_where_that_is_asked_for(size: tuple[int, int]) -> None:
    image = grey(*size)
    drawn = Overlay(Parts(), own_size=True).draw(image, reading(image, face((2, 2, 18, 18))))
    assert drawn.shape == image.shape


ODD_LABELS = (
    "a label so long that no plate could ever hold it" * 6,
    "glücklich",
    "счастье",
    "嬉しい",
    "two\nlines\tof it",
    "",
    "\udcff",
    "😀",
)


@pytest.mark.parametrize("label", ODD_LABELS, ids=ascii)
@pytest.mark.parametrize("shown", ["all", "single"])
def test_labels_of_any_kind_are_drawn_and_stay_in_the_frame(label: str, shown: Literal["all", "single"]) -> None:
    parts = replace(NOTHING, labels=True, bars=True, faces=shown)
    image = grey(640, 480)
    drawn = draw(parts, image, face((250, 150, 400, 330), label, (label, "sad")))
    plain = draw(parts, image)
    assert changed(drawn, plain).sum() > 800
    assert not changed(drawn, plain)[:, :4].any()


@pytest.mark.skipif(not features.check("raqm"), reason="Raqm lays letters out by direction")
@pytest.mark.parametrize("label", ["غاضب", "כועס", "happy سعيد"])
def test_a_name_from_right_to_left_leaves_what_is_around_it_in_its_place(label: str) -> None:
    reading = face(BOX, label, (label, "sad"), track=2)
    line = text_sprite(Face.of(reading, Layout.of(640, 480, side=None), {}).text(20, 600), 20, WHITE).colour
    begin, end = text_sprite("#2 é", 20, WHITE).colour, text_sprite("é 70%", 20, WHITE).colour
    np.testing.assert_array_equal(line[:, :28], begin[:, :28])
    # Letters begin at parts of a pixel; what is turned around differs by more than 60.
    rolled = (np.roll(line, shift, axis=1)[:, -40:-4].astype(int) for shift in (-1, 0, 1))
    assert min(abs(part - end[:, -40:-4]).mean() for part in rolled) < 10


def test_letters_beyond_ascii_are_not_all_the_same() -> None:
    assert not np.array_equal(text_sprite("счас", 20, WHITE).colour, text_sprite("тьес", 20, WHITE).colour)


@pytest.mark.parametrize("colour", [*COLOURS.values(), DARK])
def test_text_stands_out_on_every_plate(colour: str) -> None:
    labels = ("happy",) if colour == DARK else tuple(name for name in COLOURS if COLOURS[name] == colour)
    image = grey()
    parts = replace(NOTHING, labels=True)
    drawn = draw(parts, image, face(BOX, labels[0], labels, sure=colour != DARK))
    plate = drawn[60:100, 97:300][changed(drawn, image)[60:100, 97:300]]
    inks = [luminance(f"#{r:02X}{g:02X}{b:02X}") for r, g, b in np.unique(plate, axis=0)]
    assert contrast(min(inks), max(inks)) >= 4.5  # WCAG 2.2, AA


@pytest.mark.parametrize("ink", [WHITE, MUTED])
def test_text_stands_out_on_a_panel_over_white(ink: str) -> None:
    ground = round(PANEL_OPACITY * rgb(DARK)[0] + (1 - PANEL_OPACITY) * 255)
    assert contrast(luminance(f"#{ground:02X}{ground:02X}{ground:02X}"), luminance(ink)) >= 4.5


@pytest.mark.parametrize("ground", [0, 90, 255])
@pytest.mark.parametrize("label", LABELS)
def test_the_box_stands_out_on_any_ground(ground: int, label: str) -> None:
    image = np.full((600, 800, 3), ground, np.uint8)
    edge = draw(replace(NOTHING, boxes=True), image, face(BOX, label))[200, 90:110]
    shades = [luminance(f"#{r:02X}{g:02X}{b:02X}") for r, g, b in edge]
    assert contrast(max(shades), min(shades)) >= 3  # WCAG 2.2, for graphics


def test_every_place_of_a_sprite_is_cut_at_the_edges() -> None:
    sprite = emoji_sprite("happy", 40, faded=False)
    whole = Canvas(np.full((140, 140, 3), 90, np.uint8))
    for left in range(-45, 65, 7):
        for top in range(-45, 65, 11):
            small = Canvas(np.full((60, 60, 3), 90, np.uint8))
            small.paste(sprite, left, top)
            whole.image[:] = 90
            whole.paste(sprite, left + 40, top + 40)
            np.testing.assert_array_equal(small.image, whole.image[40:100, 40:100])


def test_emoji_are_blended_by_their_alpha() -> None:
    sprite = emoji_sprite("happy", 64, faded=False)
    for ground in (0, 200):
        canvas = Canvas(np.full((64, 64, 3), ground, np.uint8))
        canvas.paste(sprite, 0, 0)
        want = sprite.colour + sprite.keep / 255 * ground
        assert abs(canvas.image - want).max() <= 1
        assert (canvas.image[0, 0] == ground).all()  # the corner is clear
        assert not (canvas.image[32, 32] == ground).any()


@pytest.mark.parametrize("box", [(0, 0, 60, 80), (739, 519, 799, 599), (-50, -50, 30, 20), (0, 300, 0, 300)])
def test_emoji_at_the_edges_stay_whole_and_on_their_side(box: Box) -> None:
    image = grey()
    difference = changed(draw(replace(NOTHING, emoji=True), image, face(box)), image)
    rows, columns = (np.flatnonzero(difference.any(axis=axis)) for axis in (1, 0))
    assert np.ptp(rows) == np.ptp(columns) > 15
    near = box[0] < 400
    assert (columns < 400).all() if near else (columns > 400).all()


def test_emoji_grow_with_the_face() -> None:
    def area(side: float) -> int:
        image = grey(1280, 720)
        return changed(draw(replace(NOTHING, emoji=True), image, face((200, 200, 200 + side, 200 + side))), image).sum()

    assert 3 < area(300) / area(150) < 5


@pytest.mark.parametrize("sure", [True, False])
def test_a_hidden_face_keeps_nothing_that_could_be_recognised(sure: bool) -> None:
    image = noise()
    drawn = draw(replace(NOTHING, blur=True), image, face(BOX, sure=sure))
    left, top, right, bottom = map(int, BOX)
    inside = drawn[top : bottom + 1, left : right + 1]
    assert len(np.unique(inside.reshape(-1, 3), axis=0)) <= 64
    before, after = (part.astype(float).ravel() for part in (image[top : bottom + 1, left : right + 1], inside))
    assert abs(np.corrcoef(before, after)[0, 1]) < 0.1
    difference = changed(drawn, image)
    assert difference[60:390, 60:340].mean() > 0.9  # beyond the box
    difference[:, 35:365] = False
    assert not difference.any()


def test_detail_is_lost_in_proportion_to_the_face() -> None:
    """A grating as fine as an eye, an eighth of the face, vanishes at any size of face."""
    for side in (24, 100, 800):
        columns = np.arange(2 * side)
        image = np.repeat(np.where(columns // max(1, side // 8) % 2, 255, 0)[None, :, None], 2 * side, axis=0)
        image = np.repeat(image, 3, axis=2).astype(np.uint8)
        box = (side / 2, side / 2, side * 1.5, side * 1.5)
        inside = slice(side // 2, side * 3 // 2)
        assert np.ptp(hide_faces(image, [box])[inside, inside]) < 140
        assert np.ptp(image[inside, inside]) == 255


def test_all_faces_are_hidden_where_one_is_shown() -> None:
    image = noise()
    other = (500.0, 150.0, 600.0, 300.0)
    drawn = draw(Parts(faces="single", blur=True), image, face(BOX), face(other))
    assert changed(drawn[:, :800], image)[150:300, 500:600].mean() > 0.9
    covered = draw(Parts(blur=True), image, face(BOX))
    centre = covered[215:235, 195:205].reshape(-1, 3)
    assert len(np.unique(centre, axis=0)) < 60  # the emoji, not noise


def test_landmarks_do_not_show_a_hidden_face() -> None:
    image = noise()
    one, other = (draw(replace(NOTHING, blur=True, landmarks=on), image, face(BOX)) for on in (True, False))
    np.testing.assert_array_equal(one, other)


def test_own_labels_have_colours_that_differ() -> None:
    assert len(set(colours(("calm", "bored", "happy")).values())) == 3


@pytest.mark.parametrize("parts", [Parts(), Parts(faces="single")])
def test_labels_are_drawn_under_other_names(parts: Parts) -> None:
    """FER+ calls happy happiness, in the same colour."""
    ours, theirs = (tuple(label.replace("happy", name) for label in LABELS) for name in ("happy", "happiness"))
    image = grey()
    renamed = Overlay(parts, {"happy": "happiness"}).draw(image, reading(image, face(BOX, "happy", ours)))
    assert np.array_equal(renamed, Overlay(parts).draw(image, reading(image, face(BOX, "happiness", theirs))))
    assert not np.array_equal(renamed, Overlay(parts).draw(image, reading(image, face(BOX, "happy", ours))))


def crowd(columns: int, rows: int) -> list[FaceReading]:
    """Faces so close that no label has room beside or inside them, of the first three expressions."""
    boxes = [(56.0 * x, 66.0 * y, 56.0 * x + 52, 66.0 * y + 62) for y in range(rows) for x in range(columns)]
    return [face(box, LABELS[index % 3], sure=index % 5 > 0) for index, box in enumerate(boxes)]


LABELS_AND_EMOJI = replace(NOTHING, labels=True, emoji=True)


def legend(*faces: FaceReading, parts: Parts = LABELS_AND_EMOJI) -> np.ndarray:
    """What is drawn to the right of a crowd of 14 columns."""
    return draw(parts, grey(1000, 530), *faces)[:, 810:]


def test_in_a_crowd_a_legend_on_free_ground_names_the_emoji() -> None:
    shown = legend(*crowd(14, 8))
    assert (shown != 90).any()
    pixels, known = shown.reshape(-1, 3), colours(LABELS)
    for label in LABELS:  # of the expressions that are there, and of no others
        assert ((pixels == rgb(known[label])).all(axis=1).sum() > 40) == (label in LABELS[:3])
    sure = [replace(each, uncertain=False) for each in crowd(14, 8)]
    assert (legend(*sure) != shown).any()


def test_the_legend_stays_where_it_was_while_faces_move() -> None:
    overlay, image = Overlay(LABELS_AND_EMOJI), grey(1000, 530)
    first = overlay.draw(image, reading(image, *crowd(14, 8)))
    later = overlay.draw(image, reading(image, *crowd(14, 7)))  # the lowest row, beside which it was, is gone
    np.testing.assert_array_equal(first[:, 810:], later[:, 810:])
    assert (draw(LABELS_AND_EMOJI, image, *crowd(14, 7))[:, 810:] != first[:, 810:]).any()


def test_where_labels_have_room_or_emoji_are_off_there_is_no_legend() -> None:
    assert (legend(*crowd(1, 1)) == 90).all()
    assert (legend(*crowd(14, 8), parts=replace(NOTHING, labels=True)) == 90).all()


def test_a_legend_covers_no_eyes_nose_or_mouth() -> None:
    faces, image = crowd(14, 8), grey(780, 524)
    covered = plates(LABELS_AND_EMOJI, image, *faces)
    assert covered.any()
    for each in faces:
        left, top, right, bottom = map(round, each.box)
        assert not covered[top + 26 : bottom - 26, left + 8 : right - 8].any()
