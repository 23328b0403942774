"""Cameras: the newest frame, and each way to have none told apart. OpenCV and Linux are played by the test."""

import errno
import fcntl
import os
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from pipeline.base.errors import SourceError
from pipeline.media.sources import camera, open_sources
from pipeline.media.sources.camera import Camera, ListedCamera, list_cameras

CAPTURE, STREAMING, METADATA = 0x1, 0x4000000, 0x800000


class FakeCapture:
    """cv2.VideoCapture of a camera that gives a frame each time `shutter` allows one, until it is `unplugged`."""

    opens = True
    made: list["FakeCapture"] = []  # noqa: RUF012

    def __init__(self, device: int | str) -> None:
        self.device = device
        self.shutter = threading.Semaphore(0)
        self.frames = 0
        self.unplugged = self.released = False
        self.settings: dict[int, float] = {}
        self.made.append(self)

    def isOpened(self) -> bool:  # noqa: N802
        return self.opens

    def set(self, setting: int, value: float) -> bool:
        self.settings[setting] = value
        return True

    def read(self) -> tuple[bool, np.ndarray | None]:
        assert not self.released
        if self.unplugged or not self.shutter.acquire(timeout=0.02):
            return False, None
        self.frames += 1
        return True, np.full((6, 8, 3), (self.frames, 100, 200), np.uint8)  # blue, green, red

    def release(self) -> None:
        self.released = True


@pytest.fixture
def capture(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[FakeCapture]]:
    monkeypatch.setattr(cv2, "VideoCapture", FakeCapture)
    monkeypatch.setattr(FakeCapture, "opens", True)
    monkeypatch.setattr(FakeCapture, "made", [])
    monkeypatch.setattr(camera, "MISS_PAUSE", 0.01)
    monkeypatch.setattr(camera, "MISSES", 200)  # the test is slower than its camera
    yield FakeCapture
    deadline = time.monotonic() + 5
    while not all(made.released for made in FakeCapture.made):
        assert time.monotonic() < deadline, "a camera stays open"
        time.sleep(0.01)


Ioctl = Callable[[int, int, bytes], bytes]


