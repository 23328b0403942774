"""Videos: files and addresses, of any codec that FFmpeg reads."""

import re
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from queue import Empty, Queue
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, Self, TypeVar

import numpy as np

from pipeline.base.console import log, printable
from pipeline.base.errors import SourceError
from pipeline.base.file_kinds import HEAD, kind_of
from pipeline.media.fetch import without_credentials
from pipeline.media.frames import Frame
from pipeline.media.sources import signatures

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

MAX_PIXELS = 1 << 26  # of a frame, 67 megapixels: twice 8K UHD
DECODER_THREADS = 2
FRAMES_AHEAD = 4  # decoded while the one before is worked on
TOLD = 10  # damaged frames that have a line each; the others are only counted
OPEN_SECONDS, READ_SECONDS = 10.0, 10.0  # that an address may take to answer, and between two of its packets
# FFmpeg's demuxers of video files; jpeg_pipe is Motion JPEG's. Playlists are not among them: one sent as a video would
# have FFmpeg open other files.
FILE_FORMATS = (
    "3g2",
    "3gp",
    "apng",
    "asf",
    "avi",
    "av1",
    "dv",
    "flv",
    "gif",
    "h264",
    "hevc",
    "ivf",
    "jpeg_pipe",
    "m4v",
    "matroska",
    "mjpeg",
    "mov",
    "mp4",
    "mpeg",
    "mpegts",
    "mpegvideo",
    "mpjpeg",
    "mxf",
    "nut",
    "obu",
    "ogg",
    "rm",
    "wtv",
    "yuv4mpegpipe",
)
DISPLAY_MATRIX = struct.Struct("=9i")
DURATION = re.compile(r"(?P<hours>[0-9]{1,4}):(?P<minutes>[0-9]{2}):(?P<seconds>[0-9]{2}(?:\.[0-9]{1,9})?)")
NETWORK_PROTOCOLS = "http,https,tls,tcp,udp,rtp,srtp,rtsp,crypto,data,httpproxy"

UNKNOWN = "neither an image nor a video of a known format; is it whole?"

T = TypeVar("T")


class Video:
    """A video's frames, upright, in the shape they are shown in and all of the first one's size, with their times.

    Decoding runs ahead in a thread of its own. Packets that are damaged are counted in `failed`, the first ones told in
    the log, and so is an end before the time that the file states. total: as the file states it, else None.
    """

    moving = True
    live = False
    dropped = 0

    def __init__(self, name: str, location: str, options: dict[str, str]) -> None:
        self.name = name
        self.shown = printable(name)  # in messages, which are one line
        self.location = location
        self.options = options
        self.total: int | None = None
        self.failed = 0

    def cut(self) -> str | None:
        """What the file says of its own length, where there is less of it."""
        return None

    def __enter__(self) -> Self:
        """Raises SourceError when it cannot be opened, has no video, or one that cannot be decoded."""
        self.container = open_container(self.location, self.options, self.shown)
        try:
            self.stream = video_stream(self.container, self.shown)
        except SourceError:
            self.container.close()
            raise
        self.stream.thread_type = "AUTO"
        self.stream.codec_context.thread_count = DECODER_THREADS
        self.total = self.stream.frames or None
        self._running: list[Iterator[Frame]] = []
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for frames in self._running:
            frames.close()  # type: ignore[attr-defined]
        self.container.close()

    def __iter__(self) -> Iterator[Frame]:
        frames = _ahead(self._frames(), FRAMES_AHEAD)
        self._running.append(frames)
        return frames

    def _frames(self) -> Iterator[Frame]:
        convert = UprightRgb(self.shown)
        damage = Damage(self.shown)
        start = (self.container.start_time or 0) / 1_000_000  # AV_TIME_BASE: microseconds
        rate = float(self.stream.average_rate or self.stream.guessed_rate or 25)
        index, at = 0, 0.0
        try:
            for frame in decoded(self.container, self.stream, damage):
                self.failed = damage.count
                # Files without times (raw H.264, MJPEG) are shown at their rate.
                at = max(at, index / rate if frame.time is None else frame.time - start)
                yield Frame(self.name, convert(frame, self.stream), index, at)
                index += 1
        except (SourceError, MemoryError):
            raise
        except (RuntimeError, ValueError) as error:  # what FFmpeg's decoders and scaler raise besides
            damage.add(f"breaks off after {index} frames: {error}")
        except BrokenOffError as broken:
            damage.add(f"breaks off after {index} frames: {broken}")
        self.failed = damage.count
        damage.summarise()
        if index == 0:
            raise SourceError(f"{self.shown}: a video without a single frame that can be read; is it whole?")
        self._tell_early_end(index, at + 1 / rate)

    def _tell_early_end(self, frames: int, end: float) -> None:
        duration = float((self.stream.duration or 0) * (self.stream.time_base or 0)) or self._tagged_duration()
        # Matroska and WebM state a time, but no number of frames: that of the frames read so far is gone on with.
        total = self.total or (round(frames * duration / end) if end else 0)
        what = self.cut()
        if what:
            self.failed = max(self.failed + 1, total - frames)
        elif duration and frames + self.failed < total and end < 0.98 * duration - 0.5:
            self.failed = total - frames
        else:
            return
        log.error(
            "error: %s: ends after %d%s frames, %.1f%s s%s; is it whole?",
            self.shown,
            frames,
            f" of {'' if self.total else 'about '}{total}" if total > frames else "",
            end,
            f" of {duration:.1f}" if duration >= end + 0.1 else "",
            f": {what}" if what else "",
        )

    def _tagged_duration(self) -> float:
        """Seconds, as FFmpeg and mkvmerge write them for each stream of Matroska ("00:01:02.345000000"); else 0."""
        tag = DURATION.fullmatch(self.stream.metadata.get("DURATION", ""))
        return int(tag["hours"]) * 3600 + int(tag["minutes"]) * 60 + float(tag["seconds"]) if tag else 0.0


