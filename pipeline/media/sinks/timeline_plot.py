"""A picture of how expressions went over time, a row for every person."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import IO, TYPE_CHECKING, Self

import numpy as np

from pipeline.base.atomic import atomic_file
from pipeline.base.errors import InputError
from pipeline.drawing import emoji
from pipeline.drawing.layout import one_line
from pipeline.drawing.overlay import Parts
from pipeline.drawing.palette import colours
from pipeline.media.frames import Frame
from pipeline.media.sinks.sink import Sink
from pipeline.media.sinks.timeline import Timeline
from pipeline.readings import Reading

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SUFFIXES = (".png", ".pdf", ".svg")
MAX_PEOPLE = 8  # that have a row
FIRST_BIN = 1 / 8  # seconds
STEPS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200)  # of the time axis, in seconds

WIDTH, DPI = 12.0, 144  # of the picture in inches; pixels an inch
LEFT, RIGHT = 3.1, 0.35  # of the plots, in inches; on the left stands who it is
HEADER, LEGEND_ROW, ROW, FOOTER = 1.1, 0.42, 1.3, 0.7  # heights in inches
LETTERS = 13  # of an image's name, in an inch
FACE, BADGE = 0.86, 0.27  # sizes in inches of a thumbnail, of an emoji
LEGEND_COLUMNS, LEGEND_TEXT, LABEL = 8, 9.5, 20  # at most; points; letters of a label
LEGEND_MARK, LEGEND_GAP = BADGE + 0.17, 0.12  # widths in inches of emoji and colour, and between labels
INK, FAINT, GROUND = "#22262b", "#5f6773", "#f1f2f5"
PALE, DARK = (1.0, 1.0, 1.0), (0.13, 0.15, 0.17)  # red, green, blue of what lies over uncertain bands and of hatching


class Summary(Sink):
    """A plot at `path`, drawn when all is read: for each person the probabilities over time, a coloured band a label.

    PNG, PDF or SVG, as the suffix says. Raises InputError for another one, and ModuleNotFoundError without Matplotlib.

    The MAX_PEOPLE people that were seen longest have a row each, with their face or, where `parts` blur faces, an
    emoji; the others are counted. Images, in which nobody is followed, have one row: the mean of the faces in each.
    """

    def __init__(self, path: Path, parts: Parts) -> None:
        if path.suffix.lower() not in SUFFIXES:
            raise InputError(f"{one_line(str(path))}: a plot is written as {', '.join(SUFFIXES)}; give it such a name")
        import_module("matplotlib")  # so that a missing one is said now, not when all is read
        self.path = path
        self.parts = parts
        self.labels: tuple[str, ...] = ()
        self.moving, self.still = Timeline("time", FIRST_BIN), Timeline("image", 1)
        self.images = 0

    def __enter__(self) -> Self:
        super().__enter__()
        self.stack.enter_context(self._drawn())
        return self

    def write(self, frame: Frame, reading: Reading) -> None:
        if reading.faces:
            self.labels = tuple(reading.faces[0].probabilities)
        if frame.time is None:
            self.still.add(self.images, frame, reading, thumbnails=False)
            self.images += 1
        else:
            self.moving.add(frame.time, frame, reading, thumbnails=not self.parts.blur)

    @contextmanager
    def _drawn(self) -> Iterator[None]:
        with atomic_file(self.path) as file:
            yield
            timelines = [timeline for timeline in (self.moving, self.still) if timeline.frames]
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Glyph .* missing from font")  # it is drawn as a box
                draw_timelines(file, self.labels, timelines, self.path.suffix.lower().removeprefix("."))


@dataclass(frozen=True, eq=False)
class BinnedTrack:
    """One person along the axis of a timeline, bin by bin where they were seen, in n bins.

    spans: (n, 2) begin and end. means: (n, labels) probabilities. uncertain: (n,) bool, most readings were.
    seconds: seen in all; of images, how many. name, number: of the source and of the track. thumbnail: as Person's.
    """

    name: str
    number: int | None
    thumbnail: np.ndarray | None
    spans: np.ndarray
    means: np.ndarray
    uncertain: np.ndarray
    seconds: float

    @classmethod
    def of(cls, timeline: Timeline, key: tuple[str, int | None]) -> "BinnedTrack":
        person = timeline.people[key]
        spans = timeline.spans()
        numbers = sorted(person.bins)
        sums = np.stack([person.bins[number] for number in numbers])
        begins_ends = np.array([spans[number] for number in numbers])
        present = np.minimum(1, sums[:, -2] / [timeline.frames[number] for number in numbers])
        return cls(
            *key,
            person.thumbnail,
            begins_ends,
            sums[:, :-2] / sums[:, -2:-1],
            sums[:, -1] > sums[:, -2] / 2,
            float(present @ (begins_ends[:, 1] - begins_ends[:, 0])),
        )

    def runs(self, *keys: np.ndarray) -> Iterator[slice]:
        """Bins that follow one another without a gap and have the same of all (n,) `keys`."""
        breaks = ~np.isclose(self.spans[1:, 0], self.spans[:-1, 1])
        for key in keys:
            breaks |= key[1:] != key[:-1]
        for begin, end in pairwise([0, *(np.flatnonzero(breaks) + 1), len(self.spans)]):
            yield slice(int(begin), int(end))


def draw_timelines(file: IO[bytes], labels: tuple[str, ...], timelines: Sequence[Timeline], form: str = "png") -> None:
    """Draw the timelines, one under the other, as a PNG, PDF or SVG."""
    from matplotlib.figure import Figure

    rows = [_longest(timeline) for timeline in timelines]
    columns = _legend_columns(labels)
    top = HEADER + LEGEND_ROW * -(-len(labels) // columns)
    height = top + sum(max(1, len(people)) * ROW + FOOTER for people in rows)
    figure = Figure(figsize=(WIDTH, height), dpi=DPI, facecolor="white")
    page = figure.add_axes((0, 0, 1, 1), xlim=(0, WIDTH), ylim=(height, 0))
    page.axis("off")
    _draw_header(page, labels, columns, timelines)
    for timeline, people in zip(timelines, rows, strict=True):
        keys: Sequence[tuple[str, int | None] | None] = people or [None]
        for key in keys:
            plot = figure.add_axes(
                (LEFT / WIDTH, 1 - (top + ROW - 0.16) / height, (WIDTH - LEFT - RIGHT) / WIDTH, (ROW - 0.5) / height)
            )
            _set_up(plot, timeline, last=key == keys[-1])
            if key is not None:
                track = BinnedTrack.of(timeline, key)
                _draw_person(page, top, labels, timeline, track)
                _draw_bands(plot, labels, timeline, track)
                _draw_badges(page, top, plot, labels, track)
            else:
                plot.text(
                    0.5,
                    0.5,
                    "no face was seen",
                    color=FAINT,
                    fontsize=12,
                    ha="center",
                    va="center",
                    transform=plot.transAxes,
                )
            top += ROW
        _draw_notes(page, top, timeline, people)
        top += FOOTER
    page.set(xlim=(0, WIDTH), ylim=(height, 0), aspect="auto")
    figure.savefig(file, format=form, dpi=DPI)


def _longest(timeline: Timeline) -> list[tuple[str, int | None]]:
    """The people that are drawn, in the order in which they appeared."""
    people = timeline.people
    longest = sorted(people, key=lambda key: -people[key].readings)[:MAX_PEOPLE]
    return sorted(longest, key=lambda key: (min(people[key].bins), key[1] or 0))


def _legend_columns(labels: tuple[str, ...]) -> int:
    """How many labels stand side by side in the legend, so that none runs into the next one."""
    from matplotlib.figure import Figure

    figure = Figure(dpi=DPI)
    texts = [figure.text(0, 0, _cut(label, LABEL), fontsize=LEGEND_TEXT, parse_math=False) for label in labels]
    widest = max((text.get_window_extent().width / DPI for text in texts), default=0)
    return max(1, min(LEGEND_COLUMNS, len(labels), int((WIDTH - LEFT - RIGHT) / (LEGEND_MARK + widest + LEGEND_GAP))))


def _draw_header(page: "Axes", labels: tuple[str, ...], columns: int, timelines: Sequence[Timeline]) -> None:
    told = []
    for timeline in timelines:
        frames = sum(timeline.frames.values())
        if timeline.unit == "time":
            spans = timeline.spans()
            told += [_short(name, 40) for name in timeline.names[:2]]
            told += ["and others"] if len(timeline.names) > 2 else []
            told += [_count(len(timeline.people) + timeline.forgotten, "person", "people")]
            told += [_clock(max(end for _, end in spans.values()) - min(begin for begin, _ in spans.values()))]
            told += [_count(frames, "frame", "frames")]
        else:
            told += [_count(frames, "image", "images")]
    images_only = [timeline.unit for timeline in timelines] == ["image"]
    title = "Expressions, image by image" if images_only else "Expressions over time"
    page.text(0.3, 0.42, title, color=INK, fontsize=19, weight="bold", va="center")
    page.text(0.3, 0.8, "  ·  ".join(told) or "no frames", color=FAINT, fontsize=10.5, va="center", parse_math=False)
    palette = colours(labels)
    column = (WIDTH - LEFT - RIGHT) / columns
    for index, label in enumerate(labels):
        x, y = LEFT + index % columns * column, HEADER + 0.12 + index // columns * LEGEND_ROW
        _draw_emoji(page, emoji.name_of(label), x + BADGE / 2, y, BADGE, faded=False)
        page.plot(
            [x + BADGE + 0.08, x + BADGE + 0.08],
            [y - 0.11, y + 0.11],
            color=palette[label],
            linewidth=5,
            solid_capstyle="butt",
        )
        text = _cut(label, LABEL)
        page.text(x + LEGEND_MARK, y, text, color=INK, fontsize=LEGEND_TEXT, va="center", parse_math=False)


def _set_up(plot: "Axes", timeline: Timeline, *, last: bool) -> None:
    """An empty plot with the timeline's axis, which has numbers under the last row only."""
    spans = timeline.spans()
    begin, end = min(begin for begin, _ in spans.values()), max(end for _, end in spans.values())
    plot.set(xlim=(begin, end), ylim=(0, 1), facecolor=GROUND, yticks=[0, 1], yticklabels=["0", "100%"])
    plot.tick_params(colors=FAINT, labelsize=8, length=3, width=0.6)
    plot.tick_params(axis="y", labelsize=6.5, length=0)
    plot.spines[:].set_visible(False)
    if timeline.unit == "time":
        step = next((step for step in STEPS if (end - begin) / step <= 7), 4 * STEPS[-1])
        ticks = np.arange(np.ceil(begin / step) * step, end + 1e-9, step)
        plot.set_xticks(ticks, [_clock(tick, step) for tick in ticks] if last else [])
    else:
        bins = round((end - begin) / timeline.width)
        step = round(timeline.width) * max(1, round(bins / 12))  # a number is that of the image whose name is below
        numbers = np.arange(0, round(end), step)
        letters = int((WIDTH - LEFT - RIGHT) / len(numbers) * LETTERS)
        names = [f"{number + 1}\n{_short(Path(timeline.title(int(number))).name, letters)}" for number in numbers]
        plot.set_xticks(numbers + 0.5, names if last else [], parse_math=False)


