"""predict: find faces and read their expressions, in images, videos, cameras and streams."""

import argparse
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field, fields
from datetime import datetime
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from pipeline.base.console import log, printable, progress_bar
from pipeline.base.errors import InputError, SourceError
from pipeline.base.signals import on_ending
from pipeline.base.threads import map_ahead, poll_while_waiting
from pipeline.drawing.overlay import Overlay, Parts
from pipeline.faces.tracking import EVERY
from pipeline.media.frames import Frame, FrameSource
from pipeline.media.sinks import AnnotatedImages, AnnotatedVideo, Csv, JsonLines, Sink, TextSink, Window, display_fault
from pipeline.media.sinks.timeline_plot import Summary
from pipeline.media.sinks.video import SUFFIXES as VIDEO_SUFFIXES
from pipeline.media.sources import ImageFiles, VideoReader, is_live, open_sources
from pipeline.media.sources.paths import IMAGES, VIDEOS
from pipeline.predictor import NO_FACE, Predictor
from pipeline.readings import Reading
from pipeline.stages.arguments import PREDICTOR_SETTINGS, add_predictor_arguments, build_predictor, interval, positive

# Frames read at once: many small ones, or a single large photo, so that memory stays small.
BATCH_FRAMES = 64
BATCH_PIXELS = 1 << 21
IDLE_SECONDS = 0.05  # between looks at the window's keys while a camera or stream gives no frame
KEPT = Path("results/live")
STANDARD_OUTPUT = Path("-")
STANDARD_OUTPUTS = ("-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1")  # a file that it goes to must not be replaced
PARTS = tuple(part.name for part in fields(Parts) if part.type is bool and part.name != "blur")
# What the environment may give.
SETTINGS = (*PREDICTOR_SETTINGS, "no_face", "rotations", "every", "threads", "window", "draw", "faces", "blur")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help="cam, cam:1 or a device path; an image, folder, glob pattern or list file; a video; an "
        "rtsp:// or http:// stream; - for images on standard input",
    )
    add_predictor_arguments(parser)
    parser.add_argument(
        "--no-face",
        choices=NO_FACE,
        default=NO_FACE[0],
        help="an image without a face: has no reading (none), or is read as a whole (whole; default none)",
    )
    parser.add_argument(
        "--rotations",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="turn an image in which no face is found by one, two and three quarters, and look again; "
        "faces are found upright, give or take 30 degrees; an image with an upright face is not turned",
    )
    parser.add_argument(
        "--every",
        type=interval,
        default=EVERY,
        metavar="SECONDS",
        help="from one search for faces to the next, less than 1; in between they are followed; 0: a "
        f"search in every frame (default {EVERY})",
    )
    parser.add_argument("--threads", type=positive, default=2, help="CPU threads to use (default 2)")
    out = parser.add_argument_group("outputs")
    out.add_argument(
        "--window",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="show what is read (default: for cameras and streams)",
    )
    out.add_argument(
        "--kept",
        type=Path,
        default=KEPT,
        metavar="FOLDER",
        help=f"for the window's snapshots and recordings (default {KEPT})",
    )
    out.add_argument(
        "--json",
        type=_text_output,
        metavar="FILE",
        help="lines of JSON, - for standard output, where they go when neither a file nor the window is asked for",
    )
    out.add_argument("--csv", type=_text_output, metavar="FILE", help="a table, a row a face; - for standard output")
    out.add_argument(
        "--annotated",
        type=Path,
        metavar="FOLDER",
        help="images and videos with the readings drawn; of one video or image also a file, .mp4 or .png",
    )
    out.add_argument(
        "--summary",
        type=Path,
        metavar="FILE",
        help="a plot of expressions over time, a row a person: .png, .pdf or .svg",
    )
    drawn = parser.add_argument_group("what is drawn")
    drawn.add_argument(
        "--draw", nargs="*", choices=PARTS, default=PARTS, metavar="PART", help=f"of {', '.join(PARTS)} (default: all)"
    )
    drawn.add_argument(
        "--faces", choices=("all", "single"), default="all", help="single: the largest face, with a panel (default all)"
    )
    drawn.add_argument("--blur", action=argparse.BooleanOptionalAction, default=False, help="make faces unrecognisable")


