"""Pictures and videos to measure with, made from the portrait that comes with matplotlib."""

from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from matplotlib.cbook import get_sample_data
from PIL import Image

RATE = 30  # frames a second
DRIFT = 30  # pixels that a video's ground moves by, either way
HEAD = (150, 60, 400, 370)  # of the portrait: left, top, right, bottom


def portrait() -> Image.Image:
    """512x600, with one face."""
    with get_sample_data("grace_hopper.jpg") as file, Image.open(file) as image:
        return image.convert("RGB")


def make_photos(folder: Path, size: tuple[int, int], count: int, *, vary: int = 0) -> Path:
    """`count` JPEGs of `size` (width, height), each a slightly different cut; smaller by up to `vary` pixels a side."""
    folder.mkdir()
    image = portrait()
    if max(size) < 100:  # where the face is all that there is room for
        image = image.crop((150, 80, 380, 350))
    generator = np.random.default_rng(0)
    for number in range(count):
        margin = generator.uniform(0, 0.06, 4) * (image.width, image.height, image.width, image.height)
        box = (margin[0], margin[1], image.width - margin[2], image.height - margin[3])
        width, height = (side - int(generator.integers(vary + 1)) for side in size)
        photo = image.resize((width, height), Image.Resampling.BICUBIC, box)
        photo.save(folder / f"{number:05d}.jpg", quality=92)
    return folder


def make_video(path: Path, size: tuple[int, int], seconds: float) -> Path:
    """H.264 with two faces, the portrait's and its mirror image, that move and nod before a ground that drifts."""
    width, height = size
    head = np.asarray(portrait().crop(HEAD)).astype(np.float32)
    oval = np.zeros(head.shape[:2], np.float32)
    oval[12:-12, 18:-18] = 1
    oval = cv2.GaussianBlur(oval, (0, 0), 8)
    people = [(head, 0.5 * height), (head[:, ::-1], 0.38 * height)]
    ground = make_ground(width + 2 * DRIFT, height + 2 * DRIFT)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE, options={"crf": "23", "preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.time_base = Fraction(1, RATE)
        for number in range(round(seconds * RATE)):
            time = number / RATE
            left, top = (int(DRIFT * (1 + np.sin(time * speed))) for speed in (0.3, 0.4))
            picture = ground[top : top + height, left : left + width].copy()
            for person, (face, tall) in enumerate(people):
                angle = 2 * np.pi * time / (7 + 2 * person) + person
                scale = tall / face.shape[0] * (1 + 0.1 * np.sin(angle * 0.7))
                matrix = cv2.getRotationMatrix2D((face.shape[1] / 2, face.shape[0] / 2), 6 * np.sin(angle * 1.3), scale)
                matrix[:, 2] += [
                    width * (0.27 + 0.46 * person + 0.1 * np.sin(angle)) - face.shape[1] / 2,
                    height * (0.5 + 0.12 * np.cos(angle * 1.1)) - face.shape[0] / 2,
                ]
                mask = cv2.warpAffine(oval, matrix, size)[:, :, None]
                picture += mask * (cv2.warpAffine(np.ascontiguousarray(face), matrix, size) - picture)
            frame = av.VideoFrame.from_ndarray(picture.clip(0, 255).astype(np.uint8), "rgb24")
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def make_ground(width: int, height: int) -> np.ndarray:
    """Clouds of all sizes in muted colours, (height, width, 3) float32: as much detail as a room has, and no face."""
    generator = np.random.default_rng(0)
    ground = np.full((height, width, 3), 110, np.float32)
    for cell in (320, 160, 80, 40, 20, 10, 5):
        grid = generator.normal(0, 9, (height // cell + 2, width // cell + 2, 3)).astype(np.float32)
        ground += cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)
    return ground


def repeat_video(source: Path, path: Path, times: int) -> Path:
    """The video so many times over, its packets as they are."""
    with av.open(str(path), "w") as output:
        with av.open(str(source)) as container:
            stream = output.add_stream_from_template(container.streams.video[0])
        length = 0
        for _ in range(times):
            with av.open(str(source)) as container:
                video = container.streams.video[0]
                start = length
                for packet in container.demux(video):
                    if packet.dts is None:  # what the decoder is flushed with
                        continue
                    packet.pts += start
                    packet.dts += start
                    length = max(length, packet.pts + packet.duration)
                    packet.stream = stream
                    output.mux(packet)
    return path
