"""A picture or video in, the same with its readings drawn and told out."""

import io
import threading
from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import numpy as np

from pipeline.base.console import log
from pipeline.base.errors import SourceError, TooManyPixelsError
from pipeline.bot.texts import LABELS, label_in, say
from pipeline.drawing.overlay import Overlay, Parts
from pipeline.media.frames import Frame
from pipeline.media.reader import Reader
from pipeline.readings import FaceReading, Reading

# core.telegram.org/bots/api: what a bot may fetch (getFile), what it may send (sendPhoto, sendVideo).
FILE_BYTES = 20 << 20
PHOTO_BYTES = 10 << 20
UPLOAD_BYTES = 50 << 20
PHOTO_SIDES = 10_000  # pixels, width and height together
PHOTO_RATIO = 20

IMAGE_PIXELS = 50_000_000
# Images and videos are scaled down to these longer sides, in pixels, before they are read, so that each is read in a
# known time; Telegram itself shows photos at no more than 2560.
IMAGE_SIDE = 2560
VIDEO_SIDE = 1280
VIDEO_SIZE = (4096, 2304)  # pixels
VIDEO_RATE = 60  # frames a second, on average
LINES = 10  # of a video's faces

PARTS = Parts(landmarks=False, bars=False)


class Refusal(Exception):  # noqa: N818 (no error of anybody's)
    """What was sent is not read; `text` names why, among texts.TEXTS, and `values` fill it in."""

    def __init__(self, text: str, **values: object) -> None:
        super().__init__(text)
        self.text = text
        self.values = values


@dataclass(frozen=True)
class Answer:
    """What goes back: a text and, unless there was no face, a file that Telegram takes as this kind."""

    text: str
    kind: Literal["photo", "document", "video"] | None = None
    file: bytes = b""
    name: str = ""
    width: int = 0
    height: int = 0
    duration: int = 0  # seconds, of a video


def answer_image(reader: Reader, data: bytes, language: str) -> Answer:
    """Read an image file. Raises Refusal when it is none, is damaged, or has more than IMAGE_PIXELS."""
    from pipeline.base.image_files import ImageBounds, decode_scaled

    try:
        bounds = ImageBounds(IMAGE_PIXELS, scaled=IMAGE_SIDE**2)
        image = decode_scaled(data, "image", bounds, remark=log.debug).pixels
    except TooManyPixelsError:
        raise Refusal("image_too_large", limit=IMAGE_PIXELS // 1_000_000) from None
    except SourceError:
        raise Refusal("not_an_image") from None
    image = _scaled(image, IMAGE_SIDE)
    (reading,) = reader.read([Frame("image", image)])
    if not reading.faces:
        return Answer(say(language, "no_face"))
    ordered = numbered(reading)
    drawn = Overlay(PARTS, LABELS.get(language, {})).draw(image, ordered)
    lines = [_face_line(language, face) for face in sorted(ordered.faces, key=lambda face: face.track or 0)]
    return _picture_answer(drawn, "\n".join(lines))


def answer_video(reader: Reader, data: bytes, language: str, seconds: int, stop: threading.Event) -> Answer:
    """Read a video file of at most so many seconds; `stop` ends it early.

    Raises Refusal when it is none, is damaged or too long, has too many pixels, or has been stopped.
    """
    from pipeline.media.sinks import AnnotatedVideo
    from pipeline.media.sources import VideoReader

    with TemporaryDirectory(prefix="bot-") as folder:  # FFmpeg finds its way about a file only, not about bytes
        given, drawn = Path(folder, "given"), Path(folder, "drawn.mp4")
        given.write_bytes(data)
        session, overlay = reader.session(), Overlay(PARTS, LABELS.get(language, {}))
        times: dict[int, Counter[str]] = defaultdict(Counter)
        end = 0.0
        try:
            with VideoReader(given) as source, AnnotatedVideo(drawn, overlay, given) as sink:
                if source.stream.width * source.stream.height > VIDEO_SIZE[0] * VIDEO_SIZE[1]:
                    raise Refusal("video_too_large", width=VIDEO_SIZE[0], height=VIDEO_SIZE[1])
                for frame in source:
                    end = frame.time or 0.0
                    if stop.is_set():
                        raise Refusal("stopping")
                    if end > seconds or frame.index >= seconds * VIDEO_RATE:
                        raise Refusal("video_too_long", limit=seconds)
                    scaled = replace(frame, image=_scaled(frame.image, VIDEO_SIDE))
                    reading = session.read(scaled)
                    for face in reading.faces:
                        times[face.track or 0]["" if face.uncertain else face.label] += 1
                    sink.write(scaled, reading)
        except SourceError:
            raise Refusal("not_a_video") from None
        if not times:
            return Answer(say(language, "no_face"))
        if drawn.stat().st_size > UPLOAD_BYTES:
            raise Refusal("answer_too_large", limit=UPLOAD_BYTES >> 20)
        text = "\n".join(_video_lines(language, times))
        return Answer(
            text, "video", drawn.read_bytes(), "expressions.mp4", sink.file.width, sink.file.height, max(1, round(end))
        )


def numbered(reading: Reading) -> Reading:
    """The reading of an image with its faces numbered from left to right, as they are drawn then."""
    faces = list(reading.faces)
    centres = [(face.box[0] + face.box[2], face.box[1] + face.box[3]) for face in faces]
    for number, index in enumerate(sorted(range(len(faces)), key=centres.__getitem__), 1):
        faces[index] = replace(faces[index], track=number)
    return replace(reading, faces=tuple(faces))


def _face_line(language: str, face: FaceReading) -> str:
    reasons = ", ".join(say(language, condition) for condition in face.conditions)
    return say(
        language,
        "uncertain_face" if face.uncertain else "face",
        number=face.track,
        label=label_in(language, face.label),
        percent=f"{face.probabilities[face.label]:.0%}".rstrip("%"),
        conditions=f" – {reasons}" if reasons else "",
    )


def _video_lines(language: str, times: dict[int, Counter[str]]) -> list[str]:
    """A line a face, by its number; frames in which it was uncertain are counted under "". The longest seen count."""
    longest = sorted(times, key=lambda track: -times[track].total())[:LINES]
    lines = []
    for track in sorted(longest):
        ((label, frames),) = times[track].most_common(1)
        percent = round(100 * frames / times[track].total())
        name = "face_in_video" if label else "uncertain_in_video"
        lines.append(say(language, name, number=track, label=label_in(language, label), percent=percent))
    if len(times) > LINES:
        lines.append(say(language, "more_faces", number=len(times) - LINES))
    return lines


def _scaled(image: np.ndarray, side: int) -> np.ndarray:
    """The image with a longer side of at most `side` pixels."""
    import cv2

    height, width = image.shape[:2]
    scale = side / max(height, width)
    if scale >= 1:
        return image
    return cv2.resize(
        image, (max(1, round(width * scale)), max(1, round(height * scale))), interpolation=cv2.INTER_AREA
    )


def _picture_answer(image: np.ndarray, text: str) -> Answer:
    """A JPEG as a photo or, where Telegram would refuse that, as a document."""
    from PIL import Image

    height, width = image.shape[:2]
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=92)
    data = file.getvalue()
    photo = (
        len(data) <= PHOTO_BYTES
        and width + height <= PHOTO_SIDES
        and max(width, height) <= PHOTO_RATIO * min(width, height)
    )
    return Answer(text, "photo" if photo else "document", data, "expressions.jpg", width, height)
