"""Readings drawn over a moving picture: an MP4 that every player opens, with the sound of its source."""

import os
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np

from pipeline.base.atomic import atomic_file
from pipeline.base.console import log, printable
from pipeline.base.errors import InputError
from pipeline.media.frames import Frame
from pipeline.media.sinks.audio import AudioTrack
from pipeline.media.sinks.sink import Sink
from pipeline.readings import Reading

if TYPE_CHECKING:
    import av

    from pipeline.drawing.overlay import Overlay

SUFFIXES = (".mp4", ".m4v")
TIME_BASE = Fraction(1, 90_000)  # MPEG's clock: the frames of every usual rate fall on its ticks
LONE_FRAME = TIME_BASE.denominator // 25  # ticks that the only frame of a video is shown for
QUALITY = 20  # of x264's constant rate factor, where 18 can hardly be told from the original and 23 is usual
KEY_FRAMES = 60  # frames between two that can be jumped to


class AnnotatedVideo(Sink):
    """Every frame, with its reading drawn over it, as a video at `path`.

    source: the video file that the frames are from: its sound is kept. None for a camera or stream, which has none.
    Nobody knows when these end, so that whatever ends them keeps the video up to there. Raises InputError when `path`
    does not end in one of SUFFIXES, or is the source itself.
    """

    def __init__(self, path: Path, overlay: "Overlay", source: Path | None) -> None:
        if path.suffix.lower() not in SUFFIXES:
            raise InputError(
                f"{printable(path)}: videos are written as MP4; give a name that ends in {' or '.join(SUFFIXES)}"
            )
        if source and path.exists() and path.samefile(source):
            raise InputError(f"{printable(path)}: is the very video that is read; give the annotated one another name")
        self.path = path
        self.overlay = overlay
        self.source = source

    def __enter__(self) -> Self:
        super().__enter__()
        self.file = self.stack.enter_context(VideoWriter(self.path, self.source))
        return self

    def write(self, frame: Frame, reading: Reading) -> None:
        if frame.time is None:
            raise InputError(
                f"{printable(self.path)}: {printable(frame.name)} is a picture without a time, which no video "
                "can be made of; give the name of a folder"
            )
        self.file.write(self.overlay.draw(frame.image, reading), frame.time, first=frame.index == 0)


