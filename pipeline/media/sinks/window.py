"""The live window: frames with their readings drawn over them, and keys for what is shown and kept."""

import os
import re
import sys
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from math import inf
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from pipeline.base.atomic import atomic_file
from pipeline.base.console import in_words, log, printable
from pipeline.base.errors import InputError
from pipeline.media.frames import Frame
from pipeline.media.sinks.sink import Sink
from pipeline.media.sinks.video import VideoWriter
from pipeline.readings import Reading

if TYPE_CHECKING:
    import pygame
    from pygame.event import Event

    from pipeline.drawing.overlay import Parts
    from pipeline.media.sinks.window_hints import HelpRow, Hints

APPLICATION = "Facial expressions"
DESKTOP_SHARE = 0.85  # of the desktop's width and height, that a new window takes at most
LEAST = (480, 360)  # pixels of a window: room for the help
MESSAGE_SECONDS = 2.5
LATE_SECONDS = 0.1  # a file's frame that is later than this is shown at once, and the next ones are due after it
RATE_SECONDS = 1.0  # that the frame rate is measured over
MISSING_SECONDS = 2  # without a frame of a live source, from which on the window says so
POLL_SECONDS = 0.05  # between looks at the keys while nothing moves
BLANK = (16, 16, 20)  # beside the picture


class DisplayError(InputError):
    """There is no display to show a window on."""


def display_fault() -> str | None:
    """Why no window can be shown; None where one can. Tries the display, and leaves it."""
    named = any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER")))
    if sys.platform.startswith(("linux", "freebsd")) and not named:
        return "there is no display (neither DISPLAY nor WAYLAND_DISPLAY is set)"
    # Its greeting would go to standard output, among the results.
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    import pygame

    try:
        pygame.display.init()
        driver = pygame.display.get_driver()
        pygame.display.quit()
    except pygame.error as error:
        return f"the display cannot be used ({error})"
    # What SDL turns to when nothing that it draws can be seen.
    if driver == "offscreen" and "SDL_VIDEODRIVER" not in os.environ:
        name = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
        return f"the display {name} does not answer"
    return None


