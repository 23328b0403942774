"""Headless Chromium with a camera that is a file, for tests of pages."""

import base64
import io
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import av
import numpy as np
from PIL import Image

from pipeline.drawing.heat import draw_heat
from pipeline.readings import Reading

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Playwright

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
MISSING = "no Chromium on this machine (apt-get install chromium)"


@contextmanager
def started_playwright() -> Iterator["Playwright"]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as started:
        yield started


def launch(playwright: "Playwright", *switches: str) -> "Browser":
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    return playwright.chromium.launch(executable_path=CHROMIUM, args=[*sandbox, *switches])


def launch_with_camera(playwright: "Playwright", film: Path) -> "Browser":
    """A browser whose pages may use a camera, which shows a film (.mjpeg)."""
    switches = ("--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream")
    return launch(playwright, *switches, f"--use-file-for-fake-video-capture={film}")


def heat_difference(page: "Page", reading: Reading, *, mirrored: bool = False) -> tuple[float, float]:
    """How much the heat that a page draws over the largest face differs from Python's: on average, and at most.

    It is in levels of 0 to 255 over a grey picture, of what lies well within the face's box, away from its line and
    label. mirrored: as the page is.
    """
    found = page.locator("#overlay").evaluate("canvas => canvas.toDataURL()")
    canvas = np.asarray(Image.open(io.BytesIO(base64.b64decode(found.partition(",")[2]))).convert("RGBA"))
    scale = min(canvas.shape[1] / reading.width, canvas.shape[0] / reading.height)
    width, height = round(reading.width * scale), round(reading.height * scale)
    top, left = (canvas.shape[0] - height) // 2, (canvas.shape[1] - width) // 2
    over = canvas[top : top + height, left : left + width].astype(float)
    over = over[:, ::-1] if mirrored else over
    opacity = over[..., 3:] / 255
    expected = np.full((height, width, 3), 128, np.uint8)
    face = reading.resized(width, height).faces[0]
    draw_heat(expected, face, 1, 0)
    assert (expected != 128).any(), "no heat was expected"
    box = np.array(face.box).reshape(2, 2)
    margin = (box[1] - box[0]) / 6
    (x0, y0), (x1, y1) = np.rint([box[0] + margin, box[1] - margin]).astype(int).clip(0)
    difference = abs(128 * (1 - opacity) + over[..., :3] * opacity - expected)[y0:y1, x0:x1]
    return float(difference.mean()), float(difference.max())


def write_films(folder: Path, portrait: bytes) -> None:
    """Two seconds of a face that moves about: camera.mjpeg, and clip.webm for those who choose a video."""
    face = Image.open(io.BytesIO(portrait)).convert("RGB").resize((410, 480))
    pictures = []
    for number in range(50):
        pictures.append(Image.new("RGB", (640, 480), (70, 84, 96)))
        pictures[-1].paste(face, (115 + round(60 * np.sin(number / 25 * np.pi)), 0))
    fast = {"deadline": "realtime", "cpu-used": "8"}
    for name, codec, layout in (("camera.mjpeg", "mjpeg", "yuvj420p"), ("clip.webm", "libvpx", "yuv420p")):
        with av.open(str(folder / name), "w") as file:
            stream = file.add_stream(codec, rate=25, width=640, height=480, pix_fmt=layout, options=fast)
            assert isinstance(stream, av.VideoStream)
            stream.bit_rate = 4_000_000
            for image in pictures:
                file.mux(stream.encode(av.VideoFrame.from_image(image)))
            file.mux(stream.encode())