class VideoWriter:
    """An MP4 of H.264 (yuv420p) being written, inside a with block; frames keep their times, to 1/90000 s.

    It appears when the block ends without an error, if there was a frame. Without a source it also does so otherwise,
    with all that was written before.
    """

    def __init__(self, path: Path, source: Path | None) -> None:
        self.path = path
        self.source = source
        self.frames = 0
        self.tick = 0  # time of the latest frame, in TIME_BASE
        self.late = 0  # frames that were not later than the one before
        self.refitted = False
        self.broken = False
        self.pending: av.VideoFrame | None = None  # lasts until the next one, so it waits for that
        self.duration = LONE_FRAME
        self.audio: AudioTrack | None = None

    def __enter__(self) -> Self:
        import av

        self.stack = ExitStack()
        self.file = self.stack.enter_context(atomic_file(self.path))
        # By its name, not as a file object: to put the index in front, the muxer reads again what it wrote. Of a live
        # source fragments are written, which can be played although the end is missing; the muxer joins them then.
        flags = "+faststart" if self.source else "+hybrid_fragmented+frag_keyframe"
        self.container = av.open(self.file.name, "w", format="mp4", options={"movflags": flags})
        return self

    @property
    def seconds(self) -> float:
        """The video's length up to the latest frame."""
        return self.tick * float(TIME_BASE)

    def write(self, image: np.ndarray, time: float, *, first: bool = False) -> None:
        """Add a frame (H, W, 3) uint8 RGB that comes `time` seconds after the source's start.

        The first frame written is the video's start, unless it is also the `first` of its source and keeps the
        distance that it has from the sound. Frames of another size than the first are fitted into that.
        """
        try:
            with self._naming_the_file():
                self._write(image, time, first)
        except Exception:  # after an interruption by the keyboard the video can still be finished
            self.broken = True
            raise

    def _write(self, image: np.ndarray, time: float, first: bool) -> None:
        if self.frames == 0:
            self.start = 0.0 if first and self.source else time
            self._open_streams(image.shape[0], image.shape[1])
        tick = round((time - self.start) / TIME_BASE)
        if self.frames and tick <= self.tick:
            self.late += 1
            tick = self.tick + 1
        before, self.pending = self.pending, None
        if before is not None:
            self.duration = tick - self.tick
            self._encode(before)
        self.pending = self._picture(image)
        self.pending.pts = self.tick = tick
        self.frames += 1

    def _open_streams(self, height: int, width: int) -> None:
        import av
        from av.codec.context import Flags
        from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc

        self.height, self.width = height + height % 2, width + width % 2  # H.264's colours come in blocks of 2x2
        self.stream = self.container.add_stream("libx264", rate=30, options={"preset": "veryfast", "crf": str(QUALITY)})
        context = self.stream.codec_context
        context.width, context.height, context.pix_fmt = self.width, self.height, "yuv420p"
        context.time_base = TIME_BASE
        context.gop_size = KEY_FRAMES
        context.max_b_frames = 0  # in the order of their times, as that is where MP4 has the durations of frames from
        context.flags |= Flags.frame_duration
        # Said, not left to the player, which may take small pictures for BT.601 and large ones for BT.709.
        context.colorspace = Colorspace.ITU709
        context.color_primaries, context.color_trc = ColorPrimaries.BT709, ColorTrc.BT709
        context.color_range = ColorRange.MPEG
        self.reformatter = av.video.reformatter.VideoReformatter()
        if self.source:
            self.audio = AudioTrack.open(self.source, self.container, self.start)
        if self.audio:
            self.stack.callback(self.audio.close)

    def _picture(self, image: np.ndarray) -> "av.VideoFrame":
        import av
        from av.video.reformatter import ColorRange, Colorspace

        frame = av.VideoFrame.from_ndarray(self._fitted(image), "rgb24")
        frame = self.reformatter.reformat(
            frame,
            format="yuv420p",
            src_color_range=ColorRange.JPEG,
            dst_color_range=ColorRange.MPEG,
            dst_colorspace=Colorspace.ITU709,
        )
        frame.time_base = TIME_BASE
        return frame

    def _fitted(self, image: np.ndarray) -> np.ndarray:
        """The image on the video's size: its last row and column doubled, or scaled into a black frame."""
        missing_height, missing_width = self.height - image.shape[0], self.width - image.shape[1]
        if missing_height == missing_width == 0:
            return np.ascontiguousarray(image)
        if missing_height in (0, 1) and missing_width in (0, 1):
            return np.pad(image, ((0, missing_height), (0, missing_width), (0, 0)), "edge")
        import cv2

        if not self.refitted:
            log.warning(
                "%s: the picture's size changed to %dx%d; it is fitted into %dx%d from there on",
                printable(self.path),
                image.shape[1],
                image.shape[0],
                self.width,
                self.height,
            )
            self.refitted = True
        scale = min(self.height / image.shape[0], self.width / image.shape[1])
        height, width = max(1, int(image.shape[0] * scale)), max(1, int(image.shape[1] * scale))
        top, left = (self.height - height) // 2, (self.width - width) // 2
        whole = np.zeros((self.height, self.width, 3), np.uint8)
        whole[top : top + height, left : left + width] = cv2.resize(image, (width, height))
        return whole

    def _encode(self, picture: "av.VideoFrame") -> None:
        """Encode the picture of time `tick`, and the sound up to it."""
        picture.duration = self.duration
        self.container.mux(self.stream.encode(picture))
        if self.audio:
            self.audio.write_until(self.seconds)

    @contextmanager
    def _naming_the_file(self) -> Iterator[None]:
        """Turn FFmpeg's errors of the disk into ones that name the video."""
        import av

        try:
            yield
        except av.FFmpegError as error:
            if not isinstance(error, OSError):
                raise
            # FFmpeg's own cannot be given a name.
            raise OSError(error.errno, error.strerror, str(self.path)) from None

    def _finish(self) -> None:
        if self.pending is not None:
            self._encode(self.pending)
        self.container.mux(self.stream.encode(None))
        if self.audio:
            self.audio.finish(self.seconds, (self.tick + self.duration) * float(TIME_BASE))
        self.container.close()
        if self.late:
            log.warning(
                "%s: %d frames were not later than the one before, and are shown right after it",
                printable(self.path),
                self.late,
            )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self.broken or not self.frames or (kind and self.source):
                with suppress(Exception):  # the error that is on its way tells more
                    self.container.close()
            else:
                with self._naming_the_file():
                    self._finish()
        except BaseException as failure:
            self.broken = True
            self._settle(failure)
            raise
        self._settle(error)

    def _settle(self, error: BaseException | None) -> None:
        """Let the file appear or, after an error, vanish."""
        if not self.frames:
            error = error or InputError("no frame")
        elif error and self.source is None:
            whole = _end_of_fragments(Path(self.file.name)) if self.broken else os.stat(self.file.name).st_size
            if whole:
                os.truncate(self.file.name, whole)
                log.warning("%s: keeps the frames up to here", printable(self.path))
                error = None
        self.stack.__exit__(type(error) if error else None, error, error.__traceback__ if error else None)


def _end_of_fragments(path: Path) -> int:
    """Bytes up to where an MP4 that was not finished holds whole fragments; 0 where there is none.

    A box begins with its size, 32 bits or, where these say 1, 64 bits behind its four-letter type (ISO/IEC 14496-12).
    """
    size = path.stat().st_size
    end = start = 0
    with open(path, "rb") as file:
        while len(header := file.read(16)) >= 8:
            length, kind = struct.unpack_from(">I4s", header)
            if length == 1 and len(header) == 16:
                (length,) = struct.unpack_from(">Q", header, 8)
            start += length
            if length < 8 or start > size:
                break
            if kind == b"mdat" or (kind == b"moov" and end):
                end = start
            file.seek(start)
    return end