def _draw_person(page: "Axes", top: float, labels: tuple[str, ...], timeline: Timeline, track: BinnedTrack) -> None:
    """Who it is, when they were seen and what they showed most."""
    from matplotlib.patches import FancyBboxPatch

    mean = track.means.mean(axis=0)
    mostly = labels[int(mean.argmax())]
    middle = top + ROW / 2 + 0.08
    if track.thumbnail is None:
        _draw_emoji(page, emoji.name_of(mostly), 0.3 + FACE / 2, middle, FACE, faded=False)
    else:
        x, y = 0.3, middle - FACE / 2
        frame = FancyBboxPatch(
            (x, y),
            FACE,
            FACE,
            boxstyle="round,pad=0,rounding_size=0.1",
            facecolor="none",
            edgecolor=colours(labels)[mostly],
            linewidth=2,
        )
        page.add_patch(frame)
        face = page.imshow(track.thumbnail, extent=(x, x + FACE, y + FACE, y), interpolation="lanczos")
        face.set_clip_path(frame)
    title = "All faces"
    if track.number is not None:
        title = f"#{track.number}" + (f"  {_short(track.name, 14)}" if len(timeline.names) > 1 else "")
    seen = f"in {_count(round(track.seconds), 'image', 'images')}"
    if timeline.unit == "time":
        seen = f"{_clock(track.spans[0, 0])} – {_clock(track.spans[-1, 1])}, seen {_clock(track.seconds)}"
    x = 0.3 + FACE + 0.16
    page.text(x, middle - 0.25, title, color=INK, fontsize=13, weight="bold", va="center", parse_math=False)
    page.text(
        x,
        middle + 0.02,
        f"mostly {_cut(mostly, 12)}",
        color=INK,
        fontsize=9.5,
        va="center",
        parse_math=False,
    )
    page.text(x, middle + 0.25, seen, color=FAINT, fontsize=8, va="center")


