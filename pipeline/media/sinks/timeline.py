"""Who was seen when, and with which expressions, in a memory that does not grow with the time."""

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from pipeline.media.frames import Frame
from pipeline.readings import FaceReading, Reading

MAX_KNOWN = 256  # people kept; of more those seen shortest are only counted
MAX_BINS = 1024  # about a plot's width in pixels; when time goes beyond, each two become one
MAX_NAMES = 8  # of sources kept
HOLD = 2.0  # seconds; of frames that are mostly closer, a longer time without any frame is a gap, not a low frame rate
THUMBNAIL = 96  # pixels
MARGIN = 0.25  # of the box's size, shown around it in a thumbnail


@dataclass(eq=False)
class Person:
    """bins: by number, a (labels + 2,) array: the sums of the probabilities, of the readings, of the uncertain ones.

    thumbnail: (THUMBNAIL, THUMBNAIL, 3) uint8 RGB of the largest box so far, of `area` pixels.
    """

    bins: dict[int, np.ndarray] = field(default_factory=dict)
    thumbnail: np.ndarray | None = None
    area: float = 0

    @property
    def readings(self) -> int:
        return round(sum(sums[-2] for sums in self.bins.values()))


@dataclass(eq=False)
class Timeline:
    """What was seen in frames along one axis: of time, in seconds, or of numbers of images, as `unit` says.

    width: of a bin. names: of the frames' sources, the first few. frames: by bin, how many there were. titles: by bin
    the name of the first image in it. people: by
    source and track; one alone, without either, where faces are not followed. forgotten: people no longer kept.
    """

    unit: str
    width: float
    names: list[str] = field(default_factory=list)
    frames: dict[int, int] = field(default_factory=dict)
    titles: dict[int, str] = field(default_factory=dict)
    people: dict[tuple[str, int | None], Person] = field(default_factory=dict)
    forgotten: int = 0

    def add(self, position: float, frame: Frame, reading: Reading, *, thumbnails: bool) -> None:
        number = int(position // self.width)
        while number - min(self.frames, default=number) >= MAX_BINS:
            self._halve()
            number = int(position // self.width)
        if frame.name not in self.names and len(self.names) < MAX_NAMES:
            self.names.append(frame.name)
        self.frames[number] = self.frames.get(number, 0) + 1
        if self.unit == "image":
            self.titles.setdefault(number, frame.name)
        for face in reading.faces:
            key = ("" if face.track is None else frame.name, face.track)
            person = self.people.setdefault(key, Person())
            values = np.array([*face.probabilities.values(), 1, face.uncertain])
            person.bins[number] = person.bins.get(number, 0) + values
            if thumbnails and face.track is not None:
                _look(person, frame.image, face)
        if len(self.people) > MAX_KNOWN:
            self._forget(number)

    def _halve(self) -> None:
        """Make one bin of each two."""
        self.width *= 2
        self.frames = _paired(self.frames)
        self.titles = {number // 2: name for number, name in sorted(self.titles.items(), reverse=True)}
        for person in self.people.values():
            person.bins = _paired(person.bins)

    def _forget(self, now: int) -> None:
        """Of the people who are not there in the bin `now`, keep the half that was seen longest."""
        gone = [key for key, person in self.people.items() if max(person.bins) < now]
        gone.sort(key=lambda key: -self.people[key].readings)
        for key in gone[len(gone) // 2 :]:
            del self.people[key]
            self.forgotten += 1

    def title(self, position: float) -> str:
        """The name of the image at this position, or of one in the same bin."""
        return self.titles.get(int(position // self.width), "")

    def spans(self) -> dict[int, tuple[float, float]]:
        """Begin and end of each bin that holds frames: it lasts until the next one does, but for at most HOLD."""
        numbers = sorted(self.frames)
        begins = [number * self.width for number in numbers]
        # A video of a frame every ten seconds has no gaps: it is shown by the distances that its frames mostly have.
        usual = float(np.median(np.diff(begins))) if len(begins) > 1 else 0
        hold = max(self.width, HOLD, 2 * usual) if self.unit == "time" else self.width
        ends = [min(after, begin + hold) for begin, after in pairwise(begins)]
        return dict(zip(numbers, zip(begins, [*ends, begins[-1] + self.width], strict=True), strict=True))


def _paired(bins: dict[int, Any]) -> dict[int, Any]:
    halves: dict[int, Any] = {}
    for number, value in bins.items():
        halves[number // 2] = halves.get(number // 2, 0) + value
    return halves


def _look(person: Person, image: np.ndarray, face: FaceReading) -> None:
    """Take a thumbnail where the face is clearly larger than on the one there is."""
    left, top, right, bottom = face.box
    area = (right - left) * (bottom - top)
    if area < 1.2 * person.area or area < 1:
        return
    import cv2

    height, width = image.shape[:2]
    side = max(1, round(min(height, width, max(right - left, bottom - top) * (1 + 2 * MARGIN))))
    x = round(min(max(0.0, (left + right - side) / 2), width - side))
    y = round(min(max(0.0, (top + bottom - side) / 2), height - side))
    person.thumbnail = cv2.resize(
        image[y : y + side, x : x + side], (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA
    )
    person.area = area
