"""The sound of a video file, taken over into the video that is written of it."""

from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Self

from pipeline.base.console import log, printable
from pipeline.base.errors import SourceError
from pipeline.media.sources.video import VideoReader, open_container

if TYPE_CHECKING:
    import av
    from av.container import InputContainer, OutputContainer

    Timed = tuple[float, av.Packet]  # seconds of the new video

# What MP4 holds and its players play: taken over as it is. All else is encoded anew.
KEPT = ("aac", "ac3", "alac", "eac3", "mp3")
BIT_RATE = 96_000  # bits a second and channel of what is encoded anew; AAC then sounds like the original
LEAD = 1.0  # seconds that a file is entered before the sound that is wanted
JUST_AFTER = 0.002  # seconds; some files round the times of frames to milliseconds
RATES = (48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000)  # samples a second that AAC has


class AudioTrack:
    """A video file's sound, written to `output` as far as the picture has come; it is never held as a whole.

    start: seconds into the source from where on the sound is kept; it is the new video's time 0.
    """

    @classmethod
    def open(cls, source: Path, output: "OutputContainer", start: float) -> Self | None:
        """The sound of `source`; None where there is none, or none that this machine reads, which the log tells."""
        import av

        try:
            container = _open(source)
        except SourceError as error:
            log.warning("%s; its sound is left out", error)
            return None
        stream = container.streams.best("audio")
        if isinstance(stream, av.AudioStream) and stream.codec_context is not None:
            return cls(source, container, stream, output, start)
        if container.streams.audio:
            log.warning("%s: its sound is in a form that is not known here, and left out", printable(source))
        container.close()
        return None

    def __init__(
        self,
        source: Path,
        container: "InputContainer",
        stream: "av.AudioStream",
        output: "OutputContainer",
        start: float,
    ) -> None:
        import av

        self.source = source
        self.name = printable(source)
        self.container = container
        self.output = output
        self.start = start
        self.origin = (container.start_time or 0) / av.time_base + start
        if len(container.streams.audio) > 1:
            log.warning("%s: has %d sound tracks, of which one is kept", self.name, len(container.streams.audio))
        codec = stream.codec_context.name
        if codec.removesuffix("float") in KEPT:
            self.track = output.add_stream_from_template(stream)
            self.packets = self._copied(stream)
        else:
            log.info("%s: its %s sound is encoded anew, as AAC", self.name, codec)
            rate = next((rate for rate in RATES if rate <= stream.rate), RATES[-1])
            layout = "mono" if stream.channels == 1 else "stereo"
            self.track = output.add_stream("aac", rate, layout=layout)
            self.track.bit_rate = BIT_RATE * self.track.channels
            self.packets = self._encoded(stream)
        if start > 0:
            # A file is entered at a picture, where the sound may already be further on.
            container.seek(round((self.origin - LEAD) * av.time_base))
        self.waiting: Timed | None = None  # the first packet that the picture has not come to

    def write_until(self, time: float) -> None:
        """Write what is heard before `time`, in seconds of the new video."""
        while True:
            self.waiting = self.waiting or next(self.packets, None)
            if self.waiting is None or self.waiting[0] >= time:
                return
            self.output.mux(self.waiting[1])
            self.waiting = None

    def finish(self, last: float, end: float) -> None:
        """Write what is heard up to `end`, or all that is left where the source has no picture after `last`."""
        self.write_until(end if self._goes_on(last) else inf)

    def _goes_on(self, last: float) -> bool:
        """Whether the source has pictures after the time `last`."""
        import av

        with suppress(av.FFmpegError, SourceError), _open(self.source) as container:
            later = self.origin + last + JUST_AFTER
            container.seek(round((later - LEAD) * av.time_base))
            return any(_seconds(packet) > later for packet in container.demux(container.streams.video[0]))
        return False

    def close(self) -> None:
        self.container.close()

    def _read(self, stream: "av.AudioStream") -> Iterator["av.Packet"]:
        """The source's packets; one that cannot be read is the last."""
        import av

        try:
            yield from self.container.demux(stream)
        except av.FFmpegError as error:
            log.error("error: %s: its sound ends early (%s)", self.name, error.strerror)

    def _copied(self, stream: "av.AudioStream") -> Iterator["Timed"]:
        assert stream.time_base
        origin = round(self.origin / stream.time_base)
        for packet in self._read(stream):
            # The last one is empty. Before the file's own start is what decoders need to begin.
            if packet.pts is None or packet.dts is None:
                continue
            if self.start > 0 and packet.pts + (packet.duration or 0) <= origin:
                continue
            packet.pts -= origin
            packet.dts -= origin
            time = _seconds(packet)
            packet.stream = self.track
            yield time, packet

    def _encoded(self, stream: "av.AudioStream") -> Iterator["Timed"]:
        import av

        damaged = 0
        sample = 0  # number of the next one, for frames that carry no time: some packets hold several
        for packet in self._read(stream):
            try:
                frames = stream.decode(packet)
            except av.FFmpegError:
                damaged += 1
                continue
            for frame in frames:
                if frame.pts is not None and frame.time_base:
                    sample = round((frame.pts * frame.time_base - self.origin) * frame.sample_rate)
                frame.time_base = Fraction(1, frame.sample_rate)
                frame.pts = sample
                sample += frame.samples
                if self.start == 0 or sample > 0:
                    yield from ((_seconds(encoded), encoded) for encoded in self.track.encode(frame))
        yield from ((_seconds(encoded), encoded) for encoded in self.track.encode(None))
        if damaged:
            log.warning("%s: %d damaged packets of sound were left out", self.name, damaged)


def _open(source: Path) -> "InputContainer":
    video = VideoReader(source)
    return open_container(video.location, video.options, video.name)


def _seconds(packet: "av.Packet") -> float:
    return -inf if packet.pts is None or packet.time_base is None else float(packet.pts * packet.time_base)
