"""Following faces from frame to frame: a full detection now and then, and between detections two small nets a face."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import cv2
import numpy as np

from pipeline.faces.boxes import centres, clip, iou, nms, sides
from pipeline.faces.detector import Detections, Detector, WholeImage, check_images
from pipeline.faces.landmarks import Landmarker

# All times are in seconds, so that a video of one frame a second is followed as one of sixty is.
EVERY = 0.4  # from one detection to the next: a new face is seen within that time
MAX_EVERY = 1.0  # every is less: what was once said in whole frames is then never taken for seconds
FRAME_TIME = 1 / 25  # of frames that do not tell their time
ROUNDING = 0.002  # of times: Matroska states them in milliseconds
MIN_SCORE = 0.5  # O-Net's score of a face that is still there; on what is none it mostly gives less than 0.1
MAX_LOST_FRAMES = 0.1  # for which a face stays at its last place when O-Net does not see it
MISSED = 0.8  # for which detections do not find a face that O-Net sees, until it is gone
AWAY = 2.0  # for which a face may be gone, beside the wait for two frames or a detection, and still be the same
FOLLOWED = 0.25  # between two frames, over which a face is found by detection, not looked for where it should be
REACH, MAX_REACH = 5.0, 5.0  # sizes of itself that a face may have gone a second, and in all
RESIZED = 1.5  # factor by which it may have become larger or smaller then
ALIKE = 0.7  # correlation of its look with what it was then
SHADE = 0.3  # by which the logarithm of its colours may differ from what it was then
LOOK = 8  # side of its look, in pixels
SURE = 0.9  # O-Net's score of a new face that it has a number for at once; one less sure waits for the next detection
SPEED_TIME, PACE_TIME = 0.06, 0.38  # until a change of speed has shown by 1 - 1/e in a track's speed and pace
MATCH_IOU = 0.3  # overlap of a face that was followed with where it is
REAPPEAR_IOU = 0.2  # overlap of a face that was not followed with where it was, or would be by now
ONE_FACE = 0.5  # overlap over which two faces are the same one
CUT = 0.4  # correlation of two successive frames under which they show different scenes
THUMBNAIL = 32  # side of what that is told by, in pixels


@dataclass(frozen=True, eq=False)
class Tracked:
    """The n faces in a frame, and the number of each, (n,) int, by which they are ordered.

    A number stays with a face from frame to frame; they count from 1, and none is given twice.
    """

    detections: Detections
    ids: np.ndarray


@dataclass(frozen=True, eq=False)
class Look:
    """What is in a box. pattern: (LOOK, LOOK, 3), of mean 0 and variance 1; shade: (3,), log of the middle's colour."""

    pattern: np.ndarray
    shade: np.ndarray

    def alike(self, other: "Look") -> float:
        """Correlation of the patterns."""
        return float((self.pattern * other.pattern).mean())

    def shift(self, other: "Look") -> float:
        """Difference of the shades."""
        return float(np.abs(self.shade - other.shade).max())


@dataclass(eq=False)
class Track:
    """One face as it was last seen: frame and time, box (4,) that is not clipped, landmarks (5, 2).

    look: what the face looked like in the last detection that saw all of it. speed: (2,) pixels a second, of the last
    frames; pace: of the last second or so. missed: time of the first of the detections in a row that did not
    find it. id: 0 of a new one that nobody is sure of yet.
    """

    id: int
    box: np.ndarray
    score: float
    landmarks: np.ndarray
    look: Look
    frame: int
    time: float
    speed: np.ndarray = field(default_factory=lambda: np.zeros(2))
    pace: np.ndarray = field(default_factory=lambda: np.zeros(2))
    missed: float | None = None

    def expected(self, now: float) -> np.ndarray:
        """Its box at a later time if it moves on as it did.

        When it has not been seen for long, then by its pace: what passes before a face holds back the part of it that
        is still seen.
        """
        seconds = now - self.time
        return self.box + np.tile(self.speed if seconds <= MAX_LOST_FRAMES + FRAME_TIME else self.pace, 2) * seconds

    def deviation(self, box: np.ndarray, now: float) -> float:
        """How far a box is from the expected one: centre and size, relative to the size."""
        expected = self.expected(now)
        shift = np.abs(centres(box) - centres(expected)).max() / _size(expected)
        return float(shift + abs(np.log(_size(box) / _size(expected))))

    def move(self, box: np.ndarray, score: float, landmarks: np.ndarray, frame: int, time: float) -> None:
        """See it again."""
        seconds = time - self.time
        if seconds > 0:  # a detection looks at what was followed already
            speed = (centres(box) - centres(self.box)) / seconds
            self.speed = self.speed + (speed - self.speed) * (1 - np.exp(-seconds / SPEED_TIME))
            self.pace = self.pace + (speed - self.pace) * (1 - np.exp(-seconds / PACE_TIME))
        self.box, self.score, self.landmarks, self.frame, self.time = box, score, landmarks, frame, time


