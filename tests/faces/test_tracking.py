"""Faces that go about, cross, leave, come back and are cut away keep their numbers, and detections stay few."""

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import pytest
from helpers.films import Walk, crossing, film, leaving, score, staying
from helpers.portraits import SIZE, background, moved, put

from pipeline.faces.boxes import iou
from pipeline.faces.detector import Detections, Detector, build_detector
from pipeline.faces.landmarks import Landmarker
from pipeline.faces.tracking import Tracked, Tracker

EVERY = 0.4
INTERVAL = 10  # frames, at 25 a second
PLACE = (240, 160)


class Counted:
    """A detector whose calls are counted, by the number of the frame."""

    def __init__(self, detector: Detector) -> None:
        self.detector = detector
        self.calls = 0

    def detect(self, images: Sequence[np.ndarray]) -> list[Detections]:
        self.calls += 1
        return self.detector.detect(images)


class Given:
    """A detector that finds the same boxes everywhere."""

    def __init__(self, *boxes: tuple[float, ...]) -> None:
        self.boxes = np.array(boxes, np.float32).reshape(-1, 4)

    def detect(self, images: Sequence[np.ndarray]) -> list[Detections]:
        count = len(self.boxes)
        found = Detections(self.boxes, np.full(count, 0.6, np.float32), np.full((count, 5, 2), np.nan, np.float32))
        return [found] * len(images)


@pytest.fixture(scope="module")
def detector() -> Detector:
    return build_detector("mtcnn", min_face=40, threads=1)


@pytest.fixture(scope="module")
def landmarker() -> Landmarker:
    return Landmarker()


def follow(
    detector: Detector, landmarker: Landmarker, frames: Iterable[np.ndarray], *, every: float = EVERY, rate: float = 25
) -> tuple[list[Tracked], list[int]]:
    """What is tracked in the frames, and the frames in which there was a detection."""
    counted = Counted(detector)
    tracker = Tracker(counted, landmarker, every=every)
    tracked, detected = [], []
    for number, frame in enumerate(frames):
        before = counted.calls
        tracked.append(tracker.update(frame, number / rate))
        assert counted.calls - before <= 1
        detected += [number] * (counted.calls - before)
    return tracked, detected


def ids(tracked: Sequence[Tracked]) -> list[list[int]]:
    return [each.ids.tolist() for each in tracked]


def centres(tracked: Tracked) -> dict[int, float]:
    """x of each face's centre."""
    boxes = tracked.detections.boxes
    return dict(zip(tracked.ids.tolist(), ((boxes[:, 0] + boxes[:, 2]) / 2).tolist(), strict=True))


def test_a_face_that_goes_about_is_followed_closely(detector: Detector, landmarker: Landmarker) -> None:
    frames = [frame for frame, _ in moved(60)]
    tracked, detected = follow(detector, landmarker, frames)
    assert ids(tracked) == [[1]] * 60
    assert detected == [0, 10, 20, 30, 40, 50]
    for number in range(5, 60, 9):
        (known,) = detector.detect([frames[number]])
        assert iou(known.boxes, tracked[number].detections.boxes)[0, 0] > 0.7
        eyes = np.linalg.norm(known.landmarks[0, 1] - known.landmarks[0, 0])
        apart = np.linalg.norm(known.landmarks[0] - tracked[number].detections.landmarks[0], axis=1)
        assert apart.mean() < 0.1 * eyes
        assert tracked[number].detections.scores[0] > 0.8


def test_the_same_frames_give_the_same(detector: Detector, landmarker: Landmarker) -> None:
    frames = [frame for frame, _ in moved(25)]
    first, second = follow(detector, landmarker, frames)[0], follow(detector, landmarker, frames)[0]
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one.detections.boxes, other.detections.boxes)
        np.testing.assert_array_equal(one.detections.landmarks, other.detections.landmarks)
        np.testing.assert_array_equal(one.ids, other.ids)


@pytest.mark.parametrize("speed", [4, 8])
@pytest.mark.parametrize("later_in_front", [True, False])
def test_faces_that_cross_keep_their_numbers(
    speed: int, later_in_front: bool, detector: Detector, landmarker: Landmarker
) -> None:
    def crossing() -> Iterator[np.ndarray]:
        for t in range(int(320 / speed)):
            places = [(80 + t * speed, 155, False), (400 - t * speed, 165, True)]
            frame = background()
            for x, y, pale in places if later_in_front else places[::-1]:
                frame = put(frame, x, y, 140, pale=pale)
            yield frame

    tracked, _ = follow(detector, landmarker, crossing())
    start, end = centres(tracked[0]), centres(tracked[-1])
    to_the_right, to_the_left = (min(start, key=start.__getitem__), max(start, key=start.__getitem__))
    assert sorted(end) == [1, 2]
    assert end[to_the_right] > 350
    assert end[to_the_left] < 130