def _draw_bands(plot: "Axes", labels: tuple[str, ...], timeline: Timeline, track: BinnedTrack) -> None:
    """The probabilities one upon the other; what is uncertain, paler and hatched."""
    from matplotlib.patches import Rectangle

    palette = colours(labels)
    for run in track.runs():
        spans, means = track.spans[run], track.means[run]
        if timeline.unit == "time":
            x = np.concatenate([spans[:1, 0], spans.mean(axis=1), spans[-1:, 1]])
            y = np.concatenate([means[:1], means, means[-1:]])
        else:
            x, y = spans.ravel(), means.repeat(2, axis=0)
        plot.stackplot(x, y.T, colors=[palette[label] for label in labels], linewidth=0, antialiased=True)
    for run in track.runs(track.uncertain):
        if track.uncertain[run.start]:
            begin, end = track.spans[run.start, 0], track.spans[run.stop - 1, 1]
            plot.add_patch(
                Rectangle(
                    (begin, 0),
                    end - begin,
                    1,
                    facecolor=(*PALE, 0.5),
                    edgecolor=(*DARK, 0.6),
                    hatch="/////",
                    linewidth=0,
                )
            )


def _draw_badges(page: "Axes", top: float, plot: "Axes", labels: tuple[str, ...], track: BinnedTrack) -> None:
    """Over the bands, the emoji of the expression that prevails, wherever it does so for long enough to have room."""
    strongest = track.means.argmax(axis=1)
    begin, end = plot.get_xlim()
    inches = (WIDTH - LEFT - RIGHT) / (end - begin)
    for run in track.runs(strongest):
        first, last = (LEFT + (value - begin) * inches for value in (track.spans[run][0, 0], track.spans[run][-1, 1]))
        if last - first < 0.9 * BADGE:
            continue
        name = emoji.name_of(labels[strongest[run.start]])
        faded = bool(track.uncertain[run].mean() > 0.5)
        _draw_emoji(page, name, (first + last) / 2, top + 0.17, BADGE, faded=faded)


