"""The live window, under SDL's dummy driver: real keys are pressed, and what then happens is looked at."""

import logging
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np
import pygame
import pytest
from helpers.full_disk import full_disk
from PIL import Image

from pipeline.drawing.overlay import Overlay, Parts
from pipeline.media.frames import Frame
from pipeline.media.sinks.window import COMMANDS, SWITCHES, DisplayError, Window, _key, display_fault
from pipeline.readings import FaceReading, Reading

NAME = "cam:0"
HEIGHT, WIDTH = 360, 640
FACE = FaceReading((200.0, 100.0, 300.0, 220.0), 0.99, {"nose": (250.0, 160.0)}, {"happy": 0.75, "sad": 0.25}, "found")
KEY_CODES = {"space": pygame.K_SPACE, "escape": pygame.K_ESCAPE}


@pytest.fixture(autouse=True)
def _dummy_display(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")


@pytest.fixture
def open_window(tmp_path: Path) -> Iterator[Callable[..., Window]]:
    """Opens windows, whose snapshots and recordings go to tmp_path / "kept"."""
    windows = []

    def open_one(*, live: bool = True, folder: Path = tmp_path / "kept") -> Window:
        windows.append(Window(Parts(), folder).__enter__())
        windows[-1].turn_to(NAME, live=live, file=None)
        return windows[-1]

    yield open_one
    for window in windows:
        window.__exit__(None, None, None)


def image(shade: int = 90, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    return np.full((height, width, 3), shade, np.uint8)


def show(
    window: Window,
    index: int = 0,
    moment: float | None = 0.0,
    picture: np.ndarray | None = None,
    *,
    name: str = NAME,
) -> None:
    picture = image() if picture is None else picture
    height, width = picture.shape[:2]
    window.write(Frame(name, picture, index, moment), Reading(name, width, height, (FACE,), index, moment))


def press(*keys: str) -> None:
    for key in keys:
        code = KEY_CODES.get(key) or ord(key)
        pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=code, mod=0, unicode="", scancode=0))


def seen() -> np.ndarray:
    """What is in the window, (H, W, 3)."""
    surface = pygame.display.get_surface()
    assert surface
    return pygame.surfarray.array3d(surface).swapaxes(0, 1)


def settled(window: Window) -> np.ndarray:
    """What is in the window once the message is gone."""
    window.message_until = 0
    window.idle()
    return seen()


def test_a_frame_is_shown_with_its_reading(open_window: Callable[..., Window]) -> None:
    window = open_window()
    show(window)
    assert seen().shape == (HEIGHT, WIDTH, 3)
    expected = Overlay(Parts()).draw(image(), Reading(NAME, WIDTH, HEIGHT, (FACE,)))
    assert (expected != image()).any()
    np.testing.assert_array_equal(settled(window), expected)
    assert pygame.display.get_caption()[0].startswith(NAME)


@pytest.mark.parametrize("key", ["q", "escape", "close"])
def test_the_window_is_closed(open_window: Callable[..., Window], key: str) -> None:
    window = open_window()
    show(window)
    assert not window.done
    if key == "close":
        pygame.event.post(pygame.event.Event(pygame.QUIT))
    else:
        press(key)
    window.idle()
    assert window.done
    before = seen()
    show(window, 1, 0.1, image(200))
    np.testing.assert_array_equal(seen(), before)


def test_every_switch_draws_its_part_or_not_and_says_so(open_window: Callable[..., Window]) -> None:
    window = open_window()
    for index in range(3):  # so that there is a frame rate
        show(window, index, index / 100)
    for switch in SWITCHES:
        before = settled(window)
        press(switch.key)
        window.idle()
        on = switch.part == "blur"
        assert getattr(window.overlay.parts, switch.part) is on
        assert window.message == f"{switch.text} {'on' if on else 'off'}"
        after = settled(window)
        assert (after != before).any(), switch
        press(switch.key)
        window.idle()
        assert getattr(window.overlay.parts, switch.part) is not on
        np.testing.assert_array_equal(settled(window), before)


def test_the_largest_face_alone_makes_the_window_wider(open_window: Callable[..., Window]) -> None:
    window = open_window()
    show(window)
    press("1")
    window.idle()
    assert window.overlay.parts.faces == "single"
    assert seen().shape[1] > WIDTH
    press("1")
    window.idle()
    assert seen().shape == (HEIGHT, WIDTH, 3)