def _text_output(text: str) -> Path:
    return STANDARD_OUTPUT if text in STANDARD_OUTPUTS else Path(text)


def run(args: argparse.Namespace) -> None:
    parts = Parts(**{part: part in args.draw for part in PARTS}, faces=args.faces, blur=args.blur)
    outputs = Outputs(args.json, args.csv, args.annotated, args.summary, args.window, args.kept, parts)
    kept = args.kept if args.window or any(map(is_live, args.inputs)) else None
    sources = open_sources(args.inputs, [path for path in (args.annotated, args.summary, kept) if path])
    # However a run is ended, its files are: a camera's whole, the others gone.
    on_ending(signal.default_int_handler)
    # Images are read by several threads at once, frames one after the other by all of them.
    threads = args.threads if any(source.moving for source in sources) else 1
    predictor = build_predictor(args, no_face=args.no_face, rotations=args.rotations, threads=threads)
    predict(sources, predictor, outputs, every=args.every, threads=args.threads)


@dataclass(frozen=True)
class Outputs:
    """Where readings go: files, a folder, None for nowhere; STANDARD_OUTPUT for json and csv.

    json: None for standard output, too, when nothing else is asked for. annotated: of one video or image the file, if
    its suffix is a video's or image's. window: None where cameras and streams shall have one; kept: the folder for what
    is kept there by its keys.
    """

    json: Path | None = None
    csv: Path | None = None
    annotated: Path | None = None
    summary: Path | None = None
    window: bool | None = None
    kept: Path = KEPT
    parts: Parts = field(default_factory=Parts)


@dataclass
class Counts:
    """What has been read so far."""

    frames: int = 0
    faces: int = 0
    without: int = 0
    start: float = field(default_factory=time.perf_counter)

    def add(self, reading: Reading) -> None:
        self.frames += 1
        self.faces += len(reading.faces)
        self.without += not any(face.status == "found" for face in reading.faces)

    def log(self, unit: str, dropped: int) -> None:
        seconds = time.perf_counter() - self.start
        log.info(
            "%s, %s, %s without a face, %.2f s, %.1f %ss/s%s",
            _counted(self.frames, unit),
            _counted(self.faces, "face"),
            _counted(self.without, unit),
            seconds,
            self.frames / seconds,
            unit,
            f", {dropped} older frames dropped to keep up" if dropped else "",
        )


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def predict(
    sources: Sequence[FrameSource], predictor: Predictor, outputs: Outputs, *, every: float = EVERY, threads: int = 2
) -> None:
    """Read every frame of the sources, one source after the other, and write the readings out in their order.

    Frames and whole videos that cannot be read are reported and counted, and the rest are read; InputError at the end
    then says how many they were. What was read of a camera or stream is kept when it is lost or interrupted.
    """
    live = any(source.live for source in sources)
    _check(outputs, sources)
    window = _open_window(outputs, live)
    shared: list[Sink] = [window] if window else []
    if outputs.json or not (window or outputs.csv or outputs.annotated or outputs.summary):
        shared.append(JsonLines(None if outputs.json == STANDARD_OUTPUT else outputs.json, live=live))
    if outputs.csv:
        shared.append(Csv(None if outputs.csv == STANDARD_OUTPUT else outputs.csv, predictor.labels, live=live))
    counts = Counts()
    ended: SourceError | None = None
    lost = 0
    with ExitStack() as stack:
        for sink in shared:
            stack.enter_context(sink)
        for source in sources:
            try:
                with ExitStack() as inner:
                    sinks = shared + [inner.enter_context(sink) for sink in _own_sinks(source, outputs)]
                    ended = _run(source, predictor, sinks, counts, every=every, threads=threads) or ended
            except SourceError as error:
                if len(sources) == 1:
                    raise
                lost += 1
                log.error("error: %s", error)
            if window and window.done:
                break
        if lost and not counts.frames:
            raise InputError(f"none of {_counted(len(sources), 'input')} could be read; each is named above")
    unit = "frame" if any(source.moving for source in sources) else "image"
    if counts.frames:
        counts.log(unit, sum(source.dropped for source in sources))
    if ended:
        raise ended
    failed = sum(source.failed for source in sources)
    if failed or lost:
        parts = [f"{failed} of {_counted(counts.frames + failed, unit)}"] * bool(failed)
        parts += [f"{lost} of {_counted(len(sources), 'input')}"] * bool(lost)
        raise InputError(f"{' and '.join(parts)} could not be read; each is named above")


