"""A reader that needs no model, and pictures and videos for it."""

import io
from collections.abc import Sequence
from dataclasses import replace

import av
import numpy as np
from PIL import Image

from pipeline.media.frames import Frame
from pipeline.readings import FaceReading, Reading


def jpeg(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=90)
    return file.getvalue()


def video(frames: int, size: tuple[int, int] = (320, 240), level: int = 128, rate: int = 20) -> bytes:
    """An MP4 of so many grey frames (H.264)."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=rate, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        image = np.full((size[1], size[0], 3), level, np.uint8)
        for _ in range(frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
        container.mux(stream.encode(None))
    return file.getvalue()


class BrightnessReader:
    """Finds two faces, the larger one on the right, in every picture that is not dark."""

    def __init__(self) -> None:
        self.sizes: list[tuple[int, int]] = []

    def read(self, frames: Sequence[Frame]) -> list[Reading]:
        return [self.read_frame(frame) for frame in frames]

    def read_frame(self, frame: Frame) -> Reading:
        height, width = frame.image.shape[:2]
        self.sizes.append((width, height))
        faces = (
            FaceReading(
                (0.5 * width, 0.2 * height, 0.9 * width, 0.9 * height), 1.0, {}, {"happy": 0.93, "sad": 0.07}, "found"
            ),
            FaceReading(
                (0.1 * width, 0.4 * height, 0.3 * width, 0.7 * height),
                1.0,
                {},
                {"happy": 0.4, "sad": 0.45},
                "found",
                uncertain=True,
                conditions=("tiny", "turned"),
            ),
        )
        return Reading(frame.name, width, height, faces if frame.image.mean() > 50 else ())

    def session(self) -> "BrightnessSession":
        return BrightnessSession(self)


class BrightnessSession:
    def __init__(self, reader: BrightnessReader) -> None:
        self.reader = reader

    def read(self, frame: Frame, *, explain: bool = False) -> Reading:
        assert not explain
        reading = self.reader.read_frame(frame)
        faces = tuple(replace(face, track=number) for number, face in enumerate(reading.faces, 1))
        return replace(reading, faces=faces)
