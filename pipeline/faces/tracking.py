"""Following faces from frame to frame: a full detection now and then, and between detections two small nets a face."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import cv2
import numpy as np

from pipeline.faces.detector import Detections, Detector, WholeImage, check_images
from pipeline.faces.landmarks import Landmarker
from pipeline.faces.mtcnn import suppress

EVERY = 10  # frames from one detection to the next: a new face is seen within 0.4 s at 25 frames a second
FRAME_TIME = 1 / 25  # seconds, of frames that do not tell their time
SEEN = 0.5  # O-Net's score of a face that is still there; on what is none it mostly gives less than 0.1
HOLD = 2  # frames that a face stays at its last place when O-Net does not see it
MISSES = 3  # detections in a row that do not find a face which O-Net sees, until it is gone
RETURN = 1.5  # seconds within which a face that is found again is the same: one away, and the wait for a detection
SAME = 0.3  # overlap of a face with what it was before
BACK = 0.2  # overlap of a face that comes back with where it was, or would be by now
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


@dataclass(eq=False)
class Track:
    """One face as it was last seen: frame and time, box (4,) that is not clipped, landmarks (5, 2).

    speed: (2,) pixels a frame, of the last frames; pace: of the last second or so. misses: detections in a row that did
    not find it.
    """

    id: int
    box: np.ndarray
    score: float
    landmarks: np.ndarray
    frame: int
    time: float
    speed: np.ndarray = field(default_factory=lambda: np.zeros(2))
    pace: np.ndarray = field(default_factory=lambda: np.zeros(2))
    misses: int = 0

    def expected(self, frame: int) -> np.ndarray:
        """Its box in a later frame if it goes on as it was.

        When it has not been seen for long, then by its pace: what passes before a face holds back the part of it that
        is still seen.
        """
        frames = frame - self.frame
        return self.box + np.tile(self.speed if frames <= HOLD + 1 else self.pace, 2) * frames

    def deviation(self, box: np.ndarray, frame: int) -> float:
        """How far a box is from the expected one: centre and size, relative to the size."""
        expected = self.expected(frame)
        shift = np.abs(_centre(box) - _centre(expected)).max() / _size(expected)
        return float(shift + abs(np.log(_size(box) / _size(expected))))

    def move(self, box: np.ndarray, score: float, landmarks: np.ndarray, frame: int, time: float) -> None:
        """See it again."""
        if frame > self.frame:  # a detection looks at what was followed already
            speed = (_centre(box) - _centre(self.box)) / (frame - self.frame)
            self.speed = self.speed + (speed - self.speed) / 2
            self.pace = self.pace + (speed - self.pace) / 10
        self.box, self.score, self.landmarks, self.frame, self.time = box, score, landmarks, frame, time


class Tracker:
    """Numbers the faces of one moving picture; not for several threads at once.

    A full detection runs in every `every`-th frame, when the scene changes, and when a face is lost, though then never
    within HOLD frames of the last one. In the other frames each face is looked for by R-Net and O-Net about the place
    where it should be by its speed. In all of them O-Net gives box, score and landmarks, so that these do not jump
    from a detector's to O-Net's; only a face that O-Net does not see is reported as the detector has it, or for HOLD
    frames as it was last. With every=1, and for images that are taken for faces, all is the detector's.

    The same frames give the same faces and numbers, however fast they come.
    """

    def __init__(self, detector: Detector, landmarker: Landmarker | None = None, *, every: int = EVERY) -> None:
        if every < 1:
            raise ValueError(f"every {every} where at least 1 was expected")
        self._detector = detector
        self._every = 1 if isinstance(detector, WholeImage) else every
        self._landmarker = (landmarker or Landmarker()) if self._every > 1 else None
        self._tracks: list[Track] = []  # of faces that are there
        self._gone: list[Track] = []  # of faces that may come back
        self._count = 0
        self._frame = -1
        self._detected = 0  # frame of the last detection
        self._shape: tuple[int, ...] = ()
        self._thumbnail = np.zeros(0)

    def update(self, image: np.ndarray, time: float | None = None) -> Tracked:
        """The faces in the next frame, (H, W, 3) uint8 RGB. time: its seconds, not less than the last one's.

        Frames that do not tell their time are taken for 25 a second.
        """
        check_images([image])
        self._frame += 1
        now = self._frame * FRAME_TIME if time is None else time
        if self._is_other_scene(image):
            self._tracks, self._gone = [], []
            due = True
        else:
            self._gone = [track for track in self._gone if now - track.time <= RETURN]
            due = self._frame - self._detected >= self._every
        if self._landmarker:
            lost = self._follow(image, now)
            due |= lost and self._frame - self._detected > HOLD
        if due:
            self._detect(image, now)
            self._detected = self._frame
        self._lose(track for track in self._tracks if self._frame - track.frame > HOLD)
        return self._tracked(image)

    def _is_other_scene(self, image: np.ndarray) -> bool:
        """Whether a cut, or the start, lies between the last frame and this one."""
        shape, thumbnail = self._shape, self._thumbnail
        self._shape = image.shape
        step = max(1, min(image.shape[:2]) // (4 * THUMBNAIL))  # reading every pixel would take longer than following
        small = cv2.resize(np.ascontiguousarray(image[::step, ::step, 1]), (THUMBNAIL, THUMBNAIL),
                           interpolation=cv2.INTER_AREA).astype(np.float64)
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
        expected = np.stack([track.expected(self._frame) for track in self._tracks])
        boxes, scores, landmarks = self._landmarker.refine(image, expected)
        seen = (scores >= SEEN) & _inside(boxes, image)
        # Of two that meet in one face, it is the one's whose way led there.
        deviations = [track.deviation(box, self._frame) for track, box in zip(self._tracks, boxes, strict=True)]
        strays = set()
        taken: list[int] = []
        for index in sorted(np.flatnonzero(seen), key=lambda index: deviations[index]):
            if taken and overlaps(boxes[index:index + 1], boxes[taken]).max() > ONE_FACE:
                strays.add(index)
            else:
                taken.append(int(index))
                self._tracks[index].move(boxes[index], float(scores[index]), landmarks[index], self._frame, now)
        self._lose([self._tracks[index] for index in strays])
        return not seen.all() or bool(strays)

    def _detect(self, image: np.ndarray, now: float) -> None:
        """Find all faces and tell which ones they are."""
        boxes, scores, landmarks = self._found(image)
        free = set(range(len(boxes)))

        def see(track: Track, index: int) -> None:
            free.remove(index)
            track.misses = 0
            track.move(boxes[index], float(scores[index]), landmarks[index], self._frame, now)

        there = _pairs(self._tracks, boxes, free, self._frame, SAME)
        for track, index in there:
            see(track, index)
        back = _pairs(self._gone, boxes, free, self._frame, BACK)
        for track, index in back:
            see(track, index)
        missed = [track for track in self._tracks if track not in [found for found, _ in there]]
        for track in missed:
            track.misses += 1
        self._lose([track for track in missed if track.misses >= MISSES or track.frame < self._frame])
        for track, _ in back:
            self._gone.remove(track)
            self._tracks.append(track)
        for index in sorted(free, key=lambda index: (-scores[index], index)):
            present = [track.box for track in self._tracks]
            if not present or overlaps(boxes[index:index + 1], np.stack(present)).max() <= ONE_FACE:
                self._count += 1
                self._tracks.append(
                    Track(self._count, boxes[index], float(scores[index]), landmarks[index], self._frame, now)
                )

    def _found(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Boxes (n, 4), scores (n,) and landmarks (n, 5, 2) of the detector's faces, by O-Net where it sees them."""
        (found,) = self._detector.detect([image])
        boxes, scores, landmarks = found.boxes.astype(np.float64), found.scores, found.landmarks.astype(np.float64)
        if self._landmarker and len(found):
            closer, sure, points = self._landmarker.refine(image, boxes)
            seen = sure >= SEEN
            boxes = np.where(seen[:, None], closer, boxes)
            scores = np.where(seen, sure, scores)
            landmarks = np.where(seen[:, None, None], points, landmarks)
        kept = suppress(np.zeros(len(boxes), np.intp), boxes, scores, ONE_FACE)
        return boxes[kept], scores[kept], landmarks[kept]

    def _lose(self, tracks: Iterable[Track]) -> None:
        for track in list(tracks):
            self._tracks.remove(track)
            self._gone.append(track)

    def _tracked(self, image: np.ndarray) -> Tracked:
        tracks = sorted(self._tracks, key=lambda track: track.id)
        if not tracks:
            return Tracked(Detections.none(), np.empty(0, np.int64))
        height, width = image.shape[:2]
        boxes = np.stack([track.box for track in tracks]).clip(0, [width - 1, height - 1] * 2)
        return Tracked(
            Detections(boxes.astype(np.float32), np.array([track.score for track in tracks], np.float32),
                       np.stack([track.landmarks for track in tracks]).astype(np.float32)),
            np.array([track.id for track in tracks], np.int64),
        )  # fmt: skip