class Window(Sink):
    """Shows every frame with its reading drawn over it; COMMANDS and SWITCHES are its keys.

    folder: where snapshots and recordings go. Raises DisplayError where there is no display.
    """

    def __init__(self, parts: "Parts", folder: Path) -> None:
        fault = display_fault()
        if fault:
            raise DisplayError(
                f"no window can be shown: {fault}; everything but the window works: give --json, --csv or --annotated"
            )
        from pipeline.drawing.overlay import Overlay

        self.overlay = Overlay(parts)
        self.folder = folder
        self.name = ""  # in the title
        self.live = False
        self.file: Path | None = None
        self.paused = False
        self.helping = False
        self.leafed = True  # what is shown is no picture that waits for a key
        self.shown: tuple[Frame, Reading] | None = None
        self.missing = 0  # seconds without a frame, as the window says
        self.drawn: np.ndarray | None = None  # the shown frame with its reading, before it is fitted into the window
        self.moments: deque[float] = deque()  # when the frames of the last RATE_SECONDS were shown
        self.due = 0.0  # when a file's frame of time 0 is to be shown, on time.perf_counter()'s clock
        self.recording: VideoWriter | None = None
        self.message = ""
        self.message_until = inf
        self.stale = False  # what is seen is no longer what there is to be seen
        self.given_size = (0, 0)  # what the window was last made, to fit
        self.fitted: tuple[int, ...] = ()  # a picture of this shape

    def __enter__(self) -> Self:
        super().__enter__()
        import pygame

        from pipeline.drawing import emoji

        pygame.display.init()
        self.stack.callback(pygame.display.quit)
        icon = emoji.picture("happy", 64)
        pygame.display.set_icon(pygame.image.frombuffer(icon.tobytes(), (icon.shape[1], icon.shape[0]), "RGBA"))
        return self

    def turn_to(self, name: str, *, live: bool, file: Path | None) -> None:
        """Say where the frames from now on are from.

        name: for the title, until the first frame tells its own. live: they come by the clock, and go by unseen while
        the window is paused; those of a file wait then, and are shown when their time has come, and a picture without
        a time stays until a key is pressed. file: the video that they are from, whose sound is recorded with them.
        """
        self.stop_recording()
        self.live, self.file = live, file
        self.due = 0.0
        self._title(name)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self.stack:
            self.stop_recording()

    def write(self, frame: Frame, reading: Reading) -> None:
        self.idle()
        if self.done or (self.live and self.paused):
            return
        if not self.live and frame.time is not None:
            self._wait_until_due(frame.time)
        if self.shown is None:
            self.tell("Press H to see the keys")
        self.shown = (frame, reading)
        self.leafed = frame.time is not None
        self._title(frame.name)
        self._measure()
        self._draw()
        self._record(frame)
        self._show()
        while not self.leafed and not self.done:
            self._react(POLL_SECONDS)

    def idle(self) -> None:
        self.stale = self.stale or self._missing() != self.missing
        self._react(0)

    def _missing(self) -> int:
        """Whole seconds without a frame of a live source; 0 while there is nothing to be said about that."""
        if not self.live or self.paused or not self.moments:
            return 0
        seconds = int(time.perf_counter() - self.moments[-1])
        return seconds if seconds >= MISSING_SECONDS else 0

    def _wait_until_due(self, moment: float) -> None:
        if time.perf_counter() > self.due + moment + LATE_SECONDS:
            self.due = time.perf_counter() - moment
        while not self.done:
            wait = self.due + moment - time.perf_counter()
            if self.paused:
                self.due = time.perf_counter() - moment
                wait = POLL_SECONDS
            if wait <= 0:
                return
            self._react(min(wait, POLL_SECONDS))

    def _measure(self) -> None:
        now = time.perf_counter()
        self.moments.append(now)
        while self.moments[0] < now - RATE_SECONDS:
            self.moments.popleft()

    @property
    def rate(self) -> float | None:
        """Frames a second that were shown over the last RATE_SECONDS; None before the second one."""
        span = self.moments[-1] - self.moments[0] if self.moments else 0
        return (len(self.moments) - 1) / span if span else None

    def _react(self, seconds: float) -> None:
        """Do what the keys say that were pressed, or will be within `seconds`."""
        import pygame

        first = [pygame.event.wait(max(1, round(seconds * 1000)))] if seconds else []
        for event in first + pygame.event.get():
            if event.type == pygame.QUIT:
                self.quit()
            elif event.type == pygame.KEYDOWN and not event.mod & (
                pygame.KMOD_CTRL | pygame.KMOD_ALT | pygame.KMOD_META
            ):
                act = KEYS.get(_key(event))
                if act:
                    act(self)
            elif event.type in (pygame.WINDOWSIZECHANGED, pygame.WINDOWEXPOSED):
                self.stale = True
        if self.stale or time.perf_counter() > self.message_until:
            self._show()

    def tell(self, message: str) -> None:
        """Show a message over the picture for a while."""
        self.message = printable(message)
        self.message_until = time.perf_counter() + MESSAGE_SECONDS
        self.stale = True

    # What the keys do

    def quit(self) -> None:
        self.done = True

    def pause(self) -> None:
        if not self.leafed:
            self.leafed = True
            return
        self.paused = not self.paused
        self.tell("Space resumes" if self.paused else "Resumed")

    def help(self) -> None:
        self.helping = not self.helping
        self.stale = True

    def switch(self, part: str, text: str) -> None:
        """Draw a part of Parts from now on, or no longer."""
        on = not getattr(self.overlay.parts, part)
        change: dict[str, Any] = {part: on}
        self.overlay.parts = replace(self.overlay.parts, **change)
        self._draw()
        self.tell(f"{text} {'on' if on else 'off'}")

    def choose_faces(self) -> None:
        single = self.overlay.parts.faces == "all"
        self.overlay.parts = replace(self.overlay.parts, faces="single" if single else "all")
        self._draw()
        self.tell("The largest face alone" if single else "All faces")

    def snapshot(self) -> None:
        if self.drawn is None:
            return
        from PIL import Image

        path = self._new_path(".png")
        try:
            with atomic_file(path) as file:
                Image.fromarray(self.drawn).save(file, format="PNG", compress_level=1)
        except OSError as error:
            self._tell_failure("No snapshot", error)
        else:
            self._tell_kept("Snapshot", path)

    def record(self) -> None:
        if self.recording:
            self.stop_recording()
        elif self.shown and self.shown[0].time is None:
            self.tell("A picture cannot be recorded; take a snapshot")
        else:
            recording = VideoWriter(self._new_path(".mp4"), self.file)
            try:
                self.recording = recording.__enter__()
            except OSError as error:
                self._tell_failure("No recording", error)
            else:
                self.tell(f"Recording {recording.path}")

    def stop_recording(self) -> None:
        if not self.recording:
            return
        recording, self.recording = self.recording, None
        try:
            recording.__exit__(None, None, None)
        except OSError as error:
            self._tell_failure("No recording", error)
        else:
            if recording.frames:
                self._tell_kept("Recording", recording.path)
            else:
                self.tell("Nothing was recorded")

    def _record(self, frame: Frame) -> None:
        if not self.recording or frame.time is None or self.drawn is None:
            return
        try:
            self.recording.write(self.drawn, frame.time, first=frame.index == 0)
        except OSError as error:
            recording, self.recording = self.recording, None
            with suppress(OSError):
                recording.__exit__(type(error), error, error.__traceback__)
            self._tell_failure("Recording stopped", error)

    def _tell_kept(self, what: str, path: Path) -> None:
        log.info("%s: %s", what.lower(), path)
        self.tell(f"{what}: {path}")

    def _tell_failure(self, what: str, error: Exception) -> None:
        """The run continues: all else that is written is worth more than this."""
        log.error("error: %s", in_words(error))
        self.tell(f"{what}: {in_words(error)}")

    def _new_path(self, suffix: str) -> Path:
        name = re.sub(r"[^\w.-]+", "-", Path(self.name).stem, flags=re.ASCII).strip("-")[:60] or "frame"
        now = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
        path = self.folder / f"{name}_{now}{suffix}"
        count = 1
        while path.exists():
            count += 1
            path = self.folder / f"{name}_{now}_{count}{suffix}"
        return path

    # What is seen

    def _title(self, name: str) -> None:
        """Put a source's or picture's name in the title: of a path its end."""
        import pygame

        if name != self.name:
            self.name = name
            short = name if "://" in name else Path(name).name
            pygame.display.set_caption(f"{printable(short)} – {APPLICATION}")

    def _draw(self) -> None:
        if self.shown:
            frame, reading = self.shown
            self.drawn = self.overlay.draw(frame.image, reading, None if frame.time is None else self.rate)

    def _show(self) -> None:
        import pygame

        from pipeline.drawing.canvas import Canvas
        from pipeline.media.sinks.window_hints import Hints

        self.stale = False
        if self.drawn is None:
            return
        if time.perf_counter() > self.message_until:
            self.message, self.message_until = "", inf
        screen = self._screen(self.drawn)
        canvas = _fitted(self.drawn, *screen.get_size())
        self._hint(Hints(Canvas(canvas)))
        screen.blit(pygame.image.frombuffer(canvas.data, screen.get_size(), "RGB"), (0, 0))
        pygame.display.flip()

    def _screen(self, image: np.ndarray) -> "pygame.Surface":
        """The window's. It takes the picture's size, and another one with it until a person gives it a size."""
        import pygame

        screen = pygame.display.get_surface()
        if screen and (image.shape == self.fitted or screen.get_size() != self.given_size):
            return screen
        desktop = pygame.display.get_desktop_sizes()[0]
        height, width = image.shape[:2]
        scale = min(1.0, *(DESKTOP_SHARE * most / side for most, side in zip(desktop, (width, height), strict=True)))
        self.fitted = image.shape
        self.given_size = (max(LEAST[0], round(width * scale)), max(LEAST[1], round(height * scale)))
        return pygame.display.set_mode(self.given_size, pygame.RESIZABLE)

    def _hint(self, hints: "Hints") -> None:
        marks: list[tuple[str, bool]] = []
        if self.recording:
            marks.append((f"REC {self._recorded() // 60}:{self._recorded() % 60:02}", True))
        if self.paused:
            marks.append(("Paused", False))
        if not self.leafed:
            marks.append(("Space: next picture", False))
        self.missing = self._missing()
        if self.missing:
            marks.append((f"No picture for {self.missing} s", False))
        hints.marks(marks)
        if self.helping:
            hints.help("Keys", self._help())
        if self.message:
            hints.message(self.message)

    def _recorded(self) -> int:
        """Seconds that were recorded."""
        return int(self.recording.seconds) if self.recording else 0

    def _help(self) -> list[list["HelpRow"]]:
        from pipeline.media.sinks.window_hints import HelpRow

        parts = self.overlay.parts
        commands = [HelpRow(tuple(key.capitalize() for key in command.keys), command.text) for command in COMMANDS]
        switches = [HelpRow((switch.key.upper(),), switch.text, getattr(parts, switch.part)) for switch in SWITCHES]
        return [commands, switches]