def gone(frames: int, *, before: int = 15, after: int = 30) -> Iterator[np.ndarray]:
    """One face that stays, and one that is gone for some frames."""
    scene = put(background(), 110, 160)
    for number in range(before + frames + after):
        yield put(scene, 360, 160, pale=True) if not before <= number < before + frames else scene


def test_a_face_that_is_back_soon_has_its_number(detector: Detector, landmarker: Landmarker) -> None:
    tracked, detected = follow(detector, landmarker, gone(20))
    assert ids(tracked)[14] == [1, 2]
    assert len(ids(tracked)[20]) == 1
    assert ids(tracked)[-1] == [1, 2]
    assert centres(tracked[-1]) == pytest.approx(centres(tracked[14]), abs=8)
    # One detection when it was lost, the others in their turn.
    assert len(detected) <= 1 + -(-65 // INTERVAL)


def test_a_face_that_is_back_after_five_thirds_of_a_second_has_its_number(
    detector: Detector, landmarker: Landmarker
) -> None:
    tracked, _ = follow(detector, landmarker, gone(10, before=6, after=6), rate=6)
    assert ids(tracked)[-1] == ids(tracked)[5] == [1, 2]


def test_a_face_that_is_back_late_has_a_new_number(detector: Detector, landmarker: Landmarker) -> None:
    tracked, _ = follow(detector, landmarker, gone(20), rate=6)
    assert ids(tracked)[14] == [1, 2]
    assert max(ids(tracked)[-1]) == 3
    assert len(ids(tracked)[-1]) == 2


def test_a_lost_face_is_looked_for_at_once_and_then_in_turn(detector: Detector, landmarker: Landmarker) -> None:
    frames = [put(background(), *PLACE)] * 15 + [background()] * 40
    tracked, detected = follow(detector, landmarker, frames)
    assert detected[:3] == [0, 10, 15]
    assert detected[3:] == [25, 35, 45]
    assert ids(tracked)[16:] == [[]] * 39


def test_another_scene_has_other_faces_from_its_first_frame(detector: Detector, landmarker: Landmarker) -> None:
    one, other = put(background(0), *PLACE), put(background(7)[::-1], 250, 165, 170, pale=True)
    tracked, detected = follow(detector, landmarker, [one] * 14 + [other] * 14)
    assert ids(tracked) == [[1]] * 14 + [[2]] * 14
    assert detected == [0, 10, 14, 24]


def test_light_and_noise_are_no_other_scene(detector: Detector, landmarker: Landmarker) -> None:
    scene = put(background(), *PLACE).astype(float)
    random = np.random.default_rng(0)
    frames = [
        (scene * light + random.normal(0, 6, scene.shape)).clip(0, 255).astype(np.uint8)
        for light in (1, 1, 0.5, 0.5, 1.2, 1, 0.6, 1, 1, 1)
    ]
    tracked, detected = follow(detector, landmarker, frames)
    assert ids(tracked) == [[1]] * 10
    assert detected == [0]
    plain = [(random.normal(60, 4, (*SIZE, 3))).astype(np.uint8) for _ in range(8)]
    assert follow(detector, landmarker, plain)[1] == [0]


def test_what_o_net_does_not_see_is_held_between_detections(landmarker: Landmarker) -> None:
    """Faces from the side, say, that another detector finds."""
    box = (100, 90, 180, 190)
    tracked, detected = follow(Given(box), landmarker, [background()] * 30)
    assert ids(tracked) == [[1]] * 30
    assert detected == list(range(0, 30, 3))
    for each in tracked:
        np.testing.assert_array_equal(each.detections.boxes, [box])
        np.testing.assert_allclose(each.detections.scores, [0.6])
        assert np.isnan(each.detections.landmarks).all()


def test_boxes_without_landmarks_become_o_nets(landmarker: Landmarker, detector: Detector) -> None:
    frame = put(background(), *PLACE)
    (known,) = detector.detect([frame])
    left, top, right, bottom = known.boxes[0]
    wider = Given((left - 15, top - 5, right + 10, bottom + 20))
    tracked, _ = follow(wider, landmarker, [frame] * 12)
    boxes = np.stack([each.detections.boxes[0] for each in tracked])
    assert np.abs(boxes - boxes[0]).max() < 8  # frames with a detection do not stand out
    assert (iou(boxes, known.boxes) > 0.75).all()
    assert not any(np.isnan(each.detections.landmarks).any() for each in tracked)


def test_two_boxes_on_one_face_are_one(landmarker: Landmarker, detector: Detector) -> None:
    frame = put(background(), *PLACE)
    box = detector.detect([frame])[0].boxes[0]
    tracked, _ = follow(Given(tuple(box), tuple(box + 9), tuple(box - 8)), landmarker, [frame] * 25)
    assert ids(tracked) == [[1]] * 25


def test_a_face_that_leaves_the_frame_is_clipped_and_then_gone(detector: Detector, landmarker: Landmarker) -> None:
    frames = [put(background(), 400 + 5 * t, 160) for t in range(45)]
    tracked, _ = follow(detector, landmarker, frames)
    assert ids(tracked)[0] == [1]
    assert ids(tracked)[-1] == []
    for each in tracked:
        assert (each.detections.boxes >= 0).all()
        assert (each.detections.boxes <= [SIZE[1] - 1, SIZE[0] - 1] * 2).all()
    assert any((each.detections.boxes[:, 2] == SIZE[1] - 1).any() for each in tracked)


def test_another_size_of_frames_begins_anew(detector: Detector, landmarker: Landmarker) -> None:
    frame = put(background(), *PLACE)
    tracked, detected = follow(detector, landmarker, [frame] * 3 + [np.ascontiguousarray(frame[:, 60:])] * 3)
    assert ids(tracked) == [[1]] * 3 + [[2]] * 3
    assert detected == [0, 3]


def test_detection_in_every_frame_is_the_detectors_own(detector: Detector, landmarker: Landmarker) -> None:
    frames = [frame for frame, _ in moved(8)]
    tracked, detected = follow(detector, landmarker, frames, every=0)
    assert detected == list(range(8))
    assert ids(tracked) == [[1]] * 8
    for frame, each in zip(frames, tracked, strict=True):
        np.testing.assert_allclose(each.detections.boxes, detector.detect([frame])[0].boxes, atol=1e-4)


def test_images_that_are_faces_are_faces_in_every_frame(landmarker: Landmarker) -> None:
    frames = [frame for frame, _ in moved(5)]
    tracked, _ = follow(build_detector("none"), landmarker, frames)
    assert ids(tracked)[0] == [1]
    tracker = Tracker(build_detector("none"), every=0.4)
    for frame in frames:
        each = tracker.update(frame)
        assert each.ids.tolist() == [1]
        assert each.detections.boxes.tolist() == [[0, 0, SIZE[1] - 1, SIZE[0] - 1]]


def test_a_face_in_view_for_eight_seconds_at_one_frame_a_second_is_found_at_once(
    detector: Detector, landmarker: Landmarker
) -> None:
    frames = [put(background(), 230 + 6 * t, 160) if 11 <= t <= 18 else background() for t in range(24)]
    tracked, detected = follow(detector, landmarker, frames, rate=1)
    assert ids(tracked) == [[]] * 11 + [[1]] * 8 + [[]] * 5
    assert detected == list(range(24))


@pytest.mark.parametrize("rate", [60, 25, 5, 2])
def test_searches_are_as_far_apart_in_time_at_any_rate(rate: int, detector: Detector, landmarker: Landmarker) -> None:
    scene = put(background(), *PLACE)
    _, detected = follow(detector, landmarker, [scene] * (2 * rate + 1), rate=rate)
    apart = np.diff(detected) / rate
    assert apart.min() >= min(EVERY, 1 / rate) - 1e-6
    assert apart.max() <= max(EVERY, 1 / rate) + 1 / rate


def test_a_gap_is_counted_in_time(detector: Detector, landmarker: Landmarker) -> None:
    """One that is gone for a second is the same whatever the rate; one that is gone for four is not."""
    for rate in (4, 12):
        soon, _ = follow(detector, landmarker, gone(rate, before=rate, after=2 * rate), rate=rate)
        assert ids(soon)[-1] == [1, 2]
        late, _ = follow(detector, landmarker, gone(4 * rate, before=rate, after=2 * rate), rate=rate)
        assert ids(late)[-1] == [1, 3]


@pytest.mark.parametrize(
    "show",
    [
        (staying, 6, 1, 8),
        (staying, 3, 12, 3),
        (leaving, 2, 12, 7),
        (crossing, 2, 12, 8),
        (crossing, 3, 1, 14),
        (leaving, 6, 1, 14),
    ],
)
def test_people_keep_their_numbers_as_they_cross_leave_and_return(
    show: tuple[Callable[[int], list[Walk]], int, float, float], detector: Detector, landmarker: Landmarker
) -> None:
    walks, people, rate, seconds = show
    frames = list(film(walks(people), seconds=seconds, rate=rate))
    tracker = Tracker(detector, landmarker)
    result = score(frames, [tracker.update(frame.image, frame.time) for frame in frames])
    assert result.switches == 0
    assert result.numbers == people
    assert result.missed <= 0.05 * result.seen


def test_refuses_what_is_no_frame_and_no_interval(detector: Detector) -> None:
    for every in (-0.1, 1, 10, float("nan")):  # whole ones are frames to whoever knew it so
        with pytest.raises(ValueError, match="seconds from 0 to less than 1"):
            Tracker(detector, every=every)
    with pytest.raises(ValueError, match="image 0"):
        Tracker(detector).update(np.zeros((40, 40), np.uint8))