class Tracker:
    """Numbers the faces of one moving picture; not for several threads at once.

    A full detection runs every `every` seconds, in frames more than FOLLOWED after the last, when the scene changes,
    and when a face is lost, though then never within MAX_LOST_FRAMES of the last one. In the frames between each face
    is looked for by R-Net and O-Net about the place where it should be by its speed. In all of them O-Net gives box,
    score and landmarks, so that these do not jump from a detector's to O-Net's; only a face that O-Net does not see is
    reported as the detector has it, or for MAX_LOST_FRAMES as it was last. With every=0, and for images that are taken
    for faces, all is the detector's.

    The same frames at the same times give the same faces and numbers, however fast they come.
    """

    def __init__(self, detector: Detector, landmarker: Landmarker | None = None, *, every: float = EVERY) -> None:
        """Raises ValueError unless `every` is at least 0 and less than MAX_EVERY seconds."""
        check_every(every)
        self._detector = detector
        self._every = 0 if isinstance(detector, WholeImage) else every
        self._landmarker = (landmarker or Landmarker()) if self._every > 0 else None
        self._tracks: list[Track] = []  # of faces that are there
        self._gone: list[Track] = []  # of faces that may come back
        self._count = 0
        self._frame = -1
        self._now = 0.0
        self._detected = 0.0  # time of the last detection
        self._more = 0  # faces that the last detection left out
        self._shape: tuple[int, ...] = ()
        self._thumbnail = np.zeros(0)

    def update(self, image: np.ndarray, time: float | None = None) -> Tracked:
        """The faces in the next frame, (H, W, 3) uint8 RGB. time: its seconds, not less than the last one's.

        Frames that do not tell their time are taken for 25 a second.
        """
        check_images([image])
        self._frame += 1
        now = self._frame * FRAME_TIME if time is None else time
        step, self._now = now - self._now, now
        if self._is_other_scene(image):
            self._tracks, self._gone = [], []
            due = start = True
        else:
            start = step > FOLLOWED  # to wait for the next frame would be to wait for long
            away = AWAY + max(self._every, 2 * step) + ROUNDING
            self._gone = [track for track in self._gone if now - track.time <= away]
            due = start or now - self._detected >= self._every - ROUNDING
        if self._landmarker and step <= FOLLOWED:
            lost = self._follow(image, now)
            due |= lost and now - self._detected > MAX_LOST_FRAMES + ROUNDING
        if due:
            self._detect(image, now, at_once=start)
            self._detected = now
        self._lose(track for track in self._tracks if now - track.time > MAX_LOST_FRAMES + ROUNDING)
        return self._tracked(image)

    def _is_other_scene(self, image: np.ndarray) -> bool:
        """Whether a cut, or the start, lies between the last frame and this one."""
        shape, thumbnail = self._shape, self._thumbnail
        self._shape = image.shape
        step = max(1, min(image.shape[:2]) // (4 * THUMBNAIL))  # reading every pixel would take longer than following
        small = cv2.resize(
            np.ascontiguousarray(image[::step, ::step, 1]), (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA
        ).astype(np.float64)
        self._thumbnail = small - small.mean()
        if shape != image.shape:
            return True
        spread = np.linalg.norm(thumbnail) * np.linalg.norm(self._thumbnail)
        # A plain frame is like any other: by its noise it is not told from them.
        return bool((thumbnail * self._thumbnail).sum() < CUT * spread) and bool(spread > 4 * THUMBNAIL**2)

    def _follow(self, image: np.ndarray, now: float) -> bool:
        """Look for every face where it should be. Returns whether one is not seen."""
        if not self._tracks:
            return False
        assert self._landmarker
        expected = np.stack([track.expected(now) for track in self._tracks])
        boxes, scores, landmarks = self._landmarker.refine(image, expected)
        seen = (scores >= MIN_SCORE) & _inside(boxes, image)
        # Of two that meet in one face, it is the one's whose way led there.
        deviations = [track.deviation(box, now) for track, box in zip(self._tracks, boxes, strict=True)]
        strays = set()
        taken: list[int] = []
        for index in sorted(np.flatnonzero(seen), key=lambda index: deviations[index]):
            if taken and iou(boxes[index : index + 1], boxes[taken]).max() > ONE_FACE:
                strays.add(index)
            else:
                taken.append(int(index))
                self._tracks[index].move(boxes[index], float(scores[index]), landmarks[index], self._frame, now)
                if scores[index] >= SURE:
                    self._number(self._tracks[index])
        self._lose([self._tracks[index] for index in strays])
        return not seen.all() or bool(strays)

    def _detect(self, image: np.ndarray, now: float, *, at_once: bool) -> None:
        """Find all faces and tell which ones they are. at_once: new ones have a number, however sure they are."""
        boxes, scores, landmarks, doubtful = self._found(image)
        looks = [_look(image, box) for box in boxes]
        # A face that the frame or another face cuts does not look like itself.
        limits = [0, 0, *image.shape[1::-1]]
        inside = (boxes[:, :2] >= limits[:2]).all(axis=1) & (boxes[:, 2:] < limits[2:]).all(axis=1)
        clear = inside & ((iou(boxes, boxes) > 0).sum(axis=1) == 1)
        free = set(range(len(boxes)))
        there, gone = list(self._tracks), list(self._gone)

        def see(pairs: list[tuple[Track, int]]) -> None:
            for track, index in pairs:
                free.remove(index)
                (there if track in there else gone).remove(track)
                track.missed = None
                track.look = looks[index] if clear[index] else track.look
                track.move(boxes[index], float(scores[index]), landmarks[index], self._frame, now)
                self._number(track)

        # What was followed to this frame lies where a box does; the others are known by their ways and their looks.
        see(_overlapping([track for track in there if track.frame == self._frame], boxes, free))
        see(_returned([track for track in there + gone if track.frame < self._frame], boxes, looks, free, now))
        for track in [track for track in self._gone if track.frame == self._frame]:
            self._gone.remove(track)
            self._tracks.append(track)
        for track in there:
            track.missed = now if track.missed is None else track.missed
            if track.frame < self._frame or now - track.missed >= MISSED - ROUNDING:
                self._lose([track])
        for index in sorted(free):  # the surest first, as they were found
            present = [track.box for track in self._tracks]
            if not present or iou(boxes[index : index + 1], np.stack(present)).max() <= ONE_FACE:
                track = Track(0, boxes[index], float(scores[index]), landmarks[index], looks[index], self._frame, now)
                self._tracks.append(track)
                if at_once or not doubtful[index]:
                    self._number(track)

    def _number(self, track: Track) -> None:
        if track.id == 0:
            self._count += 1
            track.id = self._count

    def _found(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Boxes (n, 4), scores (n,) and landmarks (n, 5, 2) of the detector's faces, by O-Net where it sees them.

        They come by their scores, the best first. The last array (n,) is true where it sees one and is not SURE.
        """
        (found,) = self._detector.detect([image])
        self._more = found.more
        boxes, scores, landmarks = found.boxes.astype(np.float64), found.scores, found.landmarks.astype(np.float64)
        doubtful = np.zeros(len(found), bool)
        if self._landmarker and len(found):
            closer, sure, points = self._landmarker.refine(image, boxes)
            seen = sure >= MIN_SCORE
            doubtful = seen & (sure < SURE)
            boxes = np.where(seen[:, None], closer, boxes)
            scores = np.where(seen, sure, scores)
            landmarks = np.where(seen[:, None, None], points, landmarks)
        kept = nms(np.zeros(len(boxes), np.intp), boxes, scores, ONE_FACE)
        return boxes[kept], scores[kept], landmarks[kept], doubtful[kept]

    def _lose(self, tracks: Iterable[Track]) -> None:
        for track in list(tracks):
            self._tracks.remove(track)
            if track.id:
                self._gone.append(track)

    def _tracked(self, image: np.ndarray) -> Tracked:
        tracks = sorted((track for track in self._tracks if track.id), key=lambda track: track.id)
        if not tracks:
            return Tracked(replace(Detections.none(), more=self._more), np.empty(0, np.int64))
        boxes = clip(np.stack([track.box for track in tracks]), image.shape)
        return Tracked(
            Detections(
                boxes.astype(np.float32),
                np.array([track.score for track in tracks], np.float32),
                np.stack([track.landmarks for track in tracks]).astype(np.float32),
                self._more,
            ),
            np.array([track.id for track in tracks], np.int64),
        )


def check_every(every: float) -> None:
    """Raise ValueError unless `every` is a time from one detection to the next."""
    if not 0 <= every < MAX_EVERY:
        raise ValueError(
            f"every {every:g} where seconds from 0 to less than {MAX_EVERY:g} were expected; "
            "10 frames of a video of 25 a second are 0.4"
        )


def _overlapping(tracks: list[Track], boxes: np.ndarray, free: set[int]) -> list[tuple[Track, int]]:
    """Tracks and the free ones of the boxes (n, 4) that are theirs: those that overlap most first."""
    candidates = []
    for track in tracks:
        overlaps = iou(track.box[None], boxes)[0]
        candidates += [(-float(overlaps[index]), track, index) for index in free if overlaps[index] >= MATCH_IOU]
    return _best(candidates)


def _returned(
    tracks: list[Track], boxes: np.ndarray, looks: list[Look], free: set[int], now: float
) -> list[tuple[Track, int]]:
    """The same of tracks that were last seen some time ago, by where they would be by now and by their looks."""
    candidates = []
    for track in tracks:
        size, seconds = _size(track.box), now - track.time
        places = np.stack([track.box, track.expected(now)])
        overlaps = iou(places, boxes).max(axis=0)
        reach = min(REACH * seconds, MAX_REACH) * size
        for index in sorted(free):
            gaps = np.linalg.norm(centres(boxes[index]) - centres(places), axis=1)
            alike, shift = track.look.alike(looks[index]), track.look.shift(looks[index])
            resized = abs(np.log(_size(boxes[index]) / size))
            walked = gaps[0] <= reach and resized <= np.log(RESIZED) and alike >= ALIKE and shift <= SHADE
            if walked or overlaps[index] >= REAPPEAR_IOU:
                candidates.append((1 - alike + shift + float(gaps.min()) / max(reach, size), track, index))
    return _best(candidates)


def _best(candidates: list[tuple[float, Track, int]]) -> list[tuple[Track, int]]:
    """Pairs of a track and a box, the cheapest first, each track and each box in one at most."""
    pairs: list[tuple[Track, int]] = []
    for _, track, index in sorted(candidates, key=lambda candidate: (candidate[0], candidate[1].id, candidate[2])):
        if all(track is not other and index != taken for other, taken in pairs):
            pairs.append((track, index))
    return pairs


def _look(image: np.ndarray, box: np.ndarray) -> Look:
    centre, side = centres(box), round(_size(box))
    patch = cv2.getRectSubPix(image, (side, side), (float(centre[0]), float(centre[1])))
    small = cv2.resize(patch, (LOOK, LOOK), interpolation=cv2.INTER_AREA).astype(np.float64)
    pattern = small - small.mean()
    middle = small[LOOK // 4 : -LOOK // 4, LOOK // 4 : -LOOK // 4]  # in which there is no background
    return Look(pattern / max(float(pattern.std()), 1.0), np.log1p(middle.mean(axis=(0, 1))))


def _inside(boxes: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Whether the boxes' centres are in the image."""
    found = centres(boxes)
    return np.asarray(((found >= 0) & (found < [image.shape[1], image.shape[0]])).all(axis=1))


def _size(box: np.ndarray) -> float:
    return float(sides(box).max())