def _check(outputs: Outputs, sources: Sequence[FrameSource]) -> None:
    """Raise InputError when one file would hold two things, or would take the place of one that is read."""
    single = _annotated_file(outputs, sources)
    files = [path for path in (outputs.json, outputs.csv, outputs.summary, single) if path]
    for number, path in enumerate(files):
        if path.resolve() in [other.resolve() for other in files[:number]]:
            raise InputError(f"{printable(path)}: two outputs would be written here; give each a file of its own")
    if outputs.summary and len(sources) > 1:
        inputs = ", ".join(source.name for source in sources)
        raise InputError(f"{outputs.summary}: a plot is of one input, and these are {len(sources)} ({inputs})")
    names = [_video_name(source) for source in sources if source.moving]
    if outputs.annotated and not single:
        files += [outputs.annotated / name for name in names]
    for path in files:
        if path.is_file() and any(path.samefile(read) for read in _files(sources) if read.exists()):
            raise InputError(f"{printable(path)}: is read, and would be lost; give the output another name")
    twice = next((name for name in names if names.count(name) > 1), None)
    if outputs.annotated and twice and not single:
        raise InputError(f"{outputs.annotated / twice}: two of the videos would be written here; read them one by one")


def _open_window(outputs: Outputs, live: bool) -> Window | None:
    """A window where one is asked for. Raises InputError when it must be and there is no display; told where it may."""
    if not (live if outputs.window is None else outputs.window):
        return None
    fault = display_fault()
    if fault and outputs.window is None:
        log.warning("no window: %s; the readings are written all the same", fault)
        return None
    return Window(outputs.parts, outputs.kept)


def _own_sinks(source: FrameSource, outputs: Outputs) -> list[Sink]:
    """What is written of this source alone."""
    sinks: list[Sink] = []
    overlay = Overlay(outputs.parts, own_size=True)
    single = _annotated_file(outputs, [source])
    if single and source.moving:
        sinks.append(AnnotatedVideo(single, overlay, _file(source)))
    elif outputs.annotated and isinstance(source, ImageFiles):
        sinks.append(AnnotatedImages(outputs.annotated, source.root, overlay, single=bool(single)))
    elif outputs.annotated:
        sinks.append(AnnotatedVideo(outputs.annotated / _video_name(source), overlay, _file(source)))
    if outputs.summary:
        sinks.append(Summary(outputs.summary, outputs.parts))
    return sinks


def _annotated_file(outputs: Outputs, sources: Sequence[FrameSource]) -> Path | None:
    """Where the only video or image is drawn to when a file is asked for, None for a folder. Raises InputError."""
    path = outputs.annotated
    if path is None or path.is_dir() or path.suffix.lower() not in (*IMAGES, *VIDEOS):
        return None
    if path.suffix.lower() not in (*VIDEO_SUFFIXES, ".png"):
        raise InputError(
            f"{printable(path)}: videos are written as .mp4, images as .png; give such a name, or a folder"
        )
    moving = path.suffix.lower() in VIDEO_SUFFIXES
    if len(sources) == 1 and sources[0].moving == moving and (moving or sources[0].total == 1):
        return path
    what = "video" if moving else "image"
    raise InputError(f"{printable(path)}: holds one {what}, and what is read is not one {what}; give a folder")


def _file(source: FrameSource) -> Path | None:
    """The file of a source whose sound is kept."""
    return source.path if isinstance(source, VideoReader) else None