def test_a_window_sized_by_hand_keeps_its_size_and_the_picture_its_shape(open_window: Callable[..., Window]) -> None:
    window = open_window()
    show(window)
    pygame.display.set_mode((800, 800), pygame.RESIZABLE)
    show(window, 1, 0.1, image(200))
    shown = settled(window)
    assert shown.shape == (800, 800, 3)
    bright = np.all(shown > 150, axis=2)
    assert bright[:, 2].sum() == pytest.approx(450, abs=2)
    assert (shown[:170] < 30).all()
    press("1")
    window.idle()
    assert seen().shape == (800, 800, 3)


def test_help_lists_every_key(open_window: Callable[..., Window], monkeypatch: pytest.MonkeyPatch) -> None:
    window = open_window()
    show(window)
    before = settled(window)
    press("h")
    window.idle()
    assert (settled(window) != before).mean() > 0.5
    rows = [row for column in window._help() for row in column]
    assert {key.lower() for row in rows for key in row.keys} >= {*"qsr1hbltpefx", "space", "escape"}
    assert len(rows) == len(COMMANDS) + len(SWITCHES)
    press("h")
    window.idle()
    np.testing.assert_array_equal(settled(window), before)


def test_paused_a_camera_goes_on_unseen(open_window: Callable[..., Window]) -> None:
    window = open_window(live=True)
    show(window)
    press("space")
    show(window, 1, 0.1, image(200))
    held = settled(window)
    show(window, 2, 0.2, image(250))
    np.testing.assert_array_equal(settled(window), held)
    press("space")
    show(window, 3, 0.3, image(250))
    assert (settled(window)[300] > 240).all(1).any()


def test_a_camera_that_gives_no_picture_is_told_while_keys_are_heard(open_window: Callable[..., Window]) -> None:
    window = open_window(live=True)
    show(window)
    before = settled(window)
    window.moments[-1] -= 3
    window.idle()
    assert window.missing == 3
    assert (seen()[:60, -200:] != before[:60, -200:]).any()
    press("q")
    window.idle()
    assert window.done


def test_paused_a_file_waits(open_window: Callable[..., Window]) -> None:
    window = open_window(live=False)
    show(window)
    press("space")
    window.idle()
    assert window.paused
    threading.Timer(0.3, press, ["space"]).start()
    before = time.monotonic()
    show(window, 1, 0.0, image(200))
    assert time.monotonic() - before > 0.2
    assert (settled(window)[300] > 190).all(1).any()


def test_a_file_is_shown_at_its_own_pace(open_window: Callable[..., Window]) -> None:
    window = open_window(live=False)
    before = time.monotonic()
    for index in range(4):
        show(window, index, index / 10)
    assert time.monotonic() - before > 0.25


def test_a_picture_stays_until_a_key_is_pressed(open_window: Callable[..., Window]) -> None:
    window = open_window(live=False)
    threading.Timer(0.3, press, ["space"]).start()
    before = time.monotonic()
    show(window, 0, None, name="folder/one.png")
    assert time.monotonic() - before > 0.2
    assert pygame.display.get_caption()[0].startswith("one.png")
    press("r", "q")
    show(window, 0, None, name="folder/two.png")
    assert window.done
    assert window.message == "A picture cannot be recorded; take a snapshot"


