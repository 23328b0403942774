"""Videos made for a test: frames that can be told apart, in any container and codec that FFmpeg writes."""

from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

WIDTH, HEIGHT = 96, 64


def drawn(count: int, width: int = WIDTH, height: int = HEIGHT) -> list[np.ndarray]:
    """Grey frames, the first dark and each a little brighter; top left red, top right green, bottom left blue."""
    frames = []
    for number in range(count):
        frame = np.full((height, width, 3), 40 + number * 180 // max(count, 2), np.uint8)
        frame[: height // 4, : width // 4] = 250, 10, 20
        frame[: height // 4, -width // 4 :] = 10, 240, 30
        frame[-height // 4 :, : width // 4] = 30, 20, 230
        frames.append(frame)
    return frames


def number_of(frame: np.ndarray, count: int) -> int:
    """Which of `count` drawn frames this is."""
    height, width = frame.shape[:2]
    grey = float(frame[height * 3 // 8 : height * 5 // 8, width * 3 // 8 : width * 5 // 8].mean())
    return round((grey - 40) * max(count, 2) / 180)


def write_video(
    path: Path,
    frames: Iterable[np.ndarray],
    *,
    codec: str = "libx264",
    pixels: str = "yuv420p",
    rate: int = 25,
    times: Sequence[float] | None = None,
    sound: bool = False,
    container: str | None = None,
    aspect: Fraction | None = None,
    options: dict[str, str] | None = None,
) -> Path:
    """times: seconds of each frame where they are not evenly spaced. sound: a second of silence goes with it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(f"file:{path}", "w", format=container) as file:
        stream: Any = file.add_stream(codec, rate=rate, options=options or {})
        audio: Any = file.add_stream("aac" if path.suffix == ".mp4" else "pcm_s16le", rate=48000) if sound else None
        for number, image in enumerate(frames):
            if number == 0:
                stream.height, stream.width = image.shape[:2]
                stream.pix_fmt = pixels
                if times:
                    stream.codec_context.time_base = Fraction(1, 1000)
                if aspect:
                    stream.codec_context.sample_aspect_ratio = aspect
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts = round(times[number] * 1000) if times else number
            frame.time_base = Fraction(1, 1000) if times else Fraction(1, rate)
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
        if audio:
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            silence.sample_rate = 48000
            for number in range(47):
                silence.pts = number * 1024
                file.mux(audio.encode(silence))
            file.mux(audio.encode(None))
    return path
