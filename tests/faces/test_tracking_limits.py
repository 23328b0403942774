"""Who keeps which number, at each limit: what the nets see is given, so that a frame takes no time."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import pytest

from pipeline.faces.boxes import iou
from pipeline.faces.detector import Detections
from pipeline.faces.landmarks import Landmarker
from pipeline.faces.tracking import Tracked, Tracker

HEIGHT, WIDTH = 240, 640
SIDE = 60


@dataclass(frozen=True)
class Shown:
    """A square face about (x, y). who: whose look it has. score: O-Net's. found: whether the detector finds it."""

    x: float
    y: float = 120
    who: int = 0
    side: int = SIDE
    score: float = 0.99
    found: bool = True
    light: float = 1.0

    @property
    def box(self) -> list[float]:
        half = (self.side - 1) / 2
        return [self.x - half, self.y - half, self.x + half, self.y + half]


class Stage(Landmarker):
    """A scene with the faces that are put on it: a detector and O-Net that see these without fail, and the tracker."""

    def __init__(self, *, every: float = 0.4) -> None:
        self.faces: tuple[Shown, ...] = ()
        self.left_out = 0
        self.detected: list[float] = []
        self.time = 0.0
        self.tracker = Tracker(self, self, every=every)

    def show(self, time: float, *faces: Shown) -> dict[int, float]:
        """x of each number's face at a time when these faces are shown."""
        self.faces, self.time = faces, time
        tracked = self.update()
        boxes = tracked.detections.boxes
        return dict(zip(tracked.ids.tolist(), ((boxes[:, 0] + boxes[:, 2]) / 2).tolist(), strict=True))

    def update(self) -> Tracked:
        return self.tracker.update(self.picture(), self.time)

    def picture(self) -> np.ndarray:
        scene = np.random.default_rng(99).integers(60, 200, (12, 32, 3)).astype(np.float32)
        image = cv2.resize(scene, (WIDTH, HEIGHT), interpolation=cv2.INTER_NEAREST)
        for face in self.faces:
            pattern = np.random.default_rng(face.who).integers(40, 220, (4, 4, 3)).astype(np.float32) * face.light
            left, top = round(face.box[0]), round(face.box[1])
            patch = cv2.resize(pattern, (face.side, face.side), interpolation=cv2.INTER_NEAREST)
            x, y = max(left, 0), max(top, 0)
            part = patch[y - top :, x - left :][: HEIGHT - y, : WIDTH - x]
            image[y : y + part.shape[0], x : x + part.shape[1]] = part
        return image.astype(np.uint8)

    def detect(self, images: Sequence[np.ndarray]) -> list[Detections]:
        self.detected.append(self.time)
        boxes = np.array([face.box for face in self.faces if face.found], np.float32).reshape(-1, 4)
        scores = np.full(len(boxes), 0.7, np.float32)
        return [Detections(boxes, scores, np.full((len(boxes), 5, 2), np.nan, np.float32), self.left_out)]

    def refine(self, image: np.ndarray, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        closer, scores = boxes.copy(), np.zeros(len(boxes), np.float32)
        for index, overlaps in enumerate(iou(boxes, np.array([face.box for face in self.faces]).reshape(-1, 4))):
            if overlaps.max(initial=0) > 0.2:
                face = self.faces[int(overlaps.argmax())]
                closer[index], scores[index] = face.box, face.score
        return closer, scores, np.repeat(closer[:, None, :2], 5, axis=1)


def test_a_face_is_followed_where_o_net_gives_it_one_half_and_searched_for_below() -> None:
    stage = Stage()
    stage.show(0, Shown(100))
    assert stage.show(0.04, Shown(104, score=0.5)) == {1: 104}
    assert stage.show(0.2, Shown(108, score=0.5)) == {1: 108}
    assert stage.detected == [0]
    stage.show(0.24, Shown(112, score=0.49))
    assert stage.detected == [0, 0.24]


def test_a_face_that_nothing_sees_stays_for_a_tenth_of_a_second_at_its_last_place() -> None:
    stage = Stage(every=0.9)
    stage.show(0, Shown(100))
    assert stage.show(0.04) == {1: 100}
    assert stage.show(0.1) == {1: 100}
    assert stage.detected == [0]
    assert stage.show(0.14) == {}
    assert stage.detected == [0, 0.14]


def test_a_search_for_a_lost_face_comes_a_tenth_of_a_second_after_the_last_at_the_soonest() -> None:
    stage = Stage(every=0.9)
    stage.show(0, Shown(100), Shown(300, who=1))
    stage.show(0.04, Shown(100))
    stage.show(0.08, Shown(100))
    stage.show(0.1, Shown(100))
    assert stage.detected == [0]
    stage.show(0.12, Shown(100))
    assert stage.detected == [0, 0.12]
    for time in (0.16, 0.2, 0.5):
        stage.show(time, Shown(100))  # the other one is gone: nothing more is searched for out of turn
    assert stage.detected == [0, 0.12, 0.5]  # after 0.3 seconds without a frame
    for time in (0.54, 0.58, 0.6):
        stage.show(time)
    assert stage.detected == [0, 0.12, 0.5]
    stage.show(0.62)
    assert stage.detected == [0, 0.12, 0.5, 0.62]


def test_detections_come_in_turn_though_a_frame_is_a_millisecond_early() -> None:
    stage = Stage()
    for time in (0, 0.2, 0.397, 0.399, 0.6, 0.799, 1.0, 1.199):
        stage.show(time, Shown(100))
    assert stage.detected == [0, 0.399, 0.799, 1.199]


def test_after_more_than_a_quarter_of_a_second_without_a_frame_there_is_a_detection() -> None:
    stage = Stage(every=0.9)
    for time in (0, 0.25, 0.5, 0.625, 0.876):
        stage.show(time, Shown(100))
    assert stage.detected == [0, 0.876]


def test_a_face_that_the_detector_misses_stays_for_eight_tenths_of_a_second() -> None:
    stage = Stage()
    stage.show(0, Shown(100))
    for tenth in range(2, 16, 2):
        assert stage.show(tenth / 10, Shown(100, found=False)) == ({1: 100} if tenth < 12 else {})
    assert stage.show(1.6, Shown(100)) == {1: 100}


def test_a_face_that_the_detector_finds_again_was_not_missed() -> None:
    stage = Stage()
    stage.show(0, Shown(100))
    for tenth in range(2, 40, 2):
        assert stage.show(tenth / 10, Shown(100, found=tenth % 8 == 0)) == {1: 100}


def test_a_new_face_has_a_number_where_o_net_is_sure_and_else_at_the_next_detection() -> None:
    stage = Stage()
    here = Shown(100)
    stage.show(0, here)
    assert stage.show(0.2, here, Shown(300, who=1)) == {1: 100}  # not searched for yet
    assert stage.show(0.4, here, Shown(300, who=1, score=0.89), Shown(500, who=2, score=0.9)) == {1: 100, 2: 500}
    assert stage.show(0.6, here, Shown(300, who=1, score=0.89), Shown(500, who=2)) == {1: 100, 2: 500}
    assert stage.show(0.8, here, Shown(300, who=1, score=0.89), Shown(500, who=2)) == {1: 100, 2: 500, 3: 300}


def test_new_faces_are_numbered_from_the_surest_down() -> None:
    shown = Shown(100, score=0.95), Shown(300, who=1, score=0.91), Shown(500, who=2, score=0.99)
    assert Stage().show(0, *shown) == {1: 500, 2: 100, 3: 300}


def test_a_new_face_has_its_number_once_o_net_is_sure_between_detections() -> None:
    stage = Stage()
    stage.show(0, Shown(100))
    stage.show(0.2, Shown(100))
    assert stage.show(0.4, Shown(100), Shown(300, who=1, score=0.89)) == {1: 100}
    assert stage.show(0.44, Shown(100), Shown(300, who=1, score=0.9)) == {1: 100, 2: 300}


def test_a_face_that_o_net_does_not_see_has_the_detectors_score_and_number_at_once() -> None:
    stage = Stage()
    stage.show(0, Shown(100))
    assert stage.show(0.4, Shown(100), Shown(300, who=1, score=0.49)) == {1: 100, 2: 300}
    found = stage.update().detections
    assert found.scores.tolist() == pytest.approx([0.99, 0.7])
    assert np.isnan(found.landmarks).all(axis=(1, 2)).tolist() == [False, True]


def test_a_doubtful_face_that_was_never_sure_uses_up_no_number() -> None:
    stage = Stage()
    stage.show(0, Shown(100))
    stage.show(0.2, Shown(100))
    stage.show(0.4, Shown(100), Shown(300, who=1, score=0.6))
    for time in (0.5, 0.6, 0.7, 0.8):
        assert stage.show(time, Shown(100)) == {1: 100}
    assert stage.show(1.2, Shown(100), Shown(500, who=2)) == {1: 100, 2: 500}


@pytest.mark.parametrize(("back", "number"), [(3.4, 1), (3.41, 2)])
def test_a_face_is_remembered_for_two_seconds_and_the_time_between_detections(back: float, number: int) -> None:
    stage = Stage()
    for frame in range(6):
        stage.show(frame / 5, Shown(100))
    for time in (1.2, 1.4, 1.6, 1.8, 2.0, 2.2, 2.4, 2.6, 2.78, 2.95, 3.1, 3.3):
        assert stage.show(time) == {}
    assert stage.show(back, Shown(100)) == {number: 100}
    assert stage.detected[-2:] == [2.95, back]


@pytest.mark.parametrize(("away", "number"), [(4, 1), (5, 2)])
def test_at_a_frame_a_second_a_face_is_remembered_for_two_seconds_and_two_frames(away: int, number: int) -> None:
    stage = Stage()
    stage.show(0, Shown(100))
    for second in range(1, away):
        assert stage.show(second) == {}
    assert stage.show(away, Shown(100)) == {number: 100}


@pytest.mark.parametrize(
    ("later", "again"),
    [
        (Shown(100 + 295), True),  # five of its sizes in a second
        (Shown(100 + 310), False),
        (Shown(300, side=88), True),  # larger by less than half
        (Shown(300, side=94), False),
        (Shown(300, side=42), True),
        (Shown(300, side=38), False),
        (Shown(300, who=1), False),
        (Shown(300, light=0.8), True),
        (Shown(300, light=0.6), False),
        (Shown(115, who=1), True),  # at its old place it is the same, whatever it looks like
    ],
)
def test_a_face_elsewhere_is_known_by_way_size_look_and_shade(later: Shown, again: bool) -> None:
    stage = Stage()
    stage.show(0, Shown(100))
    assert stage.show(1, later) == {1 if again else 2: pytest.approx(later.x)}


def test_a_face_is_known_by_the_look_of_the_last_detection() -> None:
    stage = Stage()
    for second, light in enumerate((1, 0.85, 0.72, 0.61)):  # all in all by more than its shade may differ
        x = 300 if second % 2 else 100  # not where it would be by its pace
        assert stage.show(second, Shown(x, light=light)) == {1: x}


@pytest.mark.parametrize("hidden", [Shown(20, who=1), Shown(620, who=1), Shown(320, 20, who=1), Shown(320, 220, who=1)])
def test_a_face_that_the_frame_cuts_is_known_by_the_look_that_it_had_in_full(hidden: Shown) -> None:
    stage = Stage()
    stage.show(0, replace(hidden, x=min(max(hidden.x, 40), 600), y=min(max(hidden.y, 40), 200), who=0))
    assert list(stage.show(0.2, hidden)) == [1]
    assert list(stage.show(0.4, hidden)) == [1]  # in the detection it looks like another
    assert stage.show(2.4, Shown(320)) == {1: 320}


def test_a_face_that_another_covers_is_known_by_the_look_that_it_had_in_full() -> None:
    stage = Stage()
    stage.show(0, Shown(100), Shown(400, who=2))
    assert stage.show(1, Shown(100, who=1), Shown(150, who=2)) == {1: 100, 2: 150}
    assert stage.show(3, Shown(300), Shown(150, who=2)) == {1: 300, 2: 150}


def test_a_face_goes_five_of_its_sizes_at_most_however_long_it_was_away() -> None:
    for far, number in ((295, 1), (310, 2)):
        stage = Stage()
        stage.show(0, Shown(100))
        stage.show(1)
        assert stage.show(2, Shown(100 + far)) == {number: 100 + far}


def test_of_two_faces_that_are_back_each_has_the_number_of_the_one_that_it_looks_like() -> None:
    stage = Stage()
    assert stage.show(0, Shown(200), Shown(320, who=1)) == {1: 200, 2: 320}
    stage.show(1)
    assert stage.show(2, Shown(420), Shown(100, who=1)) == {1: 420, 2: 100}


def test_of_two_that_look_the_same_each_is_the_one_that_was_nearer() -> None:
    stage = Stage()
    assert stage.show(0, Shown(150), Shown(300)) == {1: 150, 2: 300}
    assert stage.show(1, Shown(190), Shown(340)) == {1: 190, 2: 340}


def test_a_face_that_passes_behind_something_is_looked_for_by_its_pace() -> None:
    stage = Stage()
    for frame in range(51):
        assert stage.show(frame / 25, Shown(100 + 2 * frame)) == {1: pytest.approx(100 + 2 * frame)}
    stage.show(2.04, Shown(194))  # something covers its front, so that the rest seems to go back
    stage.show(2.2)
    # At 50 pixels a second it would be at 234; what stands there is the same face, whatever its look.
    assert stage.show(2.84, Shown(239, who=1)) == {1: 239}


def test_a_face_that_stood_still_is_not_looked_for_further_on() -> None:
    stage = Stage()
    for frame in range(52):
        stage.show(frame / 25, Shown(194))
    stage.show(2.2)
    assert stage.show(2.84, Shown(239, who=1)) == {2: 239}


def test_a_face_that_starts_to_run_is_looked_for_by_its_speed_of_the_last_frames() -> None:
    stage = Stage(every=0.9)
    for frame, x in enumerate([100] * 10 + [130, 180, 230, 280]):  # its half is 30
        assert stage.show(frame / 25, Shown(x)) == {1: x}
    assert stage.detected == [0]


def test_a_face_that_stops_is_looked_for_near_where_it_stopped() -> None:
    stage = Stage(every=0.9)
    for frame, x in enumerate([100] * 10 + [130] * 5):
        assert stage.show(frame / 25, Shown(x)) == {1: x}
    assert stage.detected == [0]


@pytest.mark.parametrize(("x", "number"), [(220, 1), (240, 2)])
def test_of_two_that_meet_in_one_face_it_is_the_one_whose_way_led_there(x: float, number: int) -> None:
    stage = Stage(every=0.9)
    for frame in range(11):
        stage.show(frame / 25, Shown(100 + 10 * frame), Shown(250, who=1))
    assert stage.show(11 / 25, Shown(x, who=number - 1)) == {number: x}  # the first would be at 210, the second at 250


@pytest.mark.parametrize(("side", "number"), [(SIDE, 2), (80, 1)])
def test_of_two_that_meet_in_one_face_it_is_the_one_of_its_size(side: int, number: int) -> None:
    stage = Stage(every=0.9)
    for frame in range(11):
        stage.show(frame / 25, Shown(100 + 10 * frame, side=80), Shown(225, who=1))
    assert stage.show(11 / 25, Shown(214, side=side, who=number - 1)) == {number: 214}


def test_where_two_boxes_overlap_by_more_than_half_there_is_one_face() -> None:
    stage = Stage()
    assert stage.show(0, Shown(100), Shown(118)) == {1: 100}  # of 60: (60 - 18) / (60 + 18) is more than a half
    stage = Stage()
    assert stage.show(0, Shown(100), Shown(122)) == {1: 100, 2: 122}


def test_what_the_last_detection_left_out_is_told_until_the_next() -> None:
    stage = Stage()
    for faces in ((Shown(100),), ()):
        stage.left_out = 7
        stage.time += 10
        stage.faces = faces
        assert stage.update().detections.more == 7
        stage.left_out = 3
        stage.time += 0.04
        assert stage.update().detections.more == 7
        stage.time += 0.4
        assert stage.update().detections.more == 3


def test_frames_without_a_time_are_taken_for_twenty_five_a_second() -> None:
    stage = Stage()
    stage.faces = (Shown(100),)
    calls = []
    for _ in range(31):
        before = len(stage.detected)
        stage.tracker.update(stage.picture())
        calls.append(len(stage.detected) - before)
    assert np.flatnonzero(calls).tolist() == [0, 10, 20, 30]


@pytest.mark.parametrize(
    ("x", "y", "followed"),
    [(1, 120, True), (-1, 120, False), (638, 120, True), (640, 120, False), (300, 1, True), (300, 240, False)],
)
def test_a_face_is_followed_until_its_middle_leaves_the_picture(x: float, y: float, followed: bool) -> None:
    stage = Stage(every=0.9)
    stage.show(0, Shown(min(max(x, 15), WIDTH - 15), min(max(y, 15), HEIGHT - 15)))
    stage.show(0.2, Shown(x, y))
    assert stage.detected == ([0] if followed else [0, 0.2])