def _files(sources: Sequence[FrameSource]) -> Iterator[Path]:
    for source in sources:
        if isinstance(source, ImageFiles):
            yield from source.paths
        elif isinstance(source, VideoReader):
            yield source.path


def _video_name(source: FrameSource) -> str:
    """A file's own name; of a camera or stream its word, and the time, so that none is written over."""
    if isinstance(source, VideoReader):
        return source.path.with_suffix(".mp4").name
    word = re.sub(r"[^A-Za-z0-9.]+", "-", source.name).strip("-")
    return f"{word}_{datetime.now():%Y-%m-%d_%H-%M-%S}.mp4"


def _run(
    source: FrameSource, predictor: Predictor, sinks: Sequence[Sink], counts: Counts, *, every: float, threads: int
) -> SourceError | None:
    """Give the sinks all frames of a source. Returns what ended a live one, which is over then, and not undone."""
    try:
        with source, _bar(source, sinks) as bar:
            if source.moving:
                read = _follow(predictor, source, every, partial(_idle, sinks))
            else:
                read = _read_images(predictor, source, threads)
            for sink in sinks:
                if isinstance(sink, Window):
                    sink.turn_to(source.name, live=source.live, file=_file(source))
            for frame, reading in read:
                for sink in sinks:
                    sink.write(frame, reading)
                counts.add(reading)
                bar.update()
                if any(sink.done for sink in sinks):
                    break
    except (SourceError, KeyboardInterrupt) as error:
        if not source.live:
            raise
        return error if isinstance(error, SourceError) else None
    return None


def _idle(sinks: Sequence[Sink]) -> bool:
    """What is done while no frame comes. True when a person wants no more."""
    for sink in sinks:
        sink.idle()
    return any(sink.done for sink in sinks)


def _follow(
    predictor: Predictor, source: FrameSource, every: float, meanwhile: Callable[[], bool]
) -> Iterator[tuple[Frame, Reading]]:
    """Every frame of a moving picture with its reading. Those of a file are read ahead, while others are written.

    meanwhile: called while a live one gives no frame; the end when it says True.
    """
    session = predictor.session(every=every)

    def read(frame: Frame) -> tuple[Frame, Reading]:
        return frame, session.read(frame)

    if source.live:
        return map(read, poll_while_waiting(source, IDLE_SECONDS, meanwhile))
    return map_ahead(read, source, threads=1)


def _read_images(predictor: Predictor, source: FrameSource, threads: int) -> Iterator[tuple[Frame, Reading]]:
    """Every image with its reading, in order; batches are read by several threads, a core each."""
    frames = iter(source)
    first = list(islice(frames, 1))  # by itself, so that its line comes soon
    yield from zip(first, predictor.read(first), strict=True)
    for batch, readings in map_ahead(lambda batch: (batch, predictor.read(batch)), _batches(frames), threads):
        yield from zip(batch, readings, strict=True)


def _batches(frames: Iterator[Frame]) -> Iterator[list[Frame]]:
    """Frames in their order, so many at a time as BATCH_FRAMES and BATCH_PIXELS allow, one at least."""
    batch: list[Frame] = []
    pixels = 0
    for frame in frames:
        size = frame.image.shape[0] * frame.image.shape[1]
        if batch and (len(batch) == BATCH_FRAMES or pixels + size > BATCH_PIXELS):
            yield batch
            batch, pixels = [], 0
        batch.append(frame)
        pixels += size
    if batch:
        yield batch


def _bar(source: FrameSource, sinks: Sequence[Sink]) -> AbstractContextManager[Any]:
    """Progress, where the end is known and neither a window nor lines on the same terminal show it anyway."""
    on_terminal = sys.stdout is not None and sys.stdout.isatty()
    shown = any(
        isinstance(sink, Window) or (isinstance(sink, TextSink) and not sink.path and on_terminal) for sink in sinks
    )
    total, unit = None if source.live else source.total, "frames" if source.moving else "images"
    return progress_bar(total, unit, printable(source.name), hidden=shown or not total)