def _pairs(tracks: list[Track], boxes: np.ndarray, free: set[int], frame: int, least: float
           ) -> list[tuple[Track, int]]:
    """Tracks and the free ones of the boxes (n, 4) that are theirs: those that overlap most first, none by less.

    What a box must overlap is where the track was, or where it should be by now.
    """
    candidates = []
    for track in tracks:
        places = np.stack([track.box, track.expected(frame)])
        candidates += [(float(overlaps(places, boxes[index:index + 1]).max()), track, index) for index in sorted(free)]
    candidates.sort(key=lambda candidate: (-candidate[0], candidate[1].id, candidate[2]))
    pairs: list[tuple[Track, int]] = []
    for overlap, track, index in candidates:
        if overlap >= least and all(track is not other and index != taken for other, taken in pairs):
            pairs.append((track, index))
    return pairs


def overlaps(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union of every box (n, 4) with every other (m, 4): (n, m)."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    shared = (high - low).clip(0).prod(axis=2)
    area, other = ((array[:, 2:] - array[:, :2]).prod(axis=1) for array in (boxes, others))
    return np.asarray(shared / np.maximum(area[:, None] + other - shared, np.finfo(np.float64).tiny))


def _inside(boxes: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Whether the boxes' centres are in the image."""
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    return ((centres >= 0) & (centres < [image.shape[1], image.shape[0]])).all(axis=1)


def _centre(box: np.ndarray) -> np.ndarray:
    return (box[:2] + box[2:]) / 2


def _size(box: np.ndarray) -> float:
    return float(max(box[2:] - box[:2])) + 1