class VideoReader(Video):
    """A video file. It may name no other file or address: FFmpeg is told to open none."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            str(path),
            f"file:{path}",  # without it a colon in the name would be taken for a protocol
            {"protocol_whitelist": "file", "format_whitelist": ",".join(FILE_FORMATS)},
        )
        self.path = path

    def __enter__(self) -> Self:
        with suppress(OSError):
            if self.path.stat().st_size == 0:
                raise SourceError(f"{self.shown}: an empty file where an image or a video was expected")
            with self.path.open("rb") as file:  # FFmpeg finds pictures in archives and documents, too
                kind = kind_of(file.read(HEAD))
            if kind:
                raise SourceError(f"{self.shown}: {kind} where an image or a video was expected; give what it holds")
        super().__enter__()
        if not signatures.begins_as(self.path, self.container.format.name):
            self.container.close()
            raise SourceError(f"{self.shown}: {UNKNOWN}")
        return self

    def cut(self) -> str | None:
        return signatures.cut(self.path)


class VideoAddress(Video):
    """A video file behind an http(s) address, read as it comes."""

    def __init__(self, url: str) -> None:
        super().__init__(
            without_credentials(url),
            url,
            {"protocol_whitelist": NETWORK_PROTOCOLS, "format_whitelist": ",".join((*FILE_FORMATS, "hls"))},
        )


class BrokenOffError(Exception):
    """Reading failed in the middle, for the reason that the message gives."""


def open_container(location: str, options: dict[str, str], name: str) -> "InputContainer":
    """Open what FFmpeg reads. Raises SourceError, with FFmpeg's reason and without the location."""
    import av

    av.logging.set_level(None)  # FFmpeg's own lines name addresses with their passwords
    remote = not location.startswith("file:")
    if location.lower().startswith("https:"):
        # FFmpeg trusts every server unless it is told not to; whom it may trust is what Python trusts (SSL_CERT_FILE).
        trusted = ssl.get_default_verify_paths().cafile
        options = {**options, "tls_verify": "1", **({"ca_file": trusted} if trusted else {})}
    start = time.monotonic()
    try:
        return av.open(
            location,
            options={**options, "max_pixels": str(MAX_PIXELS)},  # for the frames that FFmpeg looks at here
            timeout=(OPEN_SECONDS, READ_SECONDS) if remote else None,
            metadata_errors="replace",  # titles are in any encoding, and are not needed
        )
    except (av.error.FFmpegError, OSError, ValueError) as error:
        # A time-out comes out as an error of whatever was being read then.
        late = remote and (time.monotonic() - start >= OPEN_SECONDS or isinstance(error, av.error.TimeoutError))
        reason = f"no answer within {OPEN_SECONDS:g} s; is it up, and the address right?" if late else _reason(error)
        raise SourceError(f"{name}: {reason}") from None


def _reason(error: Exception) -> str:
    import av

    if isinstance(error, av.error.HTTPUnauthorizedError):
        return "asks for a user and password; give them as scheme://user:password@host/..."
    if isinstance(error, av.error.EOFError):
        return "a video without a single frame; is it whole?"
    if isinstance(error, av.error.InvalidDataError | av.error.ArgumentError):  # unknown, and not in FILE_FORMATS
        return UNKNOWN
    return f"cannot be opened: {getattr(error, 'strerror', None) or type(error).__name__}"


def video_stream(container: "InputContainer", name: str) -> "VideoStream":
    """The stream to be shown. Raises SourceError when there is none, or none that can be decoded."""
    from av.stream import Disposition

    streams = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
    if not streams:
        held = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
        raise SourceError(f"{name}: no video in it, only {held}; give a video or an image")
    stream = streams[0]
    context = stream.codec_context
    if context is None:
        raise SourceError(f"{name}: its codec is not one that is known here; convert it to H.264 with ffmpeg")
    if context.width * context.height > MAX_PIXELS:
        raise _too_large(name, context.width, context.height)
    context.options = {"max_pixels": str(MAX_PIXELS)}
    return stream


