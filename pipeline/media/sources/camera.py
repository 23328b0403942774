"""Cameras of this machine, through OpenCV."""

import errno
import os
import struct
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np

from pipeline.base.errors import SourceError
from pipeline.media.frames import Frame
from pipeline.media.sources.latest import Latest

if TYPE_CHECKING:
    import cv2

DEVICES = Path("/dev")
NAMES = Path("/sys/class/video4linux")  # of Linux's cameras
WIDTH, HEIGHT, RATE = 1280, 720, 30  # asked for; a camera gives what it has that comes nearest
MISSES = 10  # reads in a row that may fail before the camera counts as lost
MISS_PAUSE = 0.1  # seconds after one
STALLED = 15.0  # seconds without a frame; OpenCV gives up a read of V4L2 after 10
LINUX = sys.platform == "linux"
DOCTOR = "`python -m pipeline doctor` says what cameras there are"
# Linux's videodev2.h: capabilities, and the request for buffers, which a camera in use elsewhere refuses.
VIDIOC_QUERYCAP = 0x80685600
VIDIOC_REQBUFS = 0xC0145608
CAP_VIDEO_CAPTURE, CAP_VIDEO_CAPTURE_MPLANE, CAP_DEVICE_CAPS = 0x1, 0x1000, 0x80000000
BUF_TYPE_VIDEO_CAPTURE, MEMORY_MMAP = 1, 1


class Camera:
    """A camera's newest frame, each time one is asked for; those in between are counted in `dropped`.

    device: its number, or the path of its device.
    """

    moving = True
    live = True
    total: int | None = None
    failed = 0

    def __init__(self, device: int | Path) -> None:
        self.device = device
        self.name = f"cam:{device}" if isinstance(device, int) else str(device)
        self.dropped = 0

    @property
    def path(self) -> Path:
        """Of its device, on Linux."""
        return DEVICES / f"video{self.device}" if isinstance(self.device, int) else self.device

    def __enter__(self) -> Self:
        """Raises SourceError that says whether there is no such camera, it is in use, or may not be opened."""
        fault = fault_of(self.path) if LINUX else None
        capture = None if fault else _open(self.device)
        if capture is None:
            fault = fault or "cannot be opened; is it plugged in, used by another program, or forbidden by the system?"
            raise SourceError(f"{self.name}: {fault}; {DOCTOR}")
        self.capture = capture
        self._newest: Latest[tuple[float, np.ndarray]] = Latest()
        self._stop = threading.Event()
        self._opened = time.monotonic()
        self._thread = threading.Thread(target=self._read, name=self.name, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(1.0)  # a camera that hangs is left to its thread, which releases it in the end

    def _read(self) -> None:
        """In the thread."""
        misses = frames = 0
        try:
            while not self._stop.is_set():
                there, image = self.capture.read()
                if there and image is not None and image.size:
                    frames += 1
                    misses = 0
                    self._newest.put((time.monotonic() - self._opened, image))
                    continue
                misses += 1
                if misses >= MISSES or (LINUX and not self.path.exists()):
                    raise SourceError(self._lost(frames))
                self._stop.wait(MISS_PAUSE)
        except Exception as error:  # cv2.error among them; whatever it is, it comes out where frames are taken
            self._newest.end(error)
        finally:
            self.capture.release()

    def _lost(self, frames: int) -> str:
        if not frames:
            return f"{self.name}: opened, but gives no picture; is it used by another program? {DOCTOR}"
        return f"{self.name}: lost after {frames} frames; was it unplugged? {DOCTOR}"

    def __iter__(self) -> Iterator[Frame]:
        import cv2

        index = 0
        while (taken := self._take()) is not None:
            at, image = taken
            self.dropped = self._newest.dropped
            yield Frame(self.name, cv2.cvtColor(image, cv2.COLOR_BGR2RGB), index, at)
            index += 1

    def _take(self) -> tuple[float, np.ndarray] | None:
        try:
            return self._newest.take(STALLED)
        except TimeoutError:
            raise SourceError(
                f"{self.name}: no picture for {STALLED:g} s; unplug it and plug it in again, then start anew"
            ) from None


def _open(device: int | Path) -> "cv2.VideoCapture | None":
    """A capture that gives WIDTH x HEIGHT or what comes nearest, None when it cannot be opened."""
    import cv2

    capture = cv2.VideoCapture(device if isinstance(device, int) else str(device))
    if not capture.isOpened():
        capture.release()
        return None
    # Over USB 2 only compressed pictures of this size come at full rate; one that has none ignores it.
    capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"MJPG"))
    capture.set(cv2.CAP_PROP_FRAME_WIDTH, WIDTH)
    capture.set(cv2.CAP_PROP_FRAME_HEIGHT, HEIGHT)
    capture.set(cv2.CAP_PROP_FPS, RATE)
    capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
    return capture