def test_a_snapshot_is_what_is_drawn(
    open_window: Callable[..., Window], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    window = open_window()
    show(window, picture=image(80, 1600, 2400))  # larger than the window can be
    press("s", "s")
    window.idle()
    first, second = sorted((tmp_path / "kept").iterdir())
    assert first.suffix == second.suffix == ".png"
    assert first.name.startswith("cam-0_")
    assert window.message in (f"Snapshot: {first}", f"Snapshot: {second}")
    assert f"snapshot: {first}" in caplog.text
    with Image.open(first) as kept:
        drawn = Overlay(Parts()).draw(image(80, 1600, 2400), Reading(NAME, 2400, 1600, (FACE,)))
        np.testing.assert_array_equal(np.asarray(kept), drawn)


def test_a_recording_is_made_and_ends_with_the_window(open_window: Callable[..., Window], tmp_path: Path) -> None:
    window = open_window()
    show(window, 0, 5.0)
    press("r")
    show(window, 1, 5.1)
    before = settled(window)
    show(window, 2, 5.25)
    press("r")
    show(window, 3, 5.3)
    (path,) = (tmp_path / "kept").iterdir()
    assert window.message == f"Recording: {path}"
    red = (before[:60, -120:].astype(int) @ (1, -1, -1)) > 80
    assert red.sum() > 20
    with av.open(str(path)) as container:
        assert [frame.time for frame in container.decode(video=0)] == pytest.approx([0, 0.15], abs=1e-4)
    press("r")
    show(window, 4, 5.4)
    show(window, 5, 5.5)
    window.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert len(list((tmp_path / "kept").glob("cam-0_*.mp4"))) == 2


def test_a_recording_of_nothing_is_told(open_window: Callable[..., Window], tmp_path: Path) -> None:
    window = open_window()
    show(window)
    press("r", "r")
    window.idle()
    assert window.message == "Nothing was recorded"
    assert list((tmp_path / "kept").iterdir()) == []


def test_what_cannot_be_kept_is_told_and_the_window_goes_on(
    open_window: Callable[..., Window], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    window = open_window(folder=tmp_path / "file" / "kept")
    show(window)
    press("s")
    window.idle()
    assert window.message.startswith("No snapshot: ")
    press("r")
    window.idle()
    assert window.message.startswith("No recording: ")
    assert caplog.text.count(f"error: {tmp_path}/file") == 2
    assert not window.done


def test_a_full_disk_ends_the_recording_and_not_the_run(
    open_window: Callable[..., Window], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    window = open_window()
    show(window)
    press("r")
    noise = np.random.default_rng(0)
    with full_disk(1 << 20):
        for index in range(200):
            show(window, index, index / 10, noise.integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8))
    assert window.recording is None
    assert "File too large" in caplog.text
    assert "Recording stopped" in window.message or window.message == ""
    (path,) = (tmp_path / "kept").iterdir()
    with av.open(str(path)) as container:
        assert len(list(container.decode(video=0))) > 5


def test_names_that_cannot_be_printed_are_shown_by_their_escapes(open_window: Callable[..., Window]) -> None:
    window = open_window(folder=Path("/dev/null") / "odd \udcff\nname")
    show(window, name="odd \udcff\nname")
    assert pygame.display.get_caption()[0].startswith("odd \\udcff\\nname")
    press("s")
    window.idle()
    assert "odd \\udcff" in window.message


def test_letters_of_other_keyboards_are_taken_by_their_place() -> None:
    pygame.display.init()
    event = pygame.event.Event(pygame.KEYDOWN, key=0x439, mod=0, scancode=pygame.KSCAN_Q)  # Cyrillic short i
    assert _key(event) == "q"


def test_no_display_is_one_clear_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER"):
        monkeypatch.delenv(name, raising=False)
    fault = "there is no display (neither DISPLAY nor WAYLAND_DISPLAY is set)"
    assert display_fault() == fault
    with pytest.raises(DisplayError, match=f"{re.escape(fault)}; everything but the window works"):
        Window(Parts(), tmp_path)


def test_a_display_that_does_not_answer_is_told() -> None:
    run = subprocess.run(
        [sys.executable, "-c", "from pipeline.media.sinks import display_fault; print(display_fault())"],
        cwd=Path(__file__).parents[2],
        env={"DISPLAY": ":4711"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout == "the display :4711 does not answer\n"


def test_the_next_source_has_its_own_title_and_recording(open_window: Callable[..., Window], tmp_path: Path) -> None:
    window = open_window()
    show(window)
    press("r")
    for index in range(1, 4):
        show(window, index, index / 10)
    film = tmp_path / "a film.mp4"  # which is not there, so that its sound is left out
    window.turn_to(str(film), live=False, file=film)
    assert pygame.display.get_caption()[0].startswith("a film.mp4")
    press("r")
    for index in range(3):
        show(window, index, index / 100, name=str(film))
    window.stop_recording()
    assert [path.name.split("_")[0] for path in sorted((tmp_path / "kept").iterdir())] == ["a-film", "cam-0"]