def _draw_emoji(page: "Axes", name: str, x: float, y: float, size: float, *, faded: bool) -> None:
    picture = emoji.picture(name, round(size * DPI)).astype(float)
    alpha = picture[..., 3:]
    picture[..., :3] = np.divide(picture[..., :3] * 255, alpha, out=np.zeros_like(picture[..., :3]), where=alpha > 0)
    if faded:
        picture[..., :3] = picture[..., :3].mean(axis=2, keepdims=True)
    half = size / 2
    page.imshow((picture / 255).clip(0, 1), extent=(x - half, x + half, y + half, y - half), zorder=3)


def _draw_notes(page: "Axes", top: float, timeline: Timeline, people: list[tuple[str, int | None]]) -> None:
    """What the axis counts, what blanks and hatching mean, who is not shown."""
    others = len(timeline.people) + timeline.forgotten - len(people)
    notes = ["hatched: uncertain", "blank: nobody there"]
    if timeline.unit == "time":
        notes[1] = "blank: not seen"
        if others:
            notes.append(f"{_count(others, 'more person', 'more people')} seen more briefly")
    page.text(
        (LEFT + WIDTH - RIGHT) / 2,
        top + (0.22 if timeline.unit == "time" else 0.37),
        "minutes : seconds" if timeline.unit == "time" else "images, in the order in which they were read",
        color=FAINT,
        fontsize=8.5,
        va="center",
        ha="center",
    )
    page.text(0.3, top + 0.22, "  ·  ".join(notes), color=FAINT, fontsize=8.5, va="center")


def _count(number: int, one: str, many: str) -> str:
    return f"{number:,} {one if number == 1 else many}"


def _clock(seconds: float, step: float = 1) -> str:
    """Minutes and seconds, "1:02", with hours and, for a step of less than a second, tenths where there are any."""
    tenths = round(seconds * 10) if step < 1 else round(seconds) * 10
    minutes, tenths = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    rest = f"{tenths / 10:04.1f}" if step < 1 else f"{tenths // 10:02d}"
    return f"{hours}:{minutes:02d}:{rest}" if hours else f"{minutes}:{rest}"


def _cut(label: str, most: int) -> str:
    """The beginning of a label of too many letters, as it is cut in all drawings."""
    label = one_line(label)
    return label if len(label) <= most else f"{label[: most - 1]}…"


def _short(text: str, most: int) -> str:
    """The end of a text of too many letters: of a path, the name."""
    text = one_line(text)
    return text if len(text) <= most else f"…{text[1 - most :]}"