def _too_large(name: str, width: int, height: int) -> SourceError:
    return SourceError(f"{name}: frames of {width}x{height} where at most {MAX_PIXELS} pixels are read; scale it down")


class Damage:
    """Counts what could not be decoded, and tells the first of it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.count = 0

    def add(self, what: str) -> None:
        self.count += 1
        if self.count <= TOLD:
            log.error("error: %s: %s", self.name, what)

    def summarise(self) -> None:
        if self.count > TOLD:
            log.error("error: %s: %d damaged packets in all", self.name, self.count)


def decoded(container: "InputContainer", stream: "VideoStream", damage: Damage) -> Iterator["VideoFrame"]:
    """Frames of a stream; a damaged packet is counted and passed over. Raises BrokenOffError."""
    import av

    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except av.error.FFmpegError as error:
            silent = isinstance(error, av.error.ExitError | av.error.TimeoutError)
            raise BrokenOffError(f"nothing came for {READ_SECONDS:g} s" if silent else error.strerror) from None
        if packet is None:
            return
        try:
            frames = packet.decode()
        except av.error.FFmpegError as error:
            place = f" near {float(packet.pts * packet.time_base):.2f} s" if packet.pts is not None else ""
            damage.add(f"a damaged packet{place}: {error.strerror}")
            continue
        yield from frames


class UprightRgb:
    """Turns decoded frames into (H, W, 3) uint8 RGB: upright, with square pixels, all of the first frame's size."""

    def __init__(self, name: str) -> None:
        from av.video.reformatter import VideoReformatter

        self.name = name
        self.reformatter = VideoReformatter()
        self.size: tuple[int, int] | None = None

    def __call__(self, frame: "VideoFrame", stream: "VideoStream") -> np.ndarray:
        if frame.width * frame.height > MAX_PIXELS:
            raise _too_large(self.name, frame.width, frame.height)
        if self.size is None:
            ratio = float(stream.sample_aspect_ratio or 1)
            width = round(frame.width * ratio) if 0.1 < ratio < 10 else frame.width
            if width * frame.height > MAX_PIXELS:
                raise _too_large(self.name, width, frame.height)
            self.size = width, frame.height
            self.transposed, self.flips = _orientation(frame)
        # One thread: scaling is short, and several would wait for those that decode.
        rgb = self.reformatter.reformat(frame, *self.size, format="rgb24", threads=1).to_ndarray()
        return self._upright(rgb) if self.transposed or self.flips is not None else rgb

    def _upright(self, rgb: np.ndarray) -> np.ndarray:
        import cv2  # numpy takes eight times as long

        if self.transposed:
            rgb = cv2.transpose(rgb)
        return rgb if self.flips is None else cv2.flip(rgb, self.flips)


def _orientation(frame: "VideoFrame") -> tuple[bool, int | None]:
    """How the file says a frame is shown: whether its rows become columns, and OpenCV's flip code after that, or None.

    A display matrix holds a, b, u, c, d, v, x, y, w: what is stored at (p, q) is shown at (ap + cq + x, bp + dq + y)
    (ISO/IEC 14496-12, 6.2.2). Angles between those of a quarter turn are taken for the nearest.
    """
    from av.sidedata.sidedata import Type

    sides: Any = frame.side_data  # whose stub says that it gives names
    matrix = next((bytes(data) for data in sides if data.type == Type.DISPLAYMATRIX), b"")
    if len(matrix) < DISPLAY_MATRIX.size:
        return False, None
    a, b, _, c, d, *_ = DISPLAY_MATRIX.unpack_from(matrix)
    transposed = abs(a) + abs(d) < abs(b) + abs(c)
    mirrored, upside_down = (c < 0, b < 0) if transposed else (a < 0, d < 0)
    return transposed, {(False, False): None, (True, False): 1, (False, True): 0, (True, True): -1}[
        bool(mirrored), bool(upside_down)
    ]


def _ahead(items: Iterator[T], depth: int) -> Iterator[T]:
    """The items, taken from their iterator in a thread, at most `depth` ahead; an error comes out at its place."""
    queue: Queue[Callable[[], T]] = Queue(depth)
    stop = threading.Event()

    def work() -> None:
        try:
            for item in items:
                queue.put(lambda item=item: item)  # type: ignore[misc]
                if stop.is_set():
                    return
        except BaseException as error:
            queue.put(_raises(error))
        else:
            queue.put(_raises(StopIteration()))

    thread = threading.Thread(target=work, name="decoder", daemon=True)
    thread.start()
    try:
        while True:
            try:
                item = queue.get()()
            except StopIteration:
                return
            yield item
    finally:
        stop.set()
        while thread.is_alive():
            with suppress(Empty):
                queue.get(timeout=0.05)
        thread.join()


def _raises(error: BaseException) -> Callable[[], NoReturn]:
    def throw() -> NoReturn:
        raise error

    return throw