@dataclass(frozen=True)
class Command:
    """keys: as pygame.key.name() calls them. text: what they do, for the help."""

    keys: tuple[str, ...]
    text: str
    act: Callable[[Window], None]


@dataclass(frozen=True)
class Switch:
    """A key that turns a field of Parts on and off."""

    key: str
    text: str
    part: str


COMMANDS = (
    Command(("space",), "Pause, go on", Window.pause),
    Command(("s",), "Keep a snapshot", Window.snapshot),
    Command(("r",), "Record, stop recording", Window.record),
    Command(("1",), "Largest face, all faces", Window.choose_faces),
    Command(("h",), "Show or hide these keys", Window.help),
    Command(("q", "escape"), "Quit", Window.quit),
)
SWITCHES = (
    Switch("b", "Boxes", "boxes"),
    Switch("l", "Landmarks", "landmarks"),
    Switch("t", "Labels", "labels"),
    Switch("p", "Probability bars", "bars"),
    Switch("e", "Emoji", "emoji"),
    Switch("f", "Frame rate", "rate"),
    Switch("x", "Blur", "blur"),
)
KEYS: dict[str, Callable[[Window], None]] = {
    **{key: command.act for command in COMMANDS for key in command.keys},
    **{switch.key: partial(Window.switch, part=switch.part, text=switch.text) for switch in SWITCHES},
}


def _key(event: "Event") -> str:
    """The key's name, that of the same place on a Latin keyboard where its own letter is no Latin one."""
    import pygame

    name = pygame.key.name(event.key)
    # SDL numbers the letters' places from 4 (SDL_SCANCODE_A) on, in the order of the alphabet.
    return name if (name and name.isascii()) or not 4 <= event.scancode < 30 else chr(ord("a") + event.scancode - 4)


def _fitted(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """The image as large as it is whole within a canvas (height, width, 3), around its middle."""
    import cv2

    scale = min(width / image.shape[1], height / image.shape[0])
    if scale != 1:
        size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    across, down = width - image.shape[1], height - image.shape[0]
    margins = (down // 2, down - down // 2, across // 2, across - across // 2)
    return cv2.copyMakeBorder(image, *margins, cv2.BORDER_CONSTANT, value=BLANK)