@pytest.fixture
def devices(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A /dev whose files the kernel takes for cameras of what they hold: their capabilities, "busy" or "gone"."""

    def ioctl(device: int, request: int, argument: bytes) -> bytes:
        held = os.pread(device, 20, 0).decode()
        if held == "gone":
            raise OSError(errno.ENODEV, "No such device")
        if request == camera.VIDIOC_QUERYCAP:
            if held == "disk":
                raise OSError(errno.ENOTTY, "Inappropriate ioctl for device")
            own = METADATA if held == "metadata" else CAPTURE | STREAMING
            return struct.pack("=16s32s32sIII3I", b"uvcvideo", b"Fake", b"usb", 0, 0x80000000 | CAPTURE, own, 0, 0, 0)
        assert request == camera.VIDIOC_REQBUFS
        assert len(argument) == 20
        if held == "busy":
            raise OSError(errno.EBUSY, "Device or resource busy")
        return argument

    (tmp_path / "dev").mkdir()
    monkeypatch.setattr(camera, "LINUX", True)
    monkeypatch.setattr(camera, "DEVICES", tmp_path / "dev")
    monkeypatch.setattr(camera, "NAMES", tmp_path / "names")
    monkeypatch.setattr(fcntl, "ioctl", ioctl)
    return tmp_path / "dev"


def opened(word: str = "cam") -> Camera:
    (source,) = open_sources([word])
    assert isinstance(source, Camera)
    return source


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_frames_come_as_rgb_with_their_number_and_time(capture: type[FakeCapture], devices: Path) -> None:
    (devices / "video0").write_text("camera")
    source = opened()
    assert (source.name, source.moving, source.live, source.total) == ("cam:0", True, True, None)
    with source:
        taken = []
        frames = iter(source)
        for _ in range(3):
            capture.made[0].shutter.release()
            taken.append(next(frames))
    assert [frame.index for frame in taken] == [0, 1, 2]
    assert [tuple(frame.image[0, 0]) for frame in taken] == [(200, 100, 1), (200, 100, 2), (200, 100, 3)]
    times = [frame.time or 0 for frame in taken]
    assert 0 <= times[0] < times[1] < times[2] < 5
    assert {frame.name for frame in taken} == {"cam:0"}
    assert source.dropped == source.failed == 0


def test_the_newest_frame_is_taken_and_the_others_are_counted(capture: type[FakeCapture], devices: Path) -> None:
    (devices / "video0").write_text("camera")
    with opened() as source:
        frames = iter(source)
        capture.made[0].shutter.release()
        assert next(frames).image[0, 0, 2] == 1
        capture.made[0].shutter.release(7)
        wait_until(lambda: source._newest.dropped == 6)
        assert next(frames).image[0, 0, 2] == 8
        assert source.dropped == 6


@pytest.mark.parametrize(
    ("word", "device"),
    [("cam", 0), ("cam:2", 2), ("/dev/video7", "/dev/video7"), ("/dev/v4l/by-id/a b", "/dev/v4l/by-id/a b")],
)
def test_words_name_devices(
    capture: type[FakeCapture], monkeypatch: pytest.MonkeyPatch, word: str, device: int | str
) -> None:
    monkeypatch.setattr(camera, "LINUX", False)
    with opened(word):
        assert capture.made[0].device == device
        assert capture.made[0].settings[cv2.CAP_PROP_FRAME_WIDTH] == camera.WIDTH


@pytest.mark.parametrize("word", ["cam:", "cam:x", "cam:-1", "cam:99999", "cam:1 "])
def test_words_that_name_none_are_told(word: str) -> None:
    with pytest.raises(SourceError, match=r"no camera; cam, cam:N"):
        open_sources([word])


@pytest.mark.parametrize(
    ("held", "word", "message"),
    [
        ({}, "cam", r"^cam:0: no camera on this machine \(no /dev/video\*\); plug one in; `python -m pipeline doctor`"),
        ({0: "camera", 1: "metadata", 2: "busy"}, "cam:3", r"no camera .*/video3, only .*/video0, .*/video2; "),
        ({0: "busy"}, "cam", r"^cam:0: in use by .*; close that first; `python -m pipeline doctor`"),
        ({0: "gone"}, "cam", "is no camera"),
        ({0: "disk"}, "cam", r"video0 is no camera \(Inappropriate ioctl"),
        ({0: "camera", 1: "metadata"}, "cam:1", "gives no pictures, only data about them"),
    ],
)
def test_each_way_to_have_no_camera_is_told_apart(
    capture: type[FakeCapture], devices: Path, held: dict[int, str], word: str, message: str
) -> None:
    for number, content in held.items():
        (devices / f"video{number}").write_text(content)
    with pytest.raises(SourceError, match=message) as caught, opened(word):
        pass
    assert "\n" not in str(caught.value)
    assert not capture.made


def test_a_device_that_may_not_be_opened_names_its_group(devices: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (devices / "video0").write_text("camera")
    real = os.open

    def forbidden(path: Any, *rest: Any, **more: Any) -> int:
        if Path(path).parent == devices:
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(path, *rest, **more)

    monkeypatch.setattr(os, "open", forbidden)
    with pytest.raises(SourceError, match=r"no permission to open .*video0; `sudo usermod -aG \w+ \$USER`"), opened():
        pass


def test_who_uses_it_is_named_as_far_as_may_be_seen(devices: Path) -> None:
    (devices / "video0").write_text("busy")
    with (
        (devices / "video0").open(),
        pytest.raises(SourceError, match=rf"in use by [^;]*\(process {os.getpid()}\)"),
        opened(),
    ):
        pass


def test_what_opencv_cannot_open_is_told(
    capture: type[FakeCapture], devices: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capture, "opens", False)
    (devices / "video0").write_text("camera")
    with pytest.raises(SourceError, match="cam:0: cannot be opened; is it plugged in"), opened():
        pass


def test_a_camera_lost_in_mid_run_is_told_after_its_last_frame(capture: type[FakeCapture], devices: Path) -> None:
    (devices / "video0").write_text("camera")
    with opened() as source:
        frames = iter(source)
        capture.made[0].shutter.release()
        next(frames)
        (devices / "video0").unlink()
        with pytest.raises(SourceError, match="cam:0: lost after 1 frames; was it unplugged"):
            next(frames)


def test_a_camera_may_miss_a_few_frames_but_not_go_on_so(
    capture: type[FakeCapture], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(camera, "LINUX", False)
    with opened() as source:
        frames = iter(source)
        for _ in range(2):
            time.sleep(0.05)  # two reads that give nothing
            capture.made[0].shutter.release()
            next(frames)
        monkeypatch.setattr(camera, "MISSES", 5)
        capture.made[0].unplugged = True
        with pytest.raises(SourceError, match="lost after 2 frames"):
            next(frames)


def test_a_camera_that_never_gives_a_picture_is_told(
    capture: type[FakeCapture], devices: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (devices / "video0").write_text("camera")
    monkeypatch.setattr(camera, "MISSES", 5)
    with opened() as source, pytest.raises(SourceError, match="cam:0: opened, but gives no picture"):
        next(iter(source))


def test_a_camera_that_hangs_is_told(
    capture: type[FakeCapture], devices: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (devices / "video0").write_text("camera")
    release = threading.Event()
    monkeypatch.setattr(camera, "STALLED", 0.1)
    monkeypatch.setattr(capture, "read", lambda self: (release.wait(5), np.zeros((6, 8, 3), np.uint8)))
    with opened() as source:
        with pytest.raises(SourceError, match=r"cam:0: no picture for 0\.1 s"):
            next(iter(source))
        release.set()


def test_the_list_leaves_out_what_gives_no_pictures(devices: Path) -> None:
    for number, held in ((0, "camera"), (1, "metadata"), (2, "busy"), (10, "camera")):
        (devices / f"video{number}").write_text(held)
        name = devices.parent / "names" / f"video{number}" / "name"
        name.parent.mkdir(parents=True)
        name.write_text(f"Webcam {number}\n")
    cameras = list_cameras()
    assert [(found.index, found.path, found.name) for found in cameras] == [
        (number, devices / f"video{number}", f"Webcam {number}") for number in (0, 2, 10)
    ]
    assert cameras[0] == ListedCamera(0, devices / "video0", "Webcam 0", None)
    assert "in use by" in (cameras[1].fault or "")