def fault_of(path: Path) -> str | None:
    """Why a camera of Linux cannot be used, and what to do about it; None when it can."""
    if not path.exists():
        others = ", ".join(str(camera.path) for camera in list_cameras())
        return (
            f"no camera {path}, only {others}" if others else "no camera on this machine (no /dev/video*); plug one in"
        )
    try:
        device = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    except PermissionError:
        return f"no permission to open {path}; `sudo usermod -aG {_group(path)} $USER`, then log in again"
    except OSError as error:
        return _in_words(path, error)
    try:
        return _fault_of_open(device, path)
    finally:
        os.close(device)


def _fault_of_open(device: int, path: Path) -> str | None:
    import fcntl

    try:
        capability = fcntl.ioctl(device, VIDIOC_QUERYCAP, bytes(104))
    except OSError as error:
        return f"{path} is no camera ({error.strerror})"
    whole, own = struct.unpack_from("=II", capability, 84)
    if not (own if whole & CAP_DEVICE_CAPS else whole) & (CAP_VIDEO_CAPTURE | CAP_VIDEO_CAPTURE_MPLANE):
        return f"{path} gives no pictures, only data about them; take another number"
    try:
        fcntl.ioctl(device, VIDIOC_REQBUFS, struct.pack("=IIIIBBBB", 0, BUF_TYPE_VIDEO_CAPTURE, MEMORY_MMAP, *[0] * 5))
    except OSError as error:
        return _in_words(path, error) if error.errno == errno.EBUSY else None  # else it lends no buffers of this kind
    return None


def _in_words(path: Path, error: OSError) -> str:
    if error.errno == errno.EBUSY:
        users = ", ".join(_users(path))
        return f"in use by {users or 'another program'}; close that first"
    if error.errno in (errno.ENODEV, errno.ENXIO):
        return f"nothing behind {path} any more; plug the camera in again"
    return f"{path} cannot be opened: {error.strerror}"


def _group(path: Path) -> str:
    import grp

    try:
        return grp.getgrgid(path.stat().st_gid).gr_name
    except KeyError:
        return "video"


def _users(path: Path) -> Iterator[str]:
    """Programs that have the device open, as far as they may be seen."""
    device = path.resolve()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if any(os.readlink(handle) == str(device) for handle in (process / "fd").iterdir()):
                yield f"{(process / 'comm').read_text().strip()} (process {process.name})"
        except OSError:
            continue  # another user's, or over


@dataclass(frozen=True)
class ListedCamera:
    """index: N of cam:N. path: of its device. name: as its maker calls it. fault: why it cannot be used, or None."""

    index: int
    path: Path
    name: str
    fault: str | None


def list_cameras() -> list[ListedCamera]:
    """The cameras of a Linux machine, by number, those that cannot be used included; [] on other systems.

    Devices that only give data about another's pictures are left out, as each of today's webcams brings one.
    """
    paths = sorted(DEVICES.glob("video[0-9]*"), key=lambda path: (len(path.name), path.name))
    cameras = []
    for path in paths:
        fault = fault_of(path)
        if fault is None or "only data about them" not in fault:
            cameras.append(ListedCamera(int(path.name.removeprefix("video")), path, _name(path), fault))
    return cameras


def _name(path: Path) -> str:
    try:
        return (NAMES / path.name / "name").read_text(errors="replace").strip()
    except OSError:
        return "camera"
